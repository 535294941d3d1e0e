"""The guard of a step plan: what the clips that it was fitted to were like, and how a clip is measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engines.device_arrays import on_host
from engines.errors import UsageError

PARTS = 16  # channel groups of a profile, at most
PLACES = 3  # a profile's regions per axis, over height and width
STRETCH = 16  # frames over which a mean is taken, and that are decided on together
TINY = float(np.finfo(np.float32).tiny)
ENOUGH = 5  # videos, of different people and motions
ALIKE = 0.04  # mean spread of a constant's parts; the presenter's pose has 0.09, its reference 0.19


class GuardError(UsageError):
    """Raised when a guard's settings do not fit together; the text says which and why."""


@dataclass(frozen=True)
class Guard:
    """Statistics of the tuning clips, and how far another clip may be from them; a recipe's table [guard].

    videos: number of tuning clips. changes: for each evaluated step, how far the conditional prediction may
    have changed since the one before, relative to its own size; 0 for the first, where nothing is compared.
    constants: names of arrays that the denoiser is conditioned on; for each of them, means and spreads of the
    parts of its profile over frames, and the limit of a clip's distance in spreads. shortest: latent frames
    of the shortest tuning clip; a clip that is shorter and does not fill a window is unlike them. GuardError.
    """

    videos: int
    changes: tuple[float, ...]
    constants: tuple[str, ...] = ()
    means: tuple[tuple[float, ...], ...] = ()
    spreads: tuple[tuple[float, ...], ...] = ()
    limits: tuple[float, ...] = ()
    shortest: int = 0

    def __post_init__(self) -> None:
        for name in ("means", "spreads"):
            object.__setattr__(self, name, tuple(tuple(map(float, row)) for row in getattr(self, name)))
        for name in ("changes", "limits"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        object.__setattr__(self, "constants", tuple(self.constants))
        if type(self.videos) is not int or self.videos < 1:
            raise GuardError(f"videos: must be how many the plan was tuned on, is {self.videos!r}")
        if type(self.shortest) is not int:
            raise GuardError(f"shortest: must be a number of latent frames, is {self.shortest!r}")
        counts = {len(self.constants), len(self.means), len(self.spreads), len(self.limits)}
        if len(counts) > 1 or any(len(m) != len(s) for m, s in zip(self.means, self.spreads, strict=True)):
            raise GuardError("constants, means, spreads and limits: must have an entry for each constant")
        numbers = [*self.changes, *self.limits, *(n for row in self.means + self.spreads for n in row)]
        if not all(math.isfinite(n) for n in numbers) or any(s <= 0 for row in self.spreads for s in row):
            raise GuardError("spreads: must be above 0, and all numbers finite; tune again")

    @property
    def doubts(self) -> list[str]:
        """Sentences on why the tuning clips may not represent other videos; empty if there is no reason."""
        found = []
        if self.videos < ENOUGH:
            found.append(
                f"tuned on {self.videos} video{'s' * (self.videos > 1)}: with fewer than {ENOUGH} it is not "
                "known how others differ, and the guard's limits are guesses; add other people and motions"
            )
        for name, spreads in zip(self.constants, self.spreads, strict=True):
            mean = sum(spreads) / len(spreads)
            if mean < ALIKE:
                found.append(
                    f"the tuning videos are alike in {name} (sizes of its parts differ by {mean:.1%}, less "
                    f"than {ALIKE:.0%}): the guard will fire on most others; add videos that differ in it"
                )
        return found


class Stretches:
    """Numbers of each frame of a clip, and the stretches that they complete."""

    def __init__(self, frames: int) -> None:
        self._open, self._come = stretches(frames), np.zeros(frames, bool)
        self._rows: np.ndarray | None = None

    def add(self, rows: np.ndarray, frames: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Take the rows of these frames, if the clip has them; give what is complete now, with its begin."""
        if self._rows is None:
            self._rows = np.zeros((len(self._come), *rows.shape[1:]))
        rows, frames = rows[frames < len(self._come)], frames[frames < len(self._come)]
        self._rows[frames], self._come[frames] = rows, True
        for each in [each for each in self._open if self._come[each].all()]:
            self._open.remove(each)
            yield each.start, self._rows[each]


def profile(array: np.ndarray, frame_axis: int | None) -> np.ndarray:
    """Return (F, parts): for each frame, log root mean squares of channel groups and of regions.

    There are at most PARTS groups of neighbouring channels, and PLACES x PLACES regions of height and width.
    frame_axis: None for an array that is the same in all frames, which gives one row. Channels are on axis 1,
    or 2 where frames are on 1; height and width, if there are two more axes, are the last two.
    """
    frames = array[None] if frame_axis is None else np.moveaxis(array, frame_axis, 0)  # (F, 1, C, ...)
    found = np.stack([_profile(frame.copy()) for frame in frames])  # sums in the same order
    return on_host(found)


def _profile(frame: np.ndarray) -> np.ndarray:
    """Return the row (parts,) of one frame (1, C, ...)."""
    powers = np.square(frame, dtype=np.float64).mean(0)
    channels = powers.reshape(len(powers), -1).mean(1)
    parts = [run.mean() for run in np.array_split(channels, min(PARTS, len(channels)))]
    if powers.ndim == 3:
        regions = powers.mean(0)  # (h, w)
        for row in np.array_split(regions, min(PLACES, regions.shape[0])):
            parts += [each.mean() for each in np.array_split(row, min(PLACES, row.shape[1]), 1)]
    return np.log(np.maximum(np.stack(parts), TINY)) / 2


def distances(found: np.ndarray, means: Sequence[float], spreads: Sequence[float]) -> np.ndarray:
    """Return each frame's distance in spreads of a profile (F, parts): the root mean square of its parts."""
    return np.sqrt(np.mean(np.square((found - np.array(means)) / np.array(spreads)), 1))


def distance(found: np.ndarray, means: Sequence[float], spreads: Sequence[float]) -> float:
    """Return the distance of a profile, that of its worst stretch."""
    return max(float(values.mean()) for _, values in _over_stretches(distances(found, means, spreads)))


def powers(new: np.ndarray, old: np.ndarray, frame_axis: int) -> np.ndarray:
    """Return (F, 2): each frame's mean square of new - old, and of new."""
    pairs = zip(np.moveaxis(new, frame_axis, 0), np.moveaxis(old, frame_axis, 0), strict=True)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is below no limit
        means = [mean for a, b in pairs for mean in (np.square(a - b).mean(), np.square(a).mean())]
    return on_host(np.stack(means)).reshape(-1, 2)


def change(new: np.ndarray, old: np.ndarray, frame_axis: int) -> float:
    """Return the root mean square of new - old relative to that of new, in the stretch with the largest."""
    return max(ratio(values) for _, values in _over_stretches(powers(new, old, frame_axis)))


def ratio(values: np.ndarray) -> float:
    """Return a stretch's root mean square of the change relative to that of the new value, see `powers`."""
    changed, whole = values.mean(0)
    return float(np.sqrt(changed / max(whole, TINY)))


def _over_stretches(rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    return Stretches(len(rows)).add(rows, np.arange(len(rows)))


def stretches(frames: int) -> list[slice]:
    """Return runs of STRETCH frames that cover a clip, the last moved back; one run for a shorter clip."""
    last = max(frames - STRETCH, 0)
    return [slice(start, min(start + STRETCH, frames)) for start in (*range(0, last, STRETCH), last)]
