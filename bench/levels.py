"""How near a fast way must stay to the base model's videos: levels that recipes are tuned to."""

from __future__ import annotations

import math

from bench.quality_goal import Goal, Judged

# Every video must reach them, and pass all checks of bench/checks.py, flicker among them.
LEVELS = {
    "exact": Goal(similarity=0.97, psnr=45.0),  # a person sees no difference, and hardly a pixel has one
    "faithful": Goal(similarity=0.99, psnr=35.0),
    "fast": Goal(similarity=0.97),  # what the contest asks for
}


def level_of(run: dict) -> str | None:
    """The strictest level to which all videos of a run of report.json keep; None if it fails or has none."""
    verdict = run["verdict"]
    if not verdict["passes"]:
        return None
    distances = [each.get("metrics", {}).get("psnr") for each in run["videos"]]
    # A video that equals the base model's has no PSNR: JSON lacks infinity.
    least = min((psnr for psnr in distances if psnr is not None), default=math.inf)
    worst = Judged(run["name"], verdict["similarity"], least)
    return next((name for name, goal in LEVELS.items() if not goal.why_not([worst])), None)
