"""The guard: detect clips that differ from those that a step plan was fitted to, at no evaluation's cost.

It compares the constants of conditioning before anything is sampled, and at each evaluated step how far the
prediction has changed since the evaluated step before.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engines.errors import UsageError

PARTS = 16  # channel groups of a profile, at most
PLACES = 3  # a profile's regions per axis, over height and width
FRAMES = 24  # frames of a tuning clip that count, so that long clips do not count more
STRETCH = 16  # frames over which a mean is taken: the worst stretch of a clip decides
LEAST_SPREAD = 0.02  # in natural logarithms: what was equal in all tuning clips may differ by 2 %
ROOM = 1.45  # limit of a distance, as a multiple of the tuning clips' distances, root mean square
RISK = 0.1  # probability that a clip like the tuning clips exceeds the limit of an evaluated step
TINY = float(np.finfo(np.float32).tiny)
ENOUGH = 5  # videos, of different people and motions
ALIKE = 0.04  # mean spread of a constant's parts; the presenter's pose has 0.09, its reference 0.19
SINGLE = 1.5  # limit of a change where a plan was tuned on one clip, as a multiple of that clip's change


class GuardError(UsageError):
    """Raised when a guard's settings do not fit together; the text says which and why."""


@dataclass(frozen=True)
class Guard:
    """Statistics of the tuning clips, and how far another clip may be from them; a recipe's table [guard].

    videos: number of tuning clips. changes: for each evaluated step, how far the conditional prediction may
    have changed since the one before, relative to its own size; 0 for the first, where nothing is compared.
    constants: names of arrays that the denoiser is conditioned on; for each of them, means and spreads of the
    parts of its profile over frames, and the limit of a clip's distance in spreads. GuardError.
    """

    videos: int
    changes: tuple[float, ...]
    constants: tuple[str, ...] = ()
    means: tuple[tuple[float, ...], ...] = ()
    spreads: tuple[tuple[float, ...], ...] = ()
    limits: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("means", "spreads"):
            object.__setattr__(self, name, tuple(tuple(map(float, row)) for row in getattr(self, name)))
        for name in ("changes", "limits"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        object.__setattr__(self, "constants", tuple(self.constants))
        if type(self.videos) is not int or self.videos < 1:
            raise GuardError(f"videos: must be how many the plan was tuned on, is {self.videos!r}")
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

    def unlike(
        self, constants: Mapping[str, np.ndarray], frame_axis: int, per_frame: Collection[str]
    ) -> str | None:
        """Return why a clip's constants are unlike those of the tuning clips; None if they are alike.

        frame_axis: of the latents, and of the constants that per_frame names.
        """
        for name, means, spreads, limit in zip(
            self.constants, self.means, self.spreads, self.limits, strict=True
        ):
            if name not in constants:
                continue
            found = profile(constants[name], frame_axis if name in per_frame else None)
            if found.shape[1] != len(means):
                return f"{name} has {found.shape[1]} parts instead of {len(means)}"
            far = distance(found, np.array(means), np.array(spreads))
            if not far <= limit:
                return f"{name} is {far:.1f} spreads from theirs (limit {limit:.1f})"
        return None

    def changed(self, number: int, new: np.ndarray, old: np.ndarray | None, frame_axis: int) -> str | None:
        """Return why a prediction changed more than those of the tuning clips; None if it did not.

        number: of the evaluated step. new, old: the conditional predictions of this evaluated step and of the
        one before (None at the first).
        """
        if old is None or not self.changes[number]:
            return None
        found, limit = change(new, old, frame_axis), self.changes[number]
        return None if found <= limit else f"the prediction changed by {found:.3f} (limit {limit:.3f})"


def fit_guard(
    clips: Sequence[Mapping[str, np.ndarray]],
    changes: Sequence[Sequence[float]],
    frame_axis: int,
    per_frame: Collection[str],
) -> Guard:
    """Return a plan's guard from the constants of its tuning clips, and their changes at each evaluated step.

    changes: one list for each clip, one number (see `change`) for each evaluated step, measured in runs whose
    corrections were fitted to the other clips.
    """
    names = [name for name, array in clips[0].items() if array.dtype.kind == "f" and array.ndim > 1]
    means, spreads, limits = [], [], []
    for name in names:
        profiles = [profile(clip[name], frame_axis if name in per_frame else None) for clip in clips]
        mean, spread = _spread(profiles)
        means.append(_rounded(mean))
        spreads.append(_rounded(spread))
        limits.append(ROOM * _typical_distance(profiles))
    steps = [upper_bound(step) if any(step) else 0.0 for step in zip(*changes, strict=True)]
    return Guard(len(clips), _rounded(steps), tuple(names), tuple(means), tuple(spreads), _rounded(limits))


def profile(array: np.ndarray, frame_axis: int | None) -> np.ndarray:
    """Return (F, parts): for each frame, log root mean squares of channel groups and of regions.

    There are at most PARTS groups of neighbouring channels, and PLACES x PLACES regions of height and width.
    frame_axis: None for an array that is the same in all frames, which gives one row. Channels are on axis 1,
    or 2 where frames are on 1; height and width, if there are two more axes, are the last two.
    """
    frames = array[None] if frame_axis is None else np.moveaxis(array, frame_axis, 0)  # (F, 1, C, ...)
    powers = np.square(frames, dtype=np.float64).mean(1)
    channels = powers.mean(tuple(range(2, powers.ndim)))
    parts = [run.mean(1) for run in np.array_split(channels, min(PARTS, channels.shape[1]), 1)]
    if powers.ndim == 4:
        regions = powers.mean(1)  # (F, h, w)
        for row in np.array_split(regions, min(PLACES, regions.shape[1]), 1):
            parts += [each.mean((1, 2)) for each in np.array_split(row, min(PLACES, row.shape[2]), 2)]
    return np.log(np.maximum(np.stack(parts, 1), TINY)) / 2


def distance(found: np.ndarray, means: np.ndarray, spreads: np.ndarray) -> float:
    """Return the distance in spreads of a profile (F, parts): root mean square of parts, worst stretch."""
    frames = np.sqrt(np.mean(np.square((found - means) / spreads), 1))
    return float(max(frames[run].mean() for run in stretches(len(frames))))


def upper_bound(values: Sequence[float]) -> float:
    """Return what another value of the same normal distribution stays below with probability 1 - RISK."""
    if len(values) < 2:
        return SINGLE * values[0]
    count, quantile = len(values), _student(1 - RISK, len(values) - 1)
    return float(np.mean(values) + quantile * np.std(values, ddof=1) * math.sqrt(1 + 1 / count))


def change(new: np.ndarray, old: np.ndarray, frame_axis: int) -> float:
    """Return the root mean square of new - old relative to that of new, in the stretch with the largest."""
    others = tuple(axis for axis in range(new.ndim) if axis != frame_axis)
    powers = np.square(new - old).mean(others), np.square(new).mean(others)
    ratios = [
        np.mean(powers[0][run]) / max(np.mean(powers[1][run]), TINY) for run in stretches(len(powers[0]))
    ]
    return float(np.sqrt(max(ratios)))


def stretches(frames: int) -> list[slice]:
    """Return runs of STRETCH frames that cover a clip, the last moved back; one run for a shorter clip."""
    last = max(frames - STRETCH, 0)
    return [slice(start, start + STRETCH) for start in (*range(0, last, STRETCH), last)]


def _rounded(numbers: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(float(number), 4) for number in numbers)


def _evenly_taken(rows: np.ndarray) -> np.ndarray:
    """Return FRAMES of the rows at even distances, some of them more than once if there are fewer."""
    return rows[np.linspace(0, len(rows) - 1, FRAMES).round().astype(int)]


def _spread(profiles: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return means and standard deviations of the parts, these half way to that of all: clips are few."""
    values = np.concatenate([_evenly_taken(each) for each in profiles])
    power = values.var(0)
    return values.mean(0), np.maximum(np.sqrt((power + power.mean()) / 2), LEAST_SPREAD)


def _typical_distance(profiles: Sequence[np.ndarray]) -> float:
    """Return the clips' root mean square distance from the others; at least 1, as frames have to the mean."""
    distances = [
        distance(own, *_spread([each for each in profiles if each is not own]))
        for own in profiles
        if len(profiles) > 1
    ]
    return max(1.0, float(np.sqrt(np.mean(np.square(distances))))) if distances else 1.0


def _student(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t distribution, by bisection on its integral (Simpson's rule)."""

    def below(t: float) -> float:
        x = np.linspace(0, t, 2001)
        y = (1 + x * x / freedom) ** (-(freedom + 1) / 2)
        scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(
            freedom * math.pi
        )
        return 0.5 + scale * t / 6000 * (y[0] + y[-1] + 4 * y[1:-1:2].sum() + 2 * y[2:-1:2].sum())

    low, high = 0.0, 200.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < probability else (low, middle)
    return high
