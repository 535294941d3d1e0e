"""Cut a long video into windows: overlapping ones that are blended, or each going on from the one before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from engines.device_arrays import Array, constant


class WindowRule(Protocol):
    """A rule that cuts a clip into windows; `frames` are always those of the video, not of latents.

    The rule of blending is any frozen dataclass that answers this; a recipe may replace its `overlap`, and a
    step plan from step to step, unless it has fixed_overlap = True. One that changes by step has at(step),
    which gives the rule of that step; all have one condition_indices. One whose windows each have conditions
    of their own has seen(place), the indices of those of a window with these latent frames, and
    conditions(frames), how many there are of a clip.
    """

    length: int  # latent frames of the longest window

    @property
    def frames(self) -> int:
        """The frames of a clip that fills one window."""
        ...

    def latent_frames(self, frames: int) -> int:
        """Count the latent frames of a clip that are decoded. ValueError: no frames."""
        ...

    def condition_indices(self, frames: int) -> np.ndarray:
        """List, for each sampled latent frame, the one of the clip whose conditions it sees, (S,) integers.

        The clip's own come first. What is sampled beyond them fills windows, and is dropped in the end. How
        much windows overlap makes no difference, unless the rule has fixed_overlap.
        """
        ...

    def window_indices(self, frames: int) -> list[np.ndarray]:
        """List each window's indices among the sampled latent frames; at most `length` of them."""
        ...

    def count(self, frames: int) -> int:
        """Count the windows that a clip is sampled in."""
        ...

    def weights(self, length: int) -> np.ndarray:
        """Compute the weights (length,) float32 of a window's predictions, where windows overlap."""
        ...


@dataclass(frozen=True)
class OverlapWindows:
    """The rule of full windows of `length` latent frames that share `overlap` with the next, blended.

    The last window is moved back to stay full, so that every evaluation sees one shape. A clip shorter than
    a window is filled up to one. group: frames of the video that share a latent frame, all but the first,
    which has one of its own. filled: what fills a window has conditions of its own; else it sees the last.
    even: all predictions of a frame count alike, without ramps.
    """

    length: int
    overlap: int
    group: int = 1
    filled: bool = False
    even: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.length:
            raise ValueError(
                f"windows need 0 <= overlap < length, got overlap {self.overlap} of {self.length}"
            )

    @property
    def frames(self) -> int:
        """The frames of a clip that fills one window."""
        return 1 + (self.length - 1) * self.group

    def latent_frames(self, frames: int) -> int:
        """Count one latent frame for the first frame, then one for each group."""
        return grouped(frames, self.group)

    def condition_indices(self, frames: int) -> np.ndarray:
        """Give each latent frame its own conditions; a clip shorter than a window is filled up."""
        own = self.latent_frames(frames)
        places = np.arange(self.padded(own))
        return places if self.filled else np.minimum(places, own - 1)

    def window_indices(self, frames: int) -> list[np.ndarray]:
        """List each window's (length,) indices among the sampled latent frames."""
        starts = self.starts(self.padded(self.latent_frames(frames)))
        return [np.arange(start, start + self.length) for start in starts]

    def count(self, frames: int) -> int:
        """Count the windows that a clip of that many frames is sampled in."""
        return len(self.window_indices(frames))

    def padded(self, latent_frames: int) -> int:
        """Count the latent frames to sample for a clip of that many: at least one window."""
        return max(latent_frames, self.length)

    def starts(self, latent_frames: int) -> list[int]:
        """List the first latent frame of each window over a clip of at least `length`."""
        if latent_frames < self.length:
            raise ValueError(f"{latent_frames} frames do not fill a window of {self.length}; pad them first")
        stride = self.length - self.overlap
        last = latent_frames - self.length
        regular = list(range(0, last + 1, stride))
        return regular if regular[-1] == last else [*regular, last]

    def weights(self, length: int) -> np.ndarray:
        """Compute blending weights (length,) float32: a ramp over each overlap, flat between."""
        if self.even:
            return np.ones(length, np.float32)
        place = np.arange(length)
        ramp = np.minimum(place, place[::-1]) + 1
        return (np.minimum(ramp, self.overlap + 1) / (self.overlap + 1)).astype(np.float32)


@dataclass(frozen=True)
class ReferenceWindows:
    """MimicMotion's rule: latent frame 0 is the reference and begins every window, the clip is behind it.

    length: latent frames of a window, the reference among them. Runs of the others begin length - overlap
    apart, so they share one frame less than overlap; a last one is moved back to stay full. A clip shorter
    than a window is filled with its last frame. Weights are a triangle over the window.
    even: as few windows, all of the length that the clip needs, at the same overlap. A clip one frame longer
    than a window costs 1.1 times its frames instead of 2, and a shorter one no more than its own; but
    predictions change with a window's length.
    """

    length: int
    overlap: int
    even: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.overlap < self.length:
            raise ValueError(
                f"windows need 0 < overlap < length, got overlap {self.overlap} of {self.length}"
            )

    @property
    def frames(self) -> int:
        """The frames of a clip that fills one window."""
        return self.length - 1

    def latent_frames(self, frames: int) -> int:
        """Count one latent frame for each frame, and the reference."""
        return 1 + grouped(frames, 1)

    def condition_indices(self, frames: int) -> np.ndarray:
        """Give each latent frame its own conditions; a clip shorter than a window is filled with the last."""
        own = self.latent_frames(frames)
        return np.minimum(np.arange(own if self.even else max(own, self.length)), own - 1)

    def window_indices(self, frames: int) -> list[np.ndarray]:
        """List each window's indices among the sampled latent frames: 0, then a run."""
        clip = len(self.condition_indices(frames)) - 1
        shared, run = self.overlap - 1, self.length - 1
        if self.even:
            count = max(1, -(-(clip - shared) // (run - shared)))
            run = -(-(clip + (count - 1) * shared) // count)
            starts = np.linspace(1, clip - run + 1, count).round().astype(int).tolist()
        else:
            starts = list(range(1, clip - run + 2, self.length - self.overlap))
            if starts[-1] < clip - run + 1:
                starts.append(clip - run + 1)
        return [np.concatenate([[0], np.arange(start, start + run)]) for start in starts]

    def count(self, frames: int) -> int:
        """Count the windows that a clip of that many frames is sampled in."""
        return len(self.window_indices(frames))

    def weights(self, length: int) -> np.ndarray:
        """Compute blending weights (length,) float32: a triangle, least at both ends."""
        u = (np.arange(length, dtype=np.float32) + np.float32(0.5)) * np.float32(2) / np.float32(length)
        return np.minimum(u, 2 - u)


@dataclass(frozen=True)
class ContinuationWindows:
    """The rule of windows sampled one after the other, each going on from the last frames of the one before.

    length: latent frames that a window samples, among them `extra` that stand for no frames of the video.
    keep: frames of the video that a window takes over from the one before. group: as in OverlapWindows.
    """

    length: int
    keep: int
    group: int = 1
    extra: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.keep < self.frames:
            raise ValueError(f"windows need 0 < keep < frames, got keep {self.keep} of {self.frames}")

    @property
    def frames(self) -> int:
        """The frames of a clip that fills one window."""
        return 1 + (self.length - self.extra - 1) * self.group

    def latent_frames(self, frames: int) -> int:
        """Count all latent frames that its windows sample."""
        return self.length * self.count(frames)

    def condition_indices(self, frames: int) -> np.ndarray:
        """Give each latent frame its own index: a window's conditions come from Generator.carry."""
        return np.arange(self.latent_frames(frames))

    def window_indices(self, frames: int) -> list[np.ndarray]:
        """List the indices of one window after the other."""
        return np.split(self.condition_indices(frames), self.count(frames))

    def count(self, frames: int) -> int:
        """Count the windows that a clip of that many frames is sampled in."""
        grouped(frames, 1)
        return max(1, -(-(frames - self.keep) // (self.frames - self.keep)))

    def weights(self, length: int) -> np.ndarray:
        """Return ones (length,): no two windows predict the same latents."""
        return np.ones(length, np.float32)


def overlapping(windows: WindowRule | ContinuationWindows, overlap: int) -> WindowRule:
    """Change the rule's overlap; ValueError if it cannot have that, or has one that is fixed."""
    if isinstance(windows, ContinuationWindows):
        raise ValueError("the windows of this generator follow on one another; leave it out")
    if not hasattr(windows, "overlap"):
        raise ValueError("the windows of this generator have none to change; leave it out")
    if getattr(windows, "fixed_overlap", False) and overlap != windows.overlap:
        raise ValueError(
            f"must be the generator's own, {windows.overlap}, is {overlap}: the conditions of its windows "
            "depend on it; leave it out, or change it in the generator's vivace.toml"
        )
    return replace(windows, overlap=overlap)


class Blend:
    """The weighted mean of window predictions over a clip, or over some of its frames, along one axis.

    like: an array of their form. begin: the first of these frames in the clip. Of a frame that a window has
    twice, the later prediction counts.
    """

    def __init__(
        self, windows: WindowRule | ContinuationWindows, like: np.ndarray, axis: int, begin: int = 0
    ) -> None:
        self._windows, self._axis, self._begin, self._frames = windows, axis, begin, like.shape[axis]
        self._sum = np.zeros_like(like)
        self._total = np.zeros(self._frames, like.dtype)

    def add(self, place: np.ndarray, prediction: np.ndarray) -> None:
        """Add the prediction of the window with those frames of the clip; only its own frames count."""
        weights, before = self._windows.weights(len(place)), (slice(None),) * self._axis
        weighted = prediction * self._along(weights)
        for theirs, own in self._runs(place - self._begin):
            self._sum[(*before, own)] += weighted[(*before, theirs)]
            self._total[own] += weights[theirs]

    def result(self) -> np.ndarray:
        """Return the blended prediction of the frames; every one must have been covered."""
        return self._sum / self._along(self._total)

    def _along(self, numbers: np.ndarray) -> Array:
        """Return one number a frame in a form that broadcasts, where the predictions are."""
        shape = [-1 if axis == self._axis else 1 for axis in range(self._sum.ndim)]
        return constant(numbers.reshape(shape), self._sum)

    def _runs(self, own: np.ndarray) -> Iterator[tuple[slice, slice]]:
        """Give runs of a window's frames that are runs of ours too, each as slices of both."""
        _, last = np.unique(own[::-1], return_index=True)
        kept = np.sort(len(own) - 1 - last)
        kept = kept[(own[kept] >= 0) & (own[kept] < self._frames)]
        if len(kept):
            cuts = np.flatnonzero((np.diff(kept) != 1) | (np.diff(own[kept]) != 1)) + 1
            for run in np.split(kept, cuts):
                yield slice(run[0], run[-1] + 1), slice(own[run[0]], own[run[-1]] + 1)


def grouped(frames: int, group: int) -> int:
    """Count a clip's latent frames: one for its first frame, one for each group after it, full or not."""
    if frames < 1:
        raise ValueError(f"a clip has at least one frame, got {frames}")
    return 1 + -(-(frames - 1) // group)


def frame_slice(ndim: int, axis: int, start: int, length: int) -> tuple[slice, ...]:
    """Make an index for `length` frames from `start` along one axis."""
    index = [slice(None)] * ndim
    index[axis] = slice(start, start + length)
    return tuple(index)
