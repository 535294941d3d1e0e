"""Bring pictures of any size to a generator's size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def cover(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale frames (F, H, W, 3) uint8 to cover width x height, and cut around the centre.

    Scaling is Pillow's antialiased Lanczos; frames that already fit come back unchanged.
    """
    from PIL import Image

    source_height, source_width = pixels.shape[1:3]
    if (source_width, source_height) == (width, height):
        return pixels
    scale = max(width / source_width, height / source_height)
    part_width, part_height = width / scale, height / scale
    left, top = (source_width - part_width) / 2, (source_height - part_height) / 2
    box = (left, top, left + part_width, top + part_height)
    return np.stack(
        [
            np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS, box=box))
            for frame in pixels
        ]
    )


def stretch(pixels: np.ndarray, width: int, height: int, how: str = "bilinear") -> np.ndarray:
    """Stretch frames (F, H, W, 3) uint8 to width x height; how: Pillow's "bilinear", "bicubic" or "lanczos".

    All three are antialiased.
    """
    from PIL import Image

    if pixels.shape[1:3] == (height, width):
        return pixels
    kind = Image.Resampling[how.upper()]
    return np.stack([np.asarray(Image.fromarray(frame).resize((width, height), kind)) for frame in pixels])


def contain(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale frames (F, H, W, 3) uint8 to lie within width x height, and centre them on black; Lanczos.

    Sides and places are rounded as diffusers' WanAnimateImageProcessor rounds them.
    """
    from PIL import Image

    source_height, source_width = pixels.shape[1:3]
    if source_width * height > width * source_height:
        size = width, max(source_height * width // source_width, 1)
    else:
        size = max(source_width * height // source_height, 1), height
    left, top = width // 2 - size[0] // 2, height // 2 - size[1] // 2
    framed = np.zeros((len(pixels), height, width, 3), np.uint8)
    for frame, source in zip(framed, pixels, strict=True):
        scaled = Image.fromarray(source).resize(size, Image.Resampling.LANCZOS)
        frame[top : top + size[1], left : left + size[0]] = np.asarray(scaled)
    return framed


def opencv(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Stretch frames (F, H, W, 3) uint8 to width x height as OpenCV's resize does, bit for bit.

    Bilinear between the four nearest pixels, in fixed-point numbers, without the filter that a smaller
    picture would need.
    """
    if pixels.shape[1:3] == (height, width):
        return pixels
    (above, below, down), (left, right, across) = (
        _neighbours(had, new) for had, new in zip(pixels.shape[1:3], (height, width), strict=True)
    )
    inside = (left >= 0) & (right < pixels.shape[2])
    across = np.where(inside, across, np.float32(0))  # at the sides there is nothing between
    left, right, above, below = (
        each.clip(0, pixels.shape[axis] - 1) for each, axis in ((left, 2), (right, 2), (above, 1), (below, 1))
    )
    first, second = (_fixed(share)[:, None] for share in (1 - across, across))
    upper, lower = (_fixed(share)[:, None, None] for share in (1 - down, down))
    made = np.empty((len(pixels), height, width, 3), np.uint8)
    for frame, given in zip(made, pixels.astype(np.int32), strict=True):
        rows = (given[:, left] * first + given[:, right] * second) >> 4
        frame[:] = (((rows[above] * upper) >> 16) + ((rows[below] * lower) >> 16) + 2) >> 2
    return made


def letterbox(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale frames (F, H, W, 3) uint8 to lie within width x height, centred on black, as Wan2.2 does."""
    had_height, had_width = pixels.shape[1:3]
    if had_height / had_width > height / width:
        size = max(int(height / had_height * had_width), 1), height
    else:
        size = width, max(int(width / had_width * had_height), 1)
    left, top = (int((whole - part) / 2) for whole, part in zip((width, height), size, strict=True))
    framed = np.zeros((len(pixels), height, width, 3), np.uint8)
    framed[:, top : top + size[1], left : left + size[0]] = opencv(pixels, *size)
    return framed


def square(pixels: np.ndarray, side: int) -> np.ndarray:
    """Stretch frames (F, H, W, 3) to (F, side, side, 3) float32 as torch's bicubic interpolation does.

    Levels are not rounded, and may lie beyond 0 and 255; a smaller picture is not filtered.
    """
    found = pixels
    for axis in (1, 2):
        had = pixels.shape[axis]
        place = (np.arange(side, dtype=np.float32) + np.float32(0.5)) * np.float32(had / side) - 0.5
        before = np.floor(place).astype(int)
        far = np.abs(place[:, None] - (before[:, None] + np.arange(-1, 3))).astype(np.float32)
        near = (1.25 * far - 2.25) * far * far + 1
        weights = np.where(far <= 1, near, ((-0.75 * far + 3.75) * far - 6) * far + 3).astype(np.float32)
        shape = [1] * 4
        shape[axis] = side
        found = sum(
            found.take((before + tap - 1).clip(0, had - 1), axis) * weights[:, tap].reshape(shape)
            for tap in range(4)
        )
    return found.astype(np.float32)


def _neighbours(had: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List for each new place the ones before and behind, and its distance from the first."""
    place = ((np.arange(new) + 0.5) * (had / new) - 0.5).astype(np.float32)
    before = np.floor(place).astype(int)
    return before, before + 1, place - before.astype(np.float32)


def _fixed(share: np.ndarray) -> np.ndarray:
    """Turn shares into OpenCV's whole numbers of 2048ths."""
    return np.rint(share.astype(np.float32) * 2048).astype(np.int32)


FITS = {"cover": cover, "contain": contain, "stretch": stretch}


@dataclass(frozen=True)
class Fit:
    """A function that brings frames to a generator's size by a rule of FITS, in place of its own."""

    rule: str
    size: tuple[int, int]

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return frames (F, any, any, 3) uint8 at this size."""
        return FITS[self.rule](pixels, *self.size)
