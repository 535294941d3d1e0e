"""Ways to choose frames and boxes, held against each other: both modes, and plain rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from finish.following import follow
from finish.framing import whole
from finish.highlights import PRUNE, everything
from finish.watching import Watched

EVERY = 5  # frames of which the sparse plain rule takes one
SURE, AVERAGED = 0.9, 1.0  # of a face, and seconds that the plain rule's path is averaged over
MODES = {"all": "--select all", "blind": "the same, faces not looked for", "sparse": "--select sparse"}
RULES = {
    "face": "every frame, smoothed face box",
    "centre": "every frame, centre",
    "few": f"every {EVERY}th frame, centre",
}


def chosen(watched: Watched, sparse: list[dict], ratio: tuple[float, float]) -> dict[str, list[dict]]:
    """Predictions of each of MODES and RULES; sparse: of that mode, which looks by itself."""
    blind = replace(watched, faces=[np.zeros((0, 5))] * len(watched.faces))
    still = replace(blind, across=np.ones_like(blind.across), down=np.ones_like(blind.down))
    centre = _every(follow(still, ratio))
    return {
        "all": everything(watched, ratio, float(PRUNE)),
        "blind": everything(blind, ratio, float(PRUNE)),
        "sparse": sparse,
        "face": _every(smoothed_faces(watched, ratio)),
        "centre": centre,
        "few": centre[::EVERY],
    }


def smoothed_faces(watched: Watched, ratio: tuple[float, float]) -> np.ndarray:
    """Boxes (N, 3) around the largest face of each look, averaged over time; in the middle without any.

    It knows of no cuts and no other faces: the rule that scored 34 on the contest's real videos.
    """
    size, times = np.array(watched.size, float), watched.begins[:-1]
    wide = min(size[0], size[1] * ratio[0] / ratio[1])
    sides, found = np.array([wide, wide * ratio[1] / ratio[0]]), {}
    for look, boxes in zip(watched.looks, watched.faces, strict=True):
        sure = boxes[boxes[:, 4] >= SURE]
        if len(sure):
            best = sure[np.prod(sure[:, 2:4] - sure[:, :2], 1).argmax()]
            found[look] = (best[:2] + best[2:4]) / 2 * size
    if not found:
        middle = np.tile(size / 2, (len(times), 1))
    else:
        path = np.array(list(found.values()))
        middle = np.stack([np.interp(times, times[list(found)], line) for line in path.T], 1)
        half = np.searchsorted(times, times[0] + AVERAGED / 2)
        padded = np.pad(middle, ((half, half), (0, 0)), mode="edge")
        total = np.cumsum(np.concatenate([np.zeros((1, 2)), padded]), 0)
        middle = (total[2 * half + 1 :] - total[: -2 * half - 1]) / (2 * half + 1)
    corners = np.clip(middle - sides / 2, 0, size - sides)
    return np.array([whole(np.array([*corner, wide]), ratio, watched.size) for corner in corners])


def table(beds: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Markdown: a row for each bed and ratio, whose 100 F by ways are given; the best of a row is bold."""
    names = {**MODES, **RULES}
    lines = ["| footage | ratio | " + " | ".join(names.values()) + " |", "|---" * (len(names) + 2) + "|"]
    for bed, ratios in beds.items():
        for ratio, found in ratios.items():
            best = max(found.values())
            cells = [f"**{found[way]:.1f}**" if found[way] == best else f"{found[way]:.1f}" for way in names]
            lines.append(f"| {bed} | {ratio} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def mean_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """100 times the mean of each way."""
    return {way: 100 * float(np.mean([row[way] for row in rows])) for way in rows[0]}


def _every(boxes: np.ndarray) -> list[dict]:
    return [{"frame": n, "bboxes": box} for n, box in enumerate(boxes.tolist())]
