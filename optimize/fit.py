"""Fit a step plan's jumps to base runs, on the latents that the plan itself leads to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from optimize.step_plan import TERMS, StepPlan, change, combine
from optimize.trajectory import fit, inner_products

SLACK = 1.5  # a clip may change this much more than any that was tuned on before the guard fires


class TuningClip(Protocol):
    """A clip whose base run is known, and a denoiser that can be asked about it."""

    def base(self, step: int) -> np.ndarray:
        """Latents of the base run before that step; before step 0 the noise, after the last the result."""
        ...

    def predict(self, latents: np.ndarray, step: int, action: str) -> tuple[np.ndarray, ...]:
        """The blended conditional prediction, and at F the unconditional one."""
        ...


def fit_jumps(
    plan: StepPlan, clips: Sequence[TuningClip], tick: Callable[[], None] = lambda: None
) -> tuple[StepPlan, list[np.ndarray]]:
    """The plan with jumps and bounds, and the latents that it ends with on each clip.

    All clips walk side by side. At each evaluated step the row is the least-squares one from what is at hand
    there to the base runs' latents at the next evaluated step, every clip counting alike. So a row also
    mends what the rows before it have missed. Costs the plan's evaluations on each clip, once. tick is called
    after each clip's evaluated step. Bounds are SLACK times the largest change that was seen.
    """
    latents = [clip.base(0) for clip in clips]
    differences: list = [None] * len(clips)
    befores: list = [None] * len(clips)
    goals = [*plan.evaluated[1:], len(plan.actions)]
    jumps, bounds = [], []
    for step, goal in zip(plan.evaluated, goals, strict=True):
        terms, drift = [], 0.0
        for i, clip in enumerate(clips):
            conditional, *unconditional = clip.predict(latents[i], step, plan.actions[step])
            if unconditional:
                differences[i] = conditional - unconditional[0]
            terms.append((latents[i], conditional, differences[i], befores[i]))
            if befores[i] is not None:
                drift = max(drift, change(conditional, befores[i]))
            tick()
        row = least_squares(terms, [clip.base(goal) for clip in clips])
        latents = [combine(row, each) for each in terms]
        befores = [conditional for _, conditional, _, _ in terms]
        jumps.append(row)
        bounds.append(SLACK * drift)
    return replace(plan, jumps=tuple(jumps), bounds=tuple(bounds)), latents


def least_squares(
    terms: Sequence[Sequence[np.ndarray | None]], goals: Sequence[np.ndarray]
) -> tuple[float, ...]:
    """A factor per term, so that their sum is nearest to the goals; a term that is None gets 0.

    terms: of each clip, arrays shaped like its goal. Clips count alike, whatever their length.
    """
    there = [place for place in range(TERMS) if terms[0][place] is not None]
    products = sum(
        inner_products([*(own[place] for place in there), goal])
        for own, goal in zip(terms, goals, strict=True)
    )
    factors = np.zeros(TERMS)
    factors[there], _ = fit(products, len(there), range(len(there)))
    return tuple(map(float, factors))
