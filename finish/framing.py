"""From what is to be seen to a box of the wanted ratio, and from many of these to a calm camera."""

from __future__ import annotations

import numpy as np

MARGIN = 0.08  # of the subject's size, left free on each side
DEAD = 0.06  # of the picture's width: a subject may move so far before the camera follows


def framed(
    subject: np.ndarray, ratio: tuple[float, float], size: tuple[int, int], least: float = 0.0
) -> np.ndarray:
    """Boxes x, y, w (N, 3) of a ratio (width, height) around subjects left, top, right, bottom (N, 4).

    The smallest that hold a subject with its margin, moved and shrunk to lie inside a picture of that size
    (width, height); where the subject is too large, around its middle. least: width of a box at the least, in
    parts of the largest there can be.
    """
    (width, height), tall = size, ratio[1] / ratio[0]
    left, top, right, bottom = subject.T
    wide = np.maximum(right - left, (bottom - top) / tall) * (1 + 2 * MARGIN)
    most = min(width, height / tall)
    wide = np.clip(wide, max(2.0, least * most), most)
    x = np.clip((left + right - wide) / 2, 0, width - wide)
    y = np.clip((top + bottom - wide * tall) / 2, 0, np.maximum(0, height - wide * tall))
    return np.stack([x, y, wide], 1)


def calm(boxes: np.ndarray, width: float, most: int) -> np.ndarray:
    """The same boxes (N, 3) as a calm camera would show them: at rest, or in one smooth move.

    It rests until the subject has left a dead zone, and then moves within `most` boxes to where it is.
    """
    path, held = boxes.copy(), np.median(boxes[:most], axis=0)
    start = 0
    while start < len(boxes):
        away = np.abs(boxes[start:] - held).max(1) > DEAD * width
        # Left for good: a single box beside the others is a mistake of what found it.
        gone = np.flatnonzero(away & np.append(away[1:], True))
        if not len(gone):
            break
        first = start + int(gone[0])
        path[start:first] = held
        stop = min(len(boxes), first + most)
        target = np.median(boxes[first : first + most], axis=0)
        u = np.linspace(0, 1, stop - first + 1)[1:, None]
        path[first:stop] = held + (target - held) * (u * u * (3 - 2 * u))
        held, start = target, stop
    path[start:] = held
    return path


def whole(box: np.ndarray, ratio: tuple[float, float], size: tuple[int, int]) -> list[int]:
    """A box x, y, w in whole pixels that lies inside the picture as exactly as the check asks."""
    tall = ratio[1] / ratio[0]
    wide = max(1, min(int(round(box[2])), size[0], int(size[1] / tall)))
    x = min(max(0, round(float(box[0]))), size[0] - wide)
    y = min(max(0, round(float(box[1]))), int(size[1] - wide * tall))
    return [int(x), max(0, int(y)), wide]
