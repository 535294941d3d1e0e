"""Bring pictures to size as upstream does, and round their levels as its half precision does; no torch."""

from __future__ import annotations

import math

import numpy as np


def cover(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale frames (F, H, W, 3) uint8 to cover width x height, rounded up, and cut around the centre.

    Bilinear between the four nearest pixels, without the filter that a smaller picture would need, as
    torchvision's resize does with tensors.
    """
    had_height, had_width = pixels.shape[1:3]
    if (had_width, had_height) == (width, height):
        return pixels
    ratio = had_height / had_width
    tall = ratio < height / width
    new_height, new_width = (height, math.ceil(height / ratio)) if tall else (math.ceil(width * ratio), width)
    rows = _nearest(had_height, new_height)[round((new_height - height) / 2) :][:height]
    columns = _nearest(had_width, new_width)[round((new_width - width) / 2) :][:width]
    return np.stack([_between(frame, rows, columns) for frame in pixels])


def fill_up(pixels: np.ndarray, width: int, height: int, mode: str) -> np.ndarray:
    """Pad frames at the right and below, up to width x height. mode: np.pad's."""
    had_height, had_width = pixels.shape[1:3]
    return np.pad(pixels, ((0, 0), (0, height - had_height), (0, width - had_width), (0, 0)), mode=mode)


def halved_levels(half: bool = True) -> np.ndarray:
    """Map each level (256,) uint8 through upstream's way to [-1, 1] and back, which truncates.

    In half precision 20 of the levels lose 1; without, 63.
    """
    dtype = np.float16 if half else np.float32

    def stored(array: np.ndarray) -> np.ndarray:
        return array.astype(dtype).astype(np.float32)

    seen = stored(stored(np.arange(256, dtype=np.float32) / np.float32(127.5)) - 1)
    return stored(stored(seen + 1) * np.float32(127.5)).astype(np.uint8)


def _nearest(had: int, new: int) -> np.ndarray:
    """Compute, (new, 3): for each new place those before and behind, and its distance from the first."""
    place = np.maximum((np.arange(new, dtype=np.float32) + np.float32(0.5)) * np.float32(had / new) - 0.5, 0)
    before = np.minimum(place.astype(int), had - 1)
    return np.stack([before, np.minimum(before + 1, had - 1), place - before], 1)


def _between(frame: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    def blended(array: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
        before, behind = (array.take(places[:, side].astype(int), axis) for side in (0, 1))
        share = places[:, 2].astype(np.float32).reshape([-1 if axis == a else 1 for a in range(3)])
        return before * (1 - share) + behind * share

    scaled = blended(blended(frame.astype(np.float32), columns, 1), rows, 0)
    return scaled.round().astype(np.uint8)
