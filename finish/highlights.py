"""The frames of a video to show, each with a box of the wanted ratio: nearly all, or those that stand out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np

from engines.errors import InputError
from finish.cover import write_whole
from finish.following import FOLLOW, Follow, follow
from finish.framing import calm, framed, whole
from finish.moments import stretches
from finish.predictions import Entry, dumped
from finish.pruning import kept
from finish.signals import Signals
from finish.watching import Watched

WINDOW = 3.0  # seconds to each side that a subject is looked for in
MOVE = 1.0  # seconds that the camera takes to follow
SPREAD = 4.5  # cells: parts of one subject lie so close together
SHARE = 0.35  # of the strongest place: what is less is background
Look = Callable[[Path], Callable[[tuple[float, float]], list[dict]]]
PRUNE = Fraction(1, 10)  # of a video that is left out at most
LEAST = 0.7  # of the largest box: nearer, a gesture leaves the picture


def highlights(signals: Signals, ratio: tuple[float, float]) -> list[dict]:
    """Predictions {"frame": n, "bboxes": [x, y, w]} in whole pixels, ascending; none where nothing is."""
    found = []
    for first, last in stretches(signals):
        cuts = [tick for tick in range(first + 1, last) if signals.cut[tick]]
        for start, stop in zip([first, *cuts], [*cuts, last], strict=True):
            found += _boxes(signals, start, stop, ratio)
    return found


def everything(
    watched: Watched, ratio: tuple[float, float], prune: float, plan: Follow = FOLLOW
) -> list[dict]:
    """Predictions for all frames but those not worth showing, which are a part `prune` at most."""
    boxes = follow(watched, ratio, plan).tolist()
    return [{"frame": int(n), "bboxes": boxes[n]} for n in np.flatnonzero(kept(watched, prune))]


def predict(
    entries: Mapping[str, Entry],
    videos: Path,
    look: Look,
    out: Path,
    tell: Callable[[], None],
    more: Mapping = MappingProxyType({}),
) -> list[str]:
    """Write a line with predictions for each entry; a video is looked through once for all of its ratios.

    look: a video's file to what gives predictions for a ratio. more: what all lines have besides. Returns why
    videos could not be read. Such a one has no predictions and an "error" on its lines, and changes nothing
    for others. out appears whole or not at all. OutputError.
    """
    lines = {name: {**entry.line, **more, "predictions": []} for name, entry in entries.items()}
    failures = []
    by_file: dict[Path, list[Entry]] = {}
    for entry in entries.values():
        by_file.setdefault(entry.video(videos), []).append(entry)
    for file, asked in by_file.items():
        try:
            choose = look(file)
            for entry in asked:
                lines[entry.id]["predictions"] = choose(entry.ratio)
        except InputError as error:
            failures.append(str(error))
            for entry in asked:
                lines[entry.id]["error"] = str(error)
        tell()
    write_whole(out, b"".join(map(dumped, lines.values())))
    return failures


def subject(seen: np.ndarray) -> np.ndarray:
    """Left, top, right, bottom (4,), from 0 to 1, of the strongest place of a map (rows, columns)."""
    blurred = cv2.GaussianBlur(seen.astype(np.float32), (0, 0), SPREAD)
    if blurred.max() <= 0:
        return np.array([0.25, 0.0, 0.75, 1.0])
    _, labels = cv2.connectedComponents((blurred > SHARE * blurred.max()).astype(np.uint8))
    masses = np.bincount(labels.ravel(), blurred.ravel())
    rows, columns = np.nonzero(labels == 1 + int(np.argmax(masses[1:])))
    box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)
    return np.clip(box / np.tile(seen.shape[::-1], 2), 0, 1)


def _boxes(signals: Signals, start: int, stop: int, ratio: tuple[float, float]) -> Iterator[dict]:
    """Predictions for the frames from one tick to another (not included) without a cut between."""
    reach = round(WINDOW * signals.rate)
    summed = np.cumsum(signals.maps[start:stop].astype(np.float32), 0)
    summed = np.concatenate([np.zeros_like(summed[:1]), summed])
    ticks = np.arange(stop - start)
    low, high = np.maximum(ticks - reach, 0), np.minimum(ticks + reach + 1, stop - start)
    subjects = np.stack([subject(summed[b] - summed[a]) for a, b in zip(low, high, strict=True)])
    size = signals.size
    path = calm(framed(subjects * np.tile(size, 2), ratio, size, LEAST), size[0], round(MOVE * signals.rate))
    frames = np.flatnonzero((signals.places >= start) & (signals.places < stop))
    at = signals.places[frames] - start
    smooth = np.stack([np.interp(at, ticks, values) for values in path.T], 1)
    for frame, box in zip(frames, smooth, strict=True):
        yield {"frame": int(frame), "bboxes": whole(box, ratio, size)}
