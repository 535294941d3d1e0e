"""Cut a long video into overlapping windows, and blend predictions back together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Windows:
    """The blend rule: full windows of `length` latent frames that share `overlap` with the next one.

    The last window is moved back to stay full, so that every evaluation sees one shape. A clip shorter than
    a window is padded to one by the caller (see padded).
    """

    length: int
    overlap: int

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.length:
            raise ValueError(
                f"windows need 0 <= overlap < length, got overlap {self.overlap} of {self.length}"
            )

    def padded(self, frames: int) -> int:
        """How many frames to sample for a clip of that many: at least one window."""
        if frames < 1:
            raise ValueError(f"a clip has at least one frame, got {frames}")
        return max(frames, self.length)

    def count(self, frames: int) -> int:
        """How many windows a clip of that many frames is sampled in."""
        return len(self.starts(self.padded(frames)))

    def starts(self, frames: int) -> list[int]:
        """First frames of the windows over a clip of frames >= length."""
        if frames < self.length:
            raise ValueError(f"{frames} frames do not fill a window of {self.length}; pad them first")
        stride = self.length - self.overlap
        regular = list(range(0, frames - self.length + 1, stride))
        last = frames - self.length
        return regular if regular[-1] == last else [*regular, last]

    @property
    def weights(self) -> np.ndarray:
        """(length,) float32 blending weights: a ramp over each overlap, flat between."""
        place = np.arange(self.length)
        ramp = np.minimum(place, place[::-1]) + 1
        return (np.minimum(ramp, self.overlap + 1) / (self.overlap + 1)).astype(np.float32)


class Blend:
    """Weighted mean of window predictions over a clip, along one axis."""

    def __init__(self, windows: Windows, like: np.ndarray, axis: int) -> None:
        self.windows, self.axis = windows, axis
        shape = [1] * like.ndim
        shape[axis] = -1
        self._weights = windows.weights.reshape(shape)
        self._sum = np.zeros_like(like)
        shape[axis] = like.shape[axis]
        self._total = np.zeros(shape, like.dtype)

    def add(self, start: int, prediction: np.ndarray) -> None:
        """Add the prediction of the window that starts there."""
        part = cut(self._sum.ndim, self.axis, start, self.windows.length)
        self._sum[part] += prediction * self._weights
        self._total[part] += self._weights

    def result(self) -> np.ndarray:
        """The blended prediction of the whole clip; every frame must have been covered."""
        return self._sum / self._total


def cut(ndim: int, axis: int, start: int, length: int) -> tuple[slice, ...]:
    """An index for `length` frames from `start` along one axis."""
    index = [slice(None)] * ndim
    index[axis] = slice(start, start + length)
    return tuple(index)
