"""How near a fast way must stay to the base model's videos: levels that recipes and rivals are tuned to."""

from __future__ import annotations

from optimize.goal import Goal

# Every video must reach them, and pass all checks of bench/checks.py, flicker among them.
LEVELS = {
    "exact": Goal(similarity=0.97, psnr=45.0),  # a person sees no difference, and hardly a pixel has one
    "faithful": Goal(similarity=0.99, psnr=35.0),
    "fast": Goal(similarity=0.97),  # what the contest asks for
}
