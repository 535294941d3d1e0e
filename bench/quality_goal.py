"""Say what a recipe must keep to, and how sure a few videos make it that others will."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

COVERAGE, CONFIDENCE = 0.99, 0.9  # of other videos, and of that claim
# The same for the worst place of a video. Extremes have a long tail, which few videos cannot bound so far
# out: of 20 like videos, the worst shares of a limit had a median of 0.5 and a largest of 2.2.
PLACE_COVERAGE, PLACE_CONFIDENCE = 0.9, 0.75
LEAST_SHARE = 1e-3  # of an allowed error; below it videos are the same


@dataclass(frozen=True)
class Judged:
    """A video compared with the base model's: the least cosine of the extractors, and PSNR in dB.

    similarity: None if it could not be evaluated. failed: checks of bench/checks.py that do not pass, in
    words. share: of what checks allow, the largest that an error takes; 1 is the limit, 0 no difference.
    """

    id: str
    similarity: float | None
    psnr: float
    failed: tuple[str, ...] = ()
    share: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "failed", tuple(self.failed))  # JSON gives a list


@dataclass(frozen=True)
class Goal:
    """The least similarity, and the least PSNR in dB to the base model's video; all checks must pass too.

    psnr: 0 asks for the contest's gate; above 0, for the same picture in every place of other videos too, see
    margin().
    """

    similarity: float = 0.97
    psnr: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.similarity < 1:
            raise ValueError(f"similarity must be at least 0 and below 1, got {self.similarity}")
        if not (math.isfinite(self.psnr) and self.psnr >= 0):
            raise ValueError(f"psnr must be 0 dB or more, got {self.psnr}")

    def why_not(self, videos: Sequence[Judged]) -> list[str]:
        """Say what keeps these videos from passing; empty if they pass."""
        reasons = []
        for video in videos:
            if video.similarity is None:
                reasons.append(f"{video.id}: similarity was not evaluated")
            elif video.similarity < self.similarity:
                reasons.append(f"{video.id}: similarity {video.similarity:.4f}, needs {self.similarity}")
            if not video.psnr >= self.psnr:
                reasons.append(f"{video.id}: PSNR {video.psnr:.1f} dB, needs {self.psnr}")
            reasons += [f"{video.id}: {check}" for check in video.failed]
        return reasons

    def margin(self, videos: Sequence[Judged]) -> float:
        """Return how far the tolerance bound lies within the goal, in standard deviations; below 0: unsure.

        The bound is one-sided and of normal values: COVERAGE of other videos keep it with CONFIDENCE. Those
        values are the angle whose cosine the similarity is, and with a goal for PSNR that too, and logarithms
        of the largest share of an allowed error (by PLACE_COVERAGE); the tightest is returned. The angle
        grows as the error does. (Logarithms of 1 - similarity have deviations that one very good video
        doubles: videos above 0.993 would not do for 0.97.) inf: the videos do not differ from each other.
        ValueError: fewer than two videos, or one without similarity.
        """
        if len(videos) < 2:
            raise ValueError(f"a margin needs two videos or more, got {len(videos)}")
        if any(video.similarity is None for video in videos):
            raise ValueError("a video has no similarity")
        apart = [math.acos(min(max(video.similarity, -1.0), 1.0)) for video in videos]
        margins = [_margin(apart, math.acos(self.similarity))]
        if self.psnr:
            margins.append(_margin([-video.psnr for video in videos], -self.psnr))
            shares = [math.log(max(video.share, LEAST_SHARE)) for video in videos]
            margins.append(_margin(shares, 0.0, PLACE_COVERAGE, PLACE_CONFIDENCE))
        return min(margins)

    def accepts(self, videos: Sequence[Judged]) -> bool:
        """Return whether the videos pass, and others may be expected to."""
        return not self.why_not(videos) and self.margin(videos) >= 0


def _margin(
    values: Sequence[float], limit: float, coverage: float = COVERAGE, confidence: float = CONFIDENCE
) -> float:
    """Return the margin of values that should stay below a limit."""
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    if deviation < 1e-12:
        return math.inf if mean <= limit else -math.inf
    return (limit - mean) / deviation - tolerance_factor(len(values), coverage, confidence)


@cache
def tolerance_factor(count: int, coverage: float = COVERAGE, confidence: float = CONFIDENCE) -> float:
    """Return k of the one-sided normal tolerance bound, mean + k * standard deviation, for so many values.

    The noncentral t distribution's quantile (NIST/SEMATECH e-Handbook, 7.2.6.3), by bisection on its
    distribution function, which is integrated over the chi distribution of the standard deviation.
    """
    freedom = count - 1
    shift = statistics.NormalDist().inv_cdf(coverage) * math.sqrt(count)
    # Middles of intervals of the chi distribution.
    spread = (np.arange(20_000) + 0.5) * ((math.sqrt(freedom) + 12) / 20_000)
    logs = (freedom - 1) * np.log(spread) - spread**2 / 2
    density = np.exp(logs - logs.max())
    density /= density.sum()

    def below(t: float) -> float:
        z = t * spread / math.sqrt(freedom) - shift
        normal = np.array([0.5 * math.erfc(-each / math.sqrt(2)) for each in z])
        return float(np.sum(normal * density))

    low, high = 0.0, 200.0
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < confidence else (low, middle)
    return high / math.sqrt(count)
