"""Fit a plan's guard to its tuning clips: means and spreads of what conditions them, limits of changes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from bench.quality_goal import tolerance_factor
from pipeline.guard import Guard, distance, profile

LEAST_DIMS = {"f": 2}  # by kind of number; others of fewer than 3, as ids, are no pictures and no features
FRAMES = 24  # frames of a tuning clip that count, so that long clips do not count more
# In natural logarithms, and of changes as a part of their mean: what was equal in all tuning clips may differ
# by 2 %.
LEAST_SPREAD = 0.02
DIGITS = 4  # behind the point, in a guard
ROOM = 1.45  # limit of a distance, as a multiple of the tuning clips' distances, root mean square
RISK = 0.1  # probability that a clip like the tuning clips exceeds the limit of an evaluated step
SINGLE = 1.5  # limit of a change where a plan was tuned on one clip, as a multiple of that clip's change


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
    names = [name for name, array in clips[0].items() if array.ndim >= LEAST_DIMS.get(array.dtype.kind, 3)]
    means, spreads, limits = [], [], []
    for name in names:
        profiles = [profile(clip[name], frame_axis if name in per_frame else None) for clip in clips]
        mean, spread = _spread(profiles)
        means.append(_rounded(mean))
        spreads.append(_rounded(spread))
        limits.append(ROOM * _typical_distance(profiles))
    steps = [upper_bound(step) if any(step) else 0.0 for step in zip(*changes, strict=True)]
    lengths = [clip[name].shape[frame_axis] for clip in clips for name in names if name in per_frame]
    return Guard(
        len(clips), _limits(steps), tuple(names), tuple(means), tuple(spreads), _limits(limits),
        min(lengths, default=0),
    )  # fmt: skip


def upper_bound(values: Sequence[float]) -> float:
    """Return what another value of the same normal distribution stays below with probability 1 - RISK."""
    if len(values) < 2:
        return SINGLE * values[0]
    count = len(values)
    # Student's quantile over sqrt(count): the tolerance bound of half of all values.
    factor = tolerance_factor(count, 0.5, 1 - RISK) * math.sqrt(count + 1)
    mean = np.mean(values)
    return float(mean + factor * max(np.std(values, ddof=1), LEAST_SPREAD * mean))


def _rounded(numbers: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(float(number), DIGITS) for number in numbers)


def _limits(numbers: Sequence[float]) -> tuple[float, ...]:
    """Round limits up: rounded down, a clip of its own may lie beyond a limit, and 0 limits nothing."""
    return tuple(math.ceil(float(number) * 10**DIGITS) / 10**DIGITS for number in numbers)


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
