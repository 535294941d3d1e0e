"""Fit a step plan's jumps to base runs, on the latents that the plan itself leads to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from optimize.step_plan import TERMS, StepPlan, change, channels_beside, combine, level_of
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
    plan: StepPlan,
    clips: Sequence[TuningClip],
    tick: Callable[[], None] = lambda: None,
    frame_axis: int = 2,
) -> tuple[StepPlan, list[np.ndarray]]:
    """The plan with jumps, levels and bounds, and the latents that it ends with on each clip.

    All clips walk side by side. At each evaluated step the row is the least-squares one from what is at hand
    there to the base runs' latents at the next evaluated step, every clip counting alike. So a row also
    mends what the rows before it have missed. Costs the plan's evaluations on each clip, once. tick is called
    after each clip's evaluated step. Bounds are SLACK times the largest change that was seen.
    """
    latents = [clip.base(0) for clip in clips]
    differences: list = [None] * len(clips)
    befores: list = [None] * len(clips)
    goals = [*plan.evaluated[1:], len(plan.actions)]
    jumps, levels, bounds = [], [], []
    channel_axis = channels_beside(frame_axis, latents[0].ndim)
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
        goals_here = [clip.base(goal) for clip in clips]
        jumps.append(least_squares(*_apart(terms, goals_here)))
        levels.append(fit_levels(terms, goals_here, channel_axis))
        latents = [combine(jumps[-1], each, levels[-1], channel_axis) for each in terms]
        befores = [conditional for _, conditional, _, _ in terms]
        bounds.append(SLACK * drift)
    fitted = replace(plan, jumps=tuple(jumps), levels=tuple(levels), bounds=tuple(bounds))
    return fitted, latents


def fit_levels(
    terms: Sequence[Sequence[np.ndarray | None]], goals: Sequence[np.ndarray], channel_axis: int
) -> tuple[float, ...]:
    """A row of StepPlan.levels, which brings the levels of a sum nearest to those of the goals.

    terms: of each clip, arrays shaped like its goal. Clips count alike, whatever their length.
    """
    channels = goals[0].shape[channel_axis]

    def basis(own: Sequence[np.ndarray | None], goal: np.ndarray) -> list[np.ndarray]:
        level = level_of(goal)
        places = np.arange(channels).reshape([-1 if a == channel_axis else 1 for a in range(level.ndim)])
        ones = [np.broadcast_to(places == channel, level.shape) for channel in range(channels)]
        return [*(np.zeros_like(level) if term is None else level_of(term) for term in own), *ones, level]

    products = sum(inner_products(basis(own, goal)) for own, goal in zip(terms, goals, strict=True))
    factors, _ = fit(products, TERMS + channels, range(TERMS + channels))
    return tuple(map(float, factors))


def _apart(
    terms: Sequence[Sequence[np.ndarray | None]], goals: Sequence[np.ndarray]
) -> tuple[list[list[np.ndarray | None]], list[np.ndarray]]:
    """Terms and goals without their levels, which are fitted on their own."""
    bare = [[None if term is None else term - level_of(term) for term in own] for own in terms]
    return bare, [goal - level_of(goal) for goal in goals]


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
