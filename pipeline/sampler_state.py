"""The latents of one request between the steps of a plan: guidance, the scheduler's step, corrections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from generators.samplers import Scheduler, leap
from pipeline.step_plan import TERMS, StepPlan

LESS_EXACT = "a precision that is too low, or damaged weights? Try --precision fp32, or another --backend"


class SamplerState:
    """Latents on their way through the scheduler's steps; each request begins a new one.

    Predictions are those of the whole clip, blended over its windows, so that what is kept belongs to no
    single window.

    step: the last that was taken, -1 before the first. latents: after it. predictions: of that step, the
    conditional one and the unconditional one where it was evaluated; empty at an S. terms: what the jump of
    the last evaluated step began with: latents, conditional prediction, guidance minus one times the
    difference of the branches, and the conditional prediction of the evaluated step before; None for what
    there is not. taken: the letters of all steps so far. unlike: why a guard had the base model's plan run.
    """

    def __init__(
        self,
        plan: StepPlan,
        scheduler: Scheduler,
        guidance: float | np.ndarray,
        latents: np.ndarray,
        frame_axis: int = 2,
    ) -> None:
        """Begin with latents, the noise. StepPlanError: the plan is for another schedule.

        guidance: of all frames, or an array that goes over the latents. frame_axis: of the latents, whose
        last axes are height and width.
        """
        plan.check_steps(scheduler.steps)
        self.step, self.latents, self.taken = -1, latents, ""
        self.predictions: tuple[np.ndarray, ...] = ()
        self.terms: tuple[np.ndarray | None, ...] = (None,) * TERMS
        self.unlike: str | None = None
        self._plan, self._solver, self._guidance = plan, scheduler.solver(), guidance
        self._channel_axis = channels_beside(frame_axis, latents.ndim)
        self._numbers = {step: number for number, step in enumerate(plan.evaluated)}
        self._guided = self._difference = None

    def advance(self, step: int, *predictions: np.ndarray) -> None:
        """Take a step with what was predicted for it: the conditional branch, then the unconditional one.

        The second is missing at a C, and where guidance is 1, which cancels that branch; both are at an S.
        FloatingPointError: the new latents are not finite.
        """
        self.step, self.predictions = step, predictions
        self.taken += self._plan.actions[step]
        if predictions:
            self._guide(*predictions)
            self._jump(self._numbers[step])
        if not np.isfinite(self.latents).all():
            raise FloatingPointError(
                f"step {step + 1} of {len(self._plan.actions)} gave numbers that are not finite: {LESS_EXACT}"
            )

    def _guide(self, conditional: np.ndarray, unconditional: np.ndarray | None = None) -> None:
        """Combine the branches; where one is missing, with their difference as it was last."""
        if unconditional is not None:
            self._difference = conditional - unconditional
            self._guided = unconditional + self._guidance * self._difference
        elif self._difference is not None:
            self._guided = conditional + (self._guidance - 1) * self._difference
        else:
            self._guided = conditional
        self.terms = self.latents, conditional, self._guided_difference, self.terms[1]

    def _jump(self, number: int) -> None:
        """Let the solver leap to the next evaluated step, and add the plan's correction there."""
        plan, (step, to) = self._plan, self._plan.jumps[number]
        self.latents = leap(self._solver, self.latents, self._guided, step, to)
        row = plan.corrections[number] if plan.corrections else ()
        level = plan.level_corrections[number] if plan.level_corrections else ()
        if any((*row, *level)):
            self.latents = self.latents + combine(row, self.terms, level, self._channel_axis)

    @property
    def _guided_difference(self) -> np.ndarray | None:
        return None if self._difference is None else (self._guidance - 1) * self._difference


def combine(
    factors: Sequence[float],
    terms: Sequence[np.ndarray | None],
    levels: Sequence[float] = (),
    channel_axis: int = 1,
) -> np.ndarray:
    """The sum of the terms times their factors, in float32; a term that is None counts nothing.

    levels: a row of StepPlan.level_corrections, by which the sum gets another level.
    """
    parts = [np.float32(f) * term for f, term in zip(factors, terms, strict=True) if term is not None]
    total = sum(parts[1:], parts[0])
    if not levels:
        return total
    wanted = combine(levels[:TERMS], [None if term is None else level_of(term) for term in terms])
    offsets = np.array(levels[TERMS:], np.float32)
    shape = [1] * total.ndim
    shape[channel_axis] = len(offsets)
    return total + (wanted + offsets.reshape(shape) - level_of(total))


def channels_beside(frame_axis: int, dimensions: int) -> int:
    """The axis of channels, which lies before or after that of frames; the last two are height and width."""
    return 2 * dimensions - 7 - frame_axis


def level_of(array: np.ndarray) -> np.ndarray:
    """The mean over height and width, the last two axes, which stay with length 1."""
    return array.mean((-2, -1), keepdims=True)
