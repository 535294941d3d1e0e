"""What fitted corrections are held against: each jump a sum of terms, all factors fitted anew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from generators.samplers import Scheduler
from optimize.steps.fit import BaseRun
from optimize.steps.trajectory import inner_products, least_squares
from pipeline.sampler import denoise_loop
from pipeline.sampler_state import combine
from pipeline.step_plan import StepPlan


def ends_by_free_factors(
    plan: StepPlan, clips: Sequence[BaseRun], scheduler: Scheduler, frame_axis: int
) -> list[np.ndarray]:
    """Latents that clips end with where every jump, of length one too, is the others' least-squares sum."""
    goals = dict(plan.jumps)
    loops = [denoise_loop(clip.denoise, scheduler, clip.base(0), plan, frame_axis) for clip in clips]
    for states in zip(*loops, strict=True):
        if (step := states[0].step) not in goals:
            continue
        terms = [[term for term in state.terms if term is not None] for state in states]
        products = [
            inner_products([*own, clip.base(goals[step])]) for own, clip in zip(terms, clips, strict=True)
        ]
        for state, own, seen in zip(states, products, terms, strict=True):
            others = sum(products) - own
            state.latents = combine(least_squares(others[:-1, :-1], others[:-1, -1]), seen)
    return [state.latents for state in states]
