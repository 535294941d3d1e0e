"""The uniform context windows of AnimateDiff's users: overlapping, strided, around the clip's end, moving."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from generators.windows import grouped


@dataclass(frozen=True)
class UniformWindows:
    """The rule `uniform` of AnimateDiff's context schedulers, as AnimateAnyone and MagicAnimate call it.

    Windows of `length` latent frames share `overlap` with the next, and their predictions are averaged. A
    clip no longer than a window is one window of `length`, filled with its last frame. strides: 1, or more
    for windows that also take every second frame, every fourth and so on, if the clip is long enough. closed:
    the clip is a circle: windows go over its end to its beginning; else only the last one does. filled: False
    for a denoiser that takes short windows, so that short clips are not filled, as upstream does.
    """

    length: int
    overlap: int
    strides: int = 1
    closed: bool = True
    filled: bool = True

    step = 0  # whose windows they are

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.length or self.strides < 1:
            raise ValueError(
                f"windows need 0 <= overlap < length and strides >= 1, got overlap {self.overlap} of "
                f"{self.length}, strides {self.strides}"
            )

    @property
    def frames(self) -> int:
        """The frames of a clip that fills one window."""
        return self.length

    def latent_frames(self, frames: int) -> int:
        """Count one latent frame for each frame."""
        return grouped(frames, 1)

    def condition_indices(self, frames: int) -> np.ndarray:
        """Give each latent frame its own conditions; a clip shorter than a window is filled with the last."""
        seen = np.arange(max(frames, self.length) if self.filled else frames)
        return np.minimum(seen, self.latent_frames(frames) - 1)

    def window_indices(self, frames: int) -> list[np.ndarray]:
        """List each window's indices among the sampled latent frames, as `uniform` does."""
        if frames <= self.length:
            return [np.arange(self.length if self.filled else frames)]
        halving, found = _ordered_halving(self.step), []
        strides = min(self.strides, math.ceil(math.log2(frames / self.length)) + 1)
        for stride in (2**power for power in range(strides)):
            moved = round(frames * halving)
            first, end = int(halving * stride) + moved, frames + moved - (0 if self.closed else self.overlap)
            for begin in range(first, end, self.length * stride - self.overlap):
                found.append(np.arange(begin, begin + self.length * stride, stride) % frames)
        return found

    def count(self, frames: int) -> int:
        """Count the windows that a clip is sampled in."""
        return len(self.window_indices(frames))

    def weights(self, length: int) -> np.ndarray:
        """Return ones (length,) float32: predictions are averaged."""
        return np.ones(length, np.float32)


@dataclass(frozen=True)
class MovingWindows(UniformWindows):
    """UniformWindows that begin elsewhere at each step."""

    step: int = 0

    def at(self, step: int) -> MovingWindows:
        """Give the windows of a step."""
        return replace(self, step=step)


@dataclass(frozen=True)
class HeldWindows(UniformWindows):
    """UniformWindows as MusePose calls them: the last frame is held until full windows end with the clip."""

    fixed_overlap = True  # by it follows how long the last frame is held

    def condition_indices(self, frames: int) -> np.ndarray:
        """Give each latent frame its own conditions, those that are added the last one's."""
        added = (self.length - frames) % (self.length - self.overlap)
        return np.minimum(np.arange(frames + added), self.latent_frames(frames) - 1)

    def window_indices(self, frames: int) -> list[np.ndarray]:
        """List each window's indices among the sampled latent frames."""
        sampled = len(self.condition_indices(frames))
        if sampled <= self.length:
            return [np.arange(sampled)]
        begins = range(0, sampled - self.overlap, self.length - self.overlap)
        return [np.arange(begin, begin + self.length) for begin in begins]


def _ordered_halving(number: int) -> float:
    """Read the number's 64 bits backwards, as a binary fraction: 0, 1/2, 1/4, 3/4, 1/8 and so on."""
    return int(f"{number:064b}"[::-1], 2) / 2**64
