"""Which stretches of a video stand out: motion, sound, picture quality and features, weighed and smoothed."""

from __future__ import annotations

import numpy as np

from finish.signals import TICKS, Signals

# Fitted by logistic regression on ten rendered clips that nothing is evaluated on. There the features' change
# says nothing that motion does not: leaving out one clip or another, its weight is between -0.2 and 0.06.
WEIGHTS = {"motion": 0.86, "sound": 0.82, "change": -0.03, "quality": 0.34}
BIAS = -4.29
SMOOTH = 1.2  # seconds that a moment's score is averaged over
BEGIN, STAY = 0.55, 0.35  # a stretch begins above the first and lasts while above the second
SHORTEST, GAP = 1.5, 1.0  # seconds: of a stretch, and of the pause that two are joined over
# What a signal must at least vary by to mean something: levels of motion, decibels, 1 - cosine, quality.
LEAST = {"motion": 0.15, "sound": 3.0, "change": 0.05, "quality": 0.05}


def features(signals: Signals) -> dict[str, np.ndarray]:
    """What stands out in each signal at each tick (T,), in units of what is usual in this video.

    0 is usual; without sound it is 0 throughout. Quality counts against a moment only: below the video's own.
    """
    sound = np.zeros(len(signals.motion)) if signals.sound is None else signals.sound
    raw = {
        "motion": signals.motion,
        "sound": sound,
        "change": _change(signals),
        "quality": np.minimum(signals.quality, np.median(signals.quality)),
    }
    return {name: _unusual(_smooth(values, signals.rate), LEAST[name]) for name, values in raw.items()}


def chances(signals: Signals) -> np.ndarray:
    """How likely each tick belongs to a highlight (T,), 0 to 1."""
    found = features(signals)
    total = BIAS + sum(weight * found[name] for name, weight in WEIGHTS.items())
    return 1 / (1 + np.exp(-total))


def stretches(signals: Signals) -> list[tuple[int, int]]:
    """First and last tick (not included) of each stretch that stands out."""
    chance = chances(signals)
    found: list[tuple[int, int]] = []
    high = np.flatnonzero(chance > BEGIN)
    while len(high):
        first = last = int(high[0])
        while first > 0 and chance[first - 1] > STAY:
            first -= 1
        while last < len(chance) and chance[last] > STAY:
            last += 1
        if found and first - found[-1][1] < GAP * signals.rate:
            first = found.pop()[0]
        found.append((first, last))
        high = high[high >= last]
    return [(first, last) for first, last in found if last - first >= SHORTEST * signals.rate]


def _change(signals: Signals) -> np.ndarray:
    """1 - cosine of each tick's feature and that of the second before or after, the larger (T,).

    What comes after a cut has nothing to be held against.
    """
    unit = signals.feature / np.maximum(np.linalg.norm(signals.feature, axis=1, keepdims=True), 1e-9)
    shot, found = np.cumsum(signals.cut), np.zeros(len(unit))
    apart = np.where(shot[TICKS:] == shot[:-TICKS], 1 - (unit[TICKS:] * unit[:-TICKS]).sum(1), 0)
    found[TICKS:] = apart
    np.maximum(found[:-TICKS], apart, out=found[:-TICKS])
    return found


def _smooth(values: np.ndarray, rate: float) -> np.ndarray:
    """Means over SMOOTH seconds, of as much as there is at the ends."""
    half = round(SMOOTH * rate / 2)

    def summed(numbers: np.ndarray) -> np.ndarray:
        return np.convolve(numbers, np.ones(2 * half + 1))[half : half + len(numbers)]

    return summed(values) / summed(np.ones(len(values)))


def _unusual(values: np.ndarray, least: float) -> np.ndarray:
    """Distance from the lower half's middle in its own spread: what stands out may last long."""
    low = np.quantile(values, 0.3)
    spread = max(least, 1.5 * (low - np.quantile(values, 0.05)))
    return np.clip((values - low) / spread, -4, 8)
