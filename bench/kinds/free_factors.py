"""What fitted corrections are held against: each jump a sum of terms, all factors fitted anew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from generators.schedule import Grid
from optimize.fit import TuningClip
from optimize.step_plan import StepPlan, Walk, combine
from optimize.trajectory import fit, inner_products


def ends_by_free_factors(
    plan: StepPlan, clips: Sequence[TuningClip], grid: Grid, frame_axis: int
) -> list[np.ndarray]:
    """Latents that clips end with where every jump, of length one too, is the others' least-squares sum."""
    walks = [Walk(plan, grid, clip.guidance, clip.base(0), frame_axis) for clip in clips]
    for step, goal in plan.jumps:
        terms, products = [], []
        for clip, walk in zip(clips, walks, strict=True):
            latents, before = walk.latents, walk.before
            walk.advance(step, *clip.predict(latents, step, plan.actions[step]))
            all_terms = (latents, walk.before, walk.guided_difference, before)
            terms.append([term for term in all_terms if term is not None])
            products.append(inner_products([*terms[-1], clip.base(goal)]))
        for own, seen, walk in zip(products, terms, walks, strict=True):
            factors, _ = fit(sum(products) - own, len(seen), range(len(seen)))
            walk.latents = combine(factors, seen)
    return [walk.latents for walk in walks]
