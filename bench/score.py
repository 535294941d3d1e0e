"""Score timed and judged runs: the contest's points, and the level of likeness that a run keeps.

As far as the contest's score is known, it is 70 % speed and 30 % similarity, each with a gate.
"""

from __future__ import annotations

import math

from bench.quality_goal import Goal, Judged

GATE = (0.97, 1.0)  # of the cosine similarity; outside, similarity scores nothing
SPEED, SIMILARITY = 70.0, 30.0
# Levels that recipes are tuned to. Every video must reach them, and pass all checks of bench/checks.py.
LEVELS = {
    "exact": Goal(similarity=0.97, psnr=45.0),  # a person sees no difference, and hardly a pixel has one
    "faithful": Goal(similarity=0.99, psnr=35.0),
    "fast": Goal(similarity=0.97),  # what the contest asks for
}


def score(seconds: float, threshold: float, similar: bool) -> float:
    """Return points out of 100 for a run of that many seconds a video under a time threshold.

    The brief says only that speed above the threshold scores nothing; below it the points are taken to rise
    linearly to 70 at no time at all. Whatever the curve is, it orders runs in the same way.
    """
    if not 0 < threshold < math.inf:
        raise ValueError(f"the time threshold must be above 0 seconds and finite, got {threshold}")
    return SPEED * max(0.0, 1 - seconds / threshold) + SIMILARITY * similar


def level_of(run: dict) -> str | None:
    """Return the strictest level that all videos of a report's run keep; None if it fails or has none.

    A video that was judged without its skeleton has none: a level asks for all checks.
    """
    verdict = run["verdict"]
    if not verdict["passes"] or any(each.get("unchecked") for each in run["videos"]):
        return None
    distances = [each.get("metrics", {}).get("psnr") for each in run["videos"]]
    # A video that equals the base model's has no PSNR: JSON lacks infinity.
    least = min((psnr for psnr in distances if psnr is not None), default=math.inf)
    worst = Judged(run["name"], verdict["similarity"], least)
    return next((name for name, goal in LEVELS.items() if not goal.why_not([worst])), None)
