"""The two pictures of docs/finish.md: first frames beside chosen covers, and boxes along a clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from finish.fit import fitted
from lab.finish.footage import Reel
from lab.finish.wide import FPS, WideClip

COLOURS = {"9:16": (255, 90, 60), "16:9": (60, 220, 90)}
TRUE, BLUE = (255, 255, 255), (90, 120, 255)
TALL = 160  # pixels of a picture's height


def covers_sheet(pairs: Sequence[Sequence[tuple[np.ndarray, float]]], path: Path) -> None:
    """A column for each video: its first frame above, the chosen one below, with their true qualities.

    Five beside each other, the next five below.
    """
    titled = [[_titled(picture, f"{worth:.2f}") for picture, worth in pair] for pair in pairs]
    columns = [np.concatenate(pair) for pair in titled]
    rows = [np.concatenate(columns[i : i + 5], 1) for i in range(0, len(columns), 5)]
    wide = max(row.shape[1] for row in rows)
    padded = [np.pad(r, ((0, 12), (0, wide - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
    _save(np.concatenate(padded), path)


def boxes_sheet(clip: WideClip, predictions: Mapping[str, list[dict]], path: Path, shown: int = 12) -> None:
    """Moments evenly over a clip, with the boxes chosen for each ratio; true ones in white."""
    boxes = {name: {each["frame"]: each["bboxes"] for each in found} for name, found in predictions.items()}
    ratios = {name: tuple(int(part) for part in name.split(":")) for name in predictions}
    truths = {n: {each["frame"]: each["bboxes"] for each in clip.truth(r)} for n, r in ratios.items()}
    wanted, rows = set(np.linspace(0, clip.count - 1, shown).astype(int)), []
    for number, frame in enumerate(clip.frames()):
        if number in wanted:
            picture = frame.copy()
            for name, (wide, high) in ratios.items():
                for source, colour, thick in ((truths, TRUE, 1), (boxes, COLOURS[name], 2)):
                    if number in source[name]:
                        x, y, w = source[name][number]
                        end = (round(x + w) - 1, round(y + w * high / wide) - 1)
                        cv2.rectangle(picture, (round(x), round(y)), end, colour, thick)
            rows.append(_titled(picture, f"{number / FPS:.0f} s"))
    _save(np.concatenate([np.concatenate(rows[i : i + 4], 1) for i in range(0, shown, 4)]), path)


def reel_sheet(reel: Reel, boxes: Mapping[str, np.ndarray], path: Path, shown: int = 24) -> None:
    """Moments of a video of real footage with a box of each ratio, and the true subject in white."""
    wanted, rows = set(np.linspace(0, len(reel.moments) - 1, shown).astype(int)), []
    for number, frame in enumerate(reel.frames()):
        if number in wanted:
            picture, (_, true) = frame.copy(), reel.subject(number)
            for colour, (name, made) in zip((*COLOURS.values(), BLUE), boxes.items(), strict=False):
                wide, high = (int(part) for part in name.split(":"))
                x, y, w = (int(value) for value in made[number])
                cv2.rectangle(picture, (x, y), (x + w - 1, y + round(w * high / wide) - 1), colour, 3)
            if true is not None:
                cv2.rectangle(picture, *(tuple(int(v) for v in end) for end in (true[:2], true[2:])), TRUE, 2)
            rows.append(_titled(picture, f"{reel.moments[number].flaw or round(number / 25)}"))
    _save(np.concatenate([np.concatenate(rows[i : i + 6], 1) for i in range(0, shown, 6)]), path)


def _titled(picture: np.ndarray, title: str) -> np.ndarray:
    small = fitted(picture, (round(TALL * picture.shape[1] / picture.shape[0]), TALL)).copy()
    for colour, thick in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(small, title, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, thick, cv2.LINE_AA)
    return small


def _save(picture: np.ndarray, path: Path) -> None:
    from PIL import Image

    Image.fromarray(picture).quantize(256).save(path, optimize=True)
