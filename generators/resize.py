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


def stretch(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Stretch frames (F, H, W, 3) uint8 to width x height; bilinear, antialiased."""
    from PIL import Image

    if pixels.shape[1:3] == (height, width):
        return pixels
    how = Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(frame).resize((width, height), how)) for frame in pixels])


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


FITS = {"cover": cover, "contain": contain, "stretch": stretch}


@dataclass(frozen=True)
class Fit:
    """A function that brings frames to a generator's size by a rule of FITS, in place of its own."""

    rule: str
    size: tuple[int, int]

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return frames (F, any, any, 3) uint8 at this size."""
        return FITS[self.rule](pixels, *self.size)
