"""The contest's score, as far as it is known: 70 % speed, 30 % similarity, each with a gate."""

from __future__ import annotations

import math

GATE = (0.97, 1.0)  # of the cosine similarity; outside, similarity scores nothing
SPEED, SIMILARITY = 70.0, 30.0


def score(seconds: float, threshold: float, similar: bool) -> float:
    """Points out of 100 for a run of that many seconds a video under a time threshold.

    The brief says only that speed above the threshold scores nothing; below it the points are taken to rise
    linearly to 70 at no time at all. Whatever the curve is, it orders runs in the same way.
    """
    if not 0 < threshold < math.inf:
        raise ValueError(f"the time threshold must be above 0 seconds and finite, got {threshold}")
    return SPEED * max(0.0, 1 - seconds / threshold) + SIMILARITY * similar
