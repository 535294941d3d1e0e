"""Walk a clip from noise to its latents by a step plan; by the base model's where the plan's guard fires."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from generators.contract import Constants, Generator
from optimize.step_plan import StepPlan, Walk

More = Callable[[int], None]
Seen = Callable[[np.ndarray, tuple[np.ndarray, ...]], None]  # latents of a step, and what is predicted there


class Predictor(Protocol):
    """What a denoiser predicts for a clip by a plan; pipeline.sample has it."""

    @property
    def guidance(self) -> float | np.ndarray:
        """As Walk takes it."""
        ...

    def __call__(self, latents: np.ndarray, step: int, action: str) -> tuple[np.ndarray, ...]:
        """The conditional prediction, and at F and H the unconditional one too; none at S."""
        ...

    def count(self, plan: StepPlan, steps: int | None = None) -> int:
        """How many windows the plan evaluates, in all or in its first steps."""
        ...


def base_plan(generator: Generator) -> StepPlan:
    """The base model's own run: every step in full."""
    return StepPlan("F" * generator.grid.steps)


def guarded(
    generator: Generator,
    predictor: Callable[[StepPlan], Predictor],
    constants: Constants,
    noise: np.ndarray,
    plan: StepPlan,
    more: More,
) -> Walk:
    """A walk by the plan; where its guard fires, by the base model's own plan, from the noise again.

    What was done until then is thrown away: what a wrong jump has spoilt, later steps do not mend. predictor:
    gives the clip's for a plan.
    """
    walk, guard, predict = None, plan.guard, predictor(plan)
    unlike = guard and guard.unlike(constants, generator.frame_axis, generator.per_frame)
    if not unlike:
        walk = walked(generator, predict, noise, plan)
        unlike = walk.unlike
    if not unlike:
        return walk
    base = base_plan(generator)
    again = predictor(base)
    done = len(walk.taken) + 1 if walk else 0
    more(again.count(base) - predict.count(plan) + predict.count(plan, done))
    walk = walked(generator, again, noise, base)
    walk.unlike = unlike
    return walk


def walked(
    generator: Generator,
    predict: Predictor,
    noise: np.ndarray,
    plan: StepPlan,
    seen: Seen = lambda latents, made: None,
) -> Walk:
    """A walk from noise to the end of the grid, or to the step at which the plan's guard fires.

    seen is called at each evaluated step.
    """
    walk = Walk(plan, generator.grid, predict.guidance, noise, generator.frame_axis)
    before, number = None, 0
    for step, action in enumerate(plan.actions):
        made = predict(walk.latents, step, action)
        if made:
            seen(walk.latents, made)
        if plan.guard and made:
            walk.unlike = plan.guard.changed(number, made[0], before, generator.frame_axis)
            if walk.unlike:
                return walk
            before, number = made[0], number + 1
        walk.advance(step, *made)
    return walk
