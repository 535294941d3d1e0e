"""Hold the latents of a clip between steps, and take a step: guidance, the scheduler's leap, corrections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from engines.device_arrays import constant, on_device, queue_step
from engines.late_flag import read_later
from generators.contract import Generator, GeneratorError
from generators.noise import step_noise
from generators.samplers import Draw, Scheduler, leap, open_solver
from pipeline.step_plan import TERMS, StepPlan

# One number, or an array that broadcasts over the latents; or the weight of each branch by its name.
ClipGuidance = float | np.ndarray | Mapping[str, float]
LESS_EXACT = "a precision that is too low, or damaged weights? Try --precision fp32, or another --backend"


class SamplerState:
    """The latents of a clip on their way through the scheduler's steps; each run begins a new one.

    Predictions are those of the whole clip, blended over its windows.

    step: the last step taken, -1 before the first. latents: those after it. predictions: of that step: the
    conditional one, and those of other branches where they were evaluated; empty at S. began: the latents
    that the last evaluated step started from. conditional, previous: the conditional predictions of that step
    and of the evaluated step before, None if there is none. taken: the letters of all steps so far. unlike:
    why the guard had the base model's plan run, and where.
    """

    def __init__(
        self,
        plan: StepPlan,
        scheduler: Scheduler,
        guidance: ClipGuidance,
        latents: np.ndarray,
        frame_axis: int = 2,
        draw: Draw | None = None,
        finite: bool = True,
    ) -> None:
        """Begin with latents that are noise. StepPlanError: the plan is for a schedule of another length.

        frame_axis: of the latents, whose last two axes are height and width. draw: of the noise that a
        stochastic scheduler adds. finite: latents must be, else it is an error.
        """
        plan.check_steps(scheduler.steps)
        self.step, self.latents, self.taken = -1, latents, ""
        self.predictions: tuple[np.ndarray, ...] = ()
        self.began = self.conditional = self.previous = None
        self.unlike: str | None = None
        self._plan, self._solver, self._guidance = plan, open_solver(scheduler, draw), guidance
        if isinstance(guidance, np.ndarray):
            self._guidance = constant(guidance, latents)
        self._channel_axis = channels_beside(frame_axis, latents.ndim)
        self._numbers = {step: number for number, step in enumerate(plan.evaluated)}
        self._guided = self._difference = None
        self._must_be_finite, self._finite = finite, None

    def advance(self, step: int, *predictions: np.ndarray) -> None:
        """Take a step with its predictions: the conditional branch's, then those of the others.

        These are missing at C, and where guidance is 1, which cancels the branch; all are missing at S.
        FloatingPointError: the new latents are not finite; on a device the flag for that is copied behind
        this step and read when the next one is queued, so that this one alone is waited for.
        """
        self.step, self.predictions = step, predictions
        self.taken += self._plan.actions[step]
        if predictions:
            self._guide(*predictions)
            self._jump(self._numbers[step])
            before = self._finite
            flag = np.isfinite(self.latents).all() if self._must_be_finite else None
            queue_step(self.latents)
            if flag is not None:
                self._finite = step, read_later(flag)
            self._check(before if on_device(self.latents) else self._finite)
        if step + 1 == len(self._plan.actions):
            self._check(self._finite)

    def _check(self, found: tuple[int, Callable[[], bool]] | None) -> None:
        """Raise FloatingPointError if what was found after a step is that latents are not finite."""
        if found and not found[1]():
            raise FloatingPointError(
                f"step {found[0] + 1} of {len(self._plan.actions)} gave numbers that are not finite: "
                f"{LESS_EXACT}"
            )

    def _guide(self, conditional: np.ndarray, *others: np.ndarray) -> None:
        """Combine the branches; where only the conditional one is there, reuse their last difference."""
        if isinstance(self._guidance, Mapping):
            if others:
                self._difference = guided_difference(self._guidance, conditional, *others)
            self._guided = conditional if self._difference is None else conditional + self._difference
        elif others:
            self._difference = conditional - others[0]
            self._guided = others[0] + self._guidance * self._difference
        elif self._difference is not None:
            self._guided = conditional + (self._guidance - 1) * self._difference
        else:
            self._guided = conditional
        self.began, self.previous, self.conditional = self.latents, self.conditional, conditional

    @property
    def terms(self) -> tuple[np.ndarray | None, ...]:
        """The terms of a correction of the last jump, as StepPlan.corrections has factors for them."""
        difference = self._difference
        if difference is not None and not isinstance(self._guidance, Mapping):
            difference = (self._guidance - 1) * difference
        return self.began, self.conditional, difference, self.previous

    def _jump(self, number: int) -> None:
        """Let the solver leap to the next evaluated step, and add the plan's correction of that jump."""
        plan, (step, to) = self._plan, self._plan.jumps[number]
        self.latents = leap(self._solver, self.latents, self._guided, step, to)
        row = plan.corrections[number] if plan.corrections else ()
        level = plan.level_corrections[number] if plan.level_corrections else ()
        if any((*row, *level)):
            self.latents = self.latents + combine(row, self.terms, level, self._channel_axis)


def guided_difference(guidance: ClipGuidance, conditional: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Compute what guidance adds to the conditional prediction, of those of the other branches."""
    if not isinstance(guidance, Mapping):
        return (guidance - 1) * (conditional - others[0])
    weights = list(guidance.values())[1:]
    return sum(np.float32(w) * (other - conditional) for w, other in zip(weights, others, strict=True))


def begin_noise(generator: Generator, frames: int, seed: int) -> tuple[np.ndarray, Draw]:
    """Draw initial latents; give the source of the noise of steps: the generator's step_noise, or our own.

    GeneratorError, when that noise is drawn: it is not like the latents.
    """
    noise = generator.noise(frames, seed)
    own = getattr(generator, "step_noise", lambda frames, *place: step_noise(noise.shape, *place))

    def draw(step: int) -> np.ndarray:
        drawn = own(frames, seed, step)
        if drawn.shape != noise.shape or drawn.dtype != np.float32:
            found = f"{drawn.shape} {drawn.dtype}"
            raise GeneratorError(f"step_noise gives {found}, and latents are {noise.shape} float32")
        return drawn

    return noise, draw


def combine(
    factors: Sequence[float],
    terms: Sequence[np.ndarray | None],
    levels: Sequence[float] = (),
    channel_axis: int = 1,
) -> np.ndarray:
    """Return the sum of the terms times their factors, in float32; a term that is None counts as 0.

    levels: a row of StepPlan.level_corrections; the sum's mean over height and width is then replaced by the
    one that this row gives.
    """
    parts = [np.float32(f) * term for f, term in zip(factors, terms, strict=True) if term is not None]
    total = sum(parts[1:], parts[0])
    if not levels:
        return total
    wanted = combine(levels[:TERMS], [None if term is None else level_of(term) for term in terms])
    offsets = np.array(levels[TERMS:], np.float32)
    shape = [1] * total.ndim
    shape[channel_axis] = len(offsets)
    return total + (wanted + constant(offsets.reshape(shape), total) - level_of(total))


def channels_beside(frame_axis: int, dimensions: int) -> int:
    """Return the channel axis, which is before or after the frame axis; the last two are height and width."""
    return 2 * dimensions - 7 - frame_axis


def level_of(array: np.ndarray) -> np.ndarray:
    """Return the mean over height and width, the last two axes, which are kept with length 1."""
    return array.mean((-2, -1), keepdims=True)
