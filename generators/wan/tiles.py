"""Decode pictures in tiles that overlap by half, blended where they do, as DiffSynth-Studio does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from engines.device_arrays import Array, constant, on_host
from engines.spec import DimRange
from generators.wan.config import VAE_STRIDE_HW

Span = tuple[int, int]  # along an axis, in latents: where a tile begins, and where it ends


class Tiles:
    """The tiles of a picture: of `size`, each half a size from the next, the last ones cut at the border.

    whole, size: (height, width) in latents; a size of 0, or beyond the whole: one tile.
    """

    def __init__(self, whole: tuple[int, int], size: tuple[int, int]) -> None:
        self._whole, self._shared = whole, tuple(length // 2 for length in size)
        self._spans = [spans(length, most) for length, most in zip(whole, size, strict=True)]
        self.places = list(product(*self._spans))
        self.several = len(self.places) > 1

    @property
    def ranges(self) -> dict[str, DimRange]:
        """The heights and widths of tiles: all have the size, or are cut at one border or at both."""
        lengths = ([stop - start for start, stop in each] for each in self._spans)
        return {
            name: DimRange(min(each), max(each), max(each)) for name, each in zip("hw", lengths, strict=True)
        }

    def of(self, latents: Array) -> Iterator[Array]:
        """Cut latents (..., h, w) into tiles."""
        for (top, bottom), (left, right) in self.places:
            yield latents[..., top:bottom, left:right]

    def blended(self, tiles: Sequence[Array]) -> np.ndarray:
        """Join decoded tiles (n, height, width, 3), -1 to 1, to pixels (n, H, W, 3) uint8, cut to levels.

        What is outside -1 to 1 is mixed as it is, and clipped in the end.
        """
        height, width = (length * VAE_STRIDE_HW for length in self._whole)
        values = np.zeros_like(tiles[0], shape=(len(tiles[0]), height, width, 3))
        weights = np.zeros_like(tiles[0], shape=(height, width, 1))
        for place, tile in zip(self.places, tiles, strict=True):
            down, across = (
                constant(ramp(span, length, shared), tile)
                for span, length, shared in zip(place, self._whole, self._shared, strict=True)
            )
            mask = np.minimum(down[:, None, None], across[None, :, None])
            here = tuple(slice(start * VAE_STRIDE_HW, stop * VAE_STRIDE_HW) for start, stop in place)
            values[(slice(None), *here)] += tile * mask
            weights[here] += mask
        levels = (np.clip(values / weights, -1, 1) + 1) * np.float32(127.5)
        return on_host(levels.astype(np.uint8))


def spans(length: int, size: int) -> list[Span]:
    """Cut an axis into spans of a size, each half a size further, the last one as short as the axis wants."""
    if not 0 < size < length:
        return [(0, length)]
    step = size // 2
    count = 1 + -(-(length - size) // step)
    return [(step * number, min(step * number + size, length)) for number in range(count)]


def ramp(span: Span, length: int, shared: int) -> np.ndarray:
    """Make a tile's weights along an axis, by pixels: they rise after another tile, and fall before one."""
    weights = np.ones((span[1] - span[0]) * VAE_STRIDE_HW, np.float32)
    width = shared * VAE_STRIDE_HW
    rising = (np.arange(width, dtype=np.float32) + 1) / np.float32(width)
    if span[0]:
        weights[:width] = rising
    if span[1] < length:
        weights[-width:] = rising[::-1]
    return weights
