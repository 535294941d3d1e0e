"""A step plan: at which steps of the base model's grid the denoiser is evaluated, and what else is done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from generators.schedule import Grid
from generators.windows import Carry, WindowRule, overlapping
from optimize.guard import Guard

BRANCHES = {"F": 2, "C": 1, "H": 2, "S": 0}  # evaluated by an action
LESS_EXACT = "a precision that is too low, or damaged weights? Try --precision fp32, or another --backend"
TERMS = 4  # of a jump: latents, conditional prediction, difference of the branches, prediction before


class StepPlanError(ValueError):
    """A step plan cannot be used; the text says what is wrong with it and what would be right."""


@dataclass(frozen=True)
class StepPlan:
    """What each step of the base grid does; the plan of all F without jumps is the base model's run.

    actions: a letter a step. F evaluates both branches of guidance; C the conditional one only, with the
    difference of the branches as the last F left it; H both branches by a shallow engine, from features that
    the last F kept, of generators that offer it; S evaluates nothing. The first is F.
    jumps: a row for each evaluated step: what latents at the next one (or the end) are made of, as factors
    of latents, conditional prediction, difference of the branches (conditional minus unconditional) and the
    conditional prediction of the evaluated step before (0 for the first). The tuner fits them to base runs.
    Empty: the guided prediction stays as it was over skipped steps, and the grid advances by it.
    levels: beside each row of jumps, the same for the level of a frame's channel, its mean over height and
    width: four factors of the terms' levels, then what is added in each channel. Predictions out of noise
    have errors of their level that are alike in all videos, and show as a tint. Empty: as the rest.
    overlaps: frames that neighbouring windows share, for the first evaluated steps; the later ones have the
    generator's own. Early predictions say where things are, and windows agree on that; the last draw them.
    guard: which clips are not made by this plan but by the base model's own; None: none.
    StepPlanError: an unknown letter, a plan that does not begin with F, rows that do not fit the actions.
    """

    actions: str
    jumps: tuple[tuple[float, ...], ...] = ()
    levels: tuple[tuple[float, ...], ...] = ()
    overlaps: tuple[int, ...] = ()
    guard: Guard | None = None

    def __post_init__(self) -> None:
        for name in ("jumps", "levels"):
            object.__setattr__(self, name, tuple(tuple(map(float, row)) for row in getattr(self, name)))
        object.__setattr__(self, "overlaps", tuple(self.overlaps))
        for place, action in enumerate(self.actions):
            if action not in BRANCHES:
                known = f"known: {', '.join(BRANCHES)}"
                raise StepPlanError(f"actions: step {place} has the unknown action {action!r}; {known}")
        if not self.actions.startswith("F"):
            raise StepPlanError("actions: the first step must be F: nothing was evaluated before it")
        evaluated = len(self.evaluated)
        if self.jumps and [len(row) for row in self.jumps] != [TERMS] * evaluated:
            raise StepPlanError(f"jumps: must be {evaluated} rows of {TERMS}, one for each evaluated step")
        if self.levels and (
            len(self.levels) != len(self.jumps)
            or len({len(row) for row in self.levels}) > 1
            or len(self.levels[0]) <= TERMS
        ):
            raise StepPlanError(
                f"levels: must be a row for each of jumps, of {TERMS} factors and a number a channel"
            )
        if self.guard and len(self.guard.changes) != evaluated:
            raise StepPlanError(f"guard.changes: must be {evaluated} numbers, one for each evaluated step")
        if len(self.overlaps) > evaluated or any(type(o) is not int or o < 0 for o in self.overlaps):
            raise StepPlanError(
                f"overlaps: must be numbers of frames, 0 or more, for at most the {evaluated} evaluated steps"
            )
        numbers = [weight for row in self.jumps + self.levels for weight in row]
        if not all(math.isfinite(number) for number in numbers):
            raise StepPlanError("jumps and levels: must be finite numbers; tune again")

    @property
    def evaluated(self) -> list[int]:
        """The steps that are not S, in order."""
        return [step for step, action in enumerate(self.actions) if action != "S"]

    @property
    def branches(self) -> int:
        """How many branches are evaluated in all, for each window; shallow ones count as others."""
        return sum(BRANCHES[action] for action in self.actions)

    def windows(self, step: int, own: WindowRule | Carry) -> WindowRule | Carry:
        """A step's windows; own: the generator's, which later steps have. ValueError: none overlap so."""
        planned = dict(zip(self.evaluated, self.overlaps, strict=False))
        if self.actions[step] == "H":  # features are those of windows
            step = self.actions.rindex("F", 0, step)
        return overlapping(own, planned[step]) if step in planned else own

    @property
    def shallow(self) -> bool:
        """Whether it has the action H."""
        return "H" in self.actions

    def calls(
        self,
        guidance: float | tuple[float, float],
        own: WindowRule | Carry,
        frames: int,
        actions: str = "".join(BRANCHES),
    ) -> int:
        """How often the denoiser is evaluated for a clip: a branch of a window at a step is one.

        At guidance 1 the unconditional branch cancels. actions: at which only.
        """
        return sum(
            self.windows(step, own).count(frames) * (1 if guidance == 1.0 else BRANCHES[self.actions[step]])
            for step in self.evaluated
            if self.actions[step] in actions
        )

    def check_steps(self, steps: int) -> None:
        """StepPlanError if the plan is for a grid of another length."""
        if len(self.actions) != steps:
            raise StepPlanError(
                f"actions: {len(self.actions)} letters for a grid of {steps} steps; tune for this generator"
            )

    def check_channels(self, channels: int) -> None:
        """StepPlanError if the levels are for latents of another number of channels."""
        known = len(self.levels[0]) - TERMS if self.levels else channels
        if known != channels:
            raise StepPlanError(f"levels: are for {known} channels, not {channels}; tune for this generator")


class Walk:
    """The latents of one request on their way through the grid; the next request begins a new one.

    Predictions are those of the whole clip, blended over its windows, so that what is kept belongs to no
    single window. taken: the letters of what was done so far. unlike: why a guard had this walk begun or
    stopped, see pipeline.guarded.
    guidance: of all frames, or an array that goes over the latents. frame_axis: of the latents, whose last
    axes are height and width.
    """

    def __init__(
        self,
        plan: StepPlan,
        grid: Grid,
        guidance: float | np.ndarray,
        latents: np.ndarray,
        frame_axis: int = 2,
    ) -> None:
        plan.check_steps(grid.steps)
        self._channel_axis = channels_beside(frame_axis, latents.ndim)
        self.latents, self.taken = latents, ""
        self._plan, self._solver, self._guidance = plan, grid.solver(), guidance
        self._numbers = {step: number for number, step in enumerate(plan.evaluated)}
        self.unlike: str | None = None
        self._guided = self._difference = self._before = None

    def advance(
        self, step: int, conditional: np.ndarray | None = None, unconditional: np.ndarray | None = None
    ) -> None:
        """Take the step with the predictions that its action asked for.

        unconditional is None at a C, and where guidance is 1, which cancels that branch. FloatingPointError:
        the new latents are not finite.
        """
        self.taken += self._plan.actions[step]
        number = self._numbers.get(step)
        if conditional is not None:
            self._take_note(conditional, unconditional)
        if not self._plan.jumps:
            self.latents = self._solver.advance(self.latents, self._guided, step)
        elif number is not None:
            terms = (self.latents, conditional, self._difference, self._before)
            levels = self._plan.levels[number] if self._plan.levels else ()
            self.latents = combine(self._plan.jumps[number], terms, levels, self._channel_axis)
        if number is not None:
            self._before = conditional
        if not np.isfinite(self.latents).all():
            raise FloatingPointError(
                f"step {step + 1} of {len(self._plan.actions)} gave numbers that are not finite: {LESS_EXACT}"
            )

    def _take_note(self, conditional: np.ndarray, unconditional: np.ndarray | None) -> None:
        if unconditional is not None:
            self._difference = conditional - unconditional
            self._guided = unconditional + self._guidance * self._difference
        elif self._difference is not None:
            self._guided = conditional + (self._guidance - 1) * self._difference
        else:
            self._guided = conditional


def combine(
    factors: Sequence[float],
    terms: Sequence[np.ndarray | None],
    levels: Sequence[float] = (),
    channel_axis: int = 1,
) -> np.ndarray:
    """The sum of the terms times their factors, in float32; a term that is None counts nothing.

    levels: a row of StepPlan.levels, by which the sum gets another level in each frame and channel.
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
