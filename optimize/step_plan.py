"""A step plan: at which steps of the base model's grid the denoiser is evaluated, and what else is done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

BRANCHES = {"F": 2, "C": 1, "S": 0}  # evaluated by an action
TERMS = 4  # of a jump: latents, conditional prediction, difference of the branches, prediction before


class StepPlanError(ValueError):
    """A step plan cannot be used; the text says what is wrong with it and what would be right."""


@dataclass(frozen=True)
class StepPlan:
    """What each step of the base grid does; the plan of all F without jumps is the base model's run.

    actions: a letter a step. F evaluates both branches of guidance; C the conditional one only, with the
    difference of the branches as the last F left it; S evaluates nothing. The first is F.
    jumps: a row for each evaluated step: what latents at the next one (or the end) are made of, as factors
    of latents, conditional prediction, difference of the branches (conditional minus unconditional) and the
    conditional prediction of the evaluated step before (0 for the first). The tuner fits them to base runs.
    Empty: the guided prediction stays as it was over skipped steps, and the grid advances by it.
    bounds: for each evaluated step, how far the conditional prediction may have changed since the one before,
    relative to its own size. Beyond it every step until the next evaluated one is run as the base model would
    (the guard). 0 for the first, where nothing is compared. Empty: no guard.
    StepPlanError: an unknown letter, a plan that does not begin with F, rows that do not fit the actions.
    """

    actions: str
    jumps: tuple[tuple[float, ...], ...] = ()
    bounds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "jumps", tuple(tuple(map(float, row)) for row in self.jumps))
        object.__setattr__(self, "bounds", tuple(map(float, self.bounds)))
        for place, action in enumerate(self.actions):
            if action not in BRANCHES:
                known = f"known: {', '.join(BRANCHES)}"
                raise StepPlanError(f"actions: step {place} has the unknown action {action!r}; {known}")
        if not self.actions.startswith("F"):
            raise StepPlanError("actions: the first step must be F: nothing was evaluated before it")
        evaluated = len(self.evaluated)
        if self.jumps and [len(row) for row in self.jumps] != [TERMS] * evaluated:
            raise StepPlanError(f"jumps: must be {evaluated} rows of {TERMS}, one for each evaluated step")
        if self.bounds and len(self.bounds) != evaluated:
            raise StepPlanError(f"bounds: must be {evaluated} numbers, one for each evaluated step")
        numbers = [*self.bounds, *(weight for row in self.jumps for weight in row)]
        if not all(math.isfinite(number) for number in numbers):
            raise StepPlanError("jumps and bounds: must be finite numbers; tune again")

    @property
    def evaluated(self) -> list[int]:
        """The steps that are F or C, in order."""
        return [step for step, action in enumerate(self.actions) if action != "S"]

    @property
    def branches(self) -> int:
        """How many branches are evaluated in all, for each window."""
        return sum(BRANCHES[action] for action in self.actions)

    def check_steps(self, steps: int) -> None:
        """StepPlanError if the plan is for a grid of another length."""
        if len(self.actions) != steps:
            raise StepPlanError(
                f"actions: {len(self.actions)} letters for a grid of {steps} steps; tune for this generator"
            )


class Grid(Protocol):
    """What a walk asks of a sampling grid: generators.schedule has them."""

    steps: int

    def advance(self, latents: np.ndarray, prediction: np.ndarray, step: int) -> np.ndarray:
        """Latents at the next step by the guided prediction."""
        ...


class Walk:
    """The latents of one request on their way through the grid; the next request begins a new one.

    Predictions are those of the whole clip, blended over its windows, so that what is kept belongs to no
    single window. taken: the letters of what was done so far, F too where the guard has asked for it.
    """

    def __init__(self, plan: StepPlan, grid: Grid, guidance: float, latents: np.ndarray) -> None:
        plan.check_steps(grid.steps)
        self.latents, self.taken = latents, ""
        self._plan, self._grid, self._guidance = plan, grid, guidance
        self._numbers = {step: number for number, step in enumerate(plan.evaluated)}
        self._alarm = False
        self._guided = self._difference = self._before = None

    @property
    def fired(self) -> list[int]:
        """Steps that the guard has had evaluated in full."""
        planned = self._plan.actions
        return [step for step, done in enumerate(self.taken) if done != planned[step]]

    def action(self, step: int) -> str:
        """What to do at this step: F, C or S."""
        return "F" if self._alarm and step not in self._numbers else self._plan.actions[step]

    def advance(
        self, step: int, conditional: np.ndarray | None = None, unconditional: np.ndarray | None = None
    ) -> None:
        """Take the step with the predictions that its action asked for.

        unconditional is None at a C, and where guidance is 1, which cancels that branch.
        """
        self.taken += self.action(step)
        number = self._numbers.get(step)
        if conditional is not None:
            self._take_note(number, conditional, unconditional)
        if self._alarm or not self._plan.jumps:
            self.latents = self._grid.advance(self.latents, self._guided, step)
        elif number is not None:
            terms = (self.latents, conditional, self._difference, self._before)
            self.latents = combine(self._plan.jumps[number], terms)
        if number is not None:
            self._before = conditional

    def _take_note(
        self, number: int | None, conditional: np.ndarray, unconditional: np.ndarray | None
    ) -> None:
        if number is not None:
            self._alarm = bool(number and self._plan.bounds) and (
                change(conditional, self._before) > self._plan.bounds[number]
            )
        if unconditional is not None:
            self._difference = conditional - unconditional
            self._guided = unconditional + self._guidance * self._difference
        elif self._difference is not None:
            self._guided = conditional + (self._guidance - 1) * self._difference
        else:
            self._guided = conditional


def combine(factors: Sequence[float], terms: Sequence[np.ndarray | None]) -> np.ndarray:
    """The sum of the terms times their factors, in float32; a term that is None counts nothing."""
    parts = [np.float32(f) * term for f, term in zip(factors, terms, strict=True) if term is not None]
    return sum(parts[1:], parts[0])


def change(new: np.ndarray, old: np.ndarray) -> float:
    """Root mean square of the change, relative to that of the new."""
    size = np.sqrt(np.mean(np.square(new)))
    return float(np.sqrt(np.mean(np.square(new - old))) / max(size, np.finfo(np.float32).tiny))
