"""Define step plans: the steps of the schedule at which the denoiser is evaluated, and the jumps between."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from engines.errors import UsageError
from generators.contract import Generator, Guidance, branches_of
from generators.windows import ContinuationWindows, WindowRule, overlapping
from pipeline.guard import Guard

ROWS = ("corrections", "level_corrections")
TERMS = 4  # of a correction: latents, conditional prediction, guided difference, conditional one before


class Action(str, Enum):
    """What a step does; the value is its letter in a plan.

    branches: of two branches of guidance, as many as it evaluates.
    """

    FULL = "F", 2  # evaluates all branches
    COND_ONLY = "C", 1  # evaluates the conditional branch, and reuses the last difference of the branches
    DEEP_CACHE = "H", 2  # evaluates all branches by shallow layers, with deep features of the last FULL
    SKIP = "S", 0  # evaluates nothing: the solver leaps over it

    branches: int

    def __new__(cls, letter: str, branches: int) -> Action:
        """Make a member that equals its letter."""
        made = str.__new__(cls, letter)
        made._value_, made.branches = letter, branches
        return made

    @property
    def evaluated(self) -> int | None:
        """The number of branches it evaluates at most; None: all."""
        return None if self.branches > 1 else self.branches


BRANCHES = {action.value: action.branches for action in Action}


class StepPlanError(UsageError):
    """Raised when a step plan cannot be used; the text says what is wrong with it and what would be right."""


@dataclass(frozen=True)
class StepPlan:
    """What each step of the schedule does; a plan of F alone is the base model's run.

    actions: a letter of Action for each step; the first is F. H needs a generator that offers deep caching.
    From an evaluated step the plan jumps to the next one, or to the end: the solver leaps by the guided
    prediction. From an F to the very next step this is the base model's own step.
    corrections: a row for each evaluated step: factors of the terms whose sum is added to the latents after
    its jump. The terms are the latents before the jump, the conditional prediction, guidance minus one times
    the difference of the branches, and the conditional prediction of the evaluated step before (0 for the
    first). A row is zeros from an F to the very next step, which leaves nothing out. The tuner fits the rows
    to base runs. Empty: nothing is added.
    level_corrections: for each row of corrections, the same for the level of a frame's channel, its mean over
    height and width: four factors of the terms' levels, then an offset for each channel. Predictions from
    noise have errors of their level that are alike in all videos, and show as a tint. Empty: levels are
    corrected by the rows of corrections.
    overlaps: frames that neighbouring windows share, for the first evaluated steps; later steps have the
    generator's own overlap. Early predictions decide where things are, and windows agree on that.
    guard: detects the clips that run by the base model's own plan instead; None: every clip runs by this one.
    StepPlanError: an unknown letter, a plan that does not begin with F, rows that do not fit the actions.
    """

    actions: str
    corrections: tuple[tuple[float, ...], ...] = ()
    level_corrections: tuple[tuple[float, ...], ...] = ()
    overlaps: tuple[int, ...] = ()
    guard: Guard | None = None

    def __post_init__(self) -> None:
        for name in ROWS:
            object.__setattr__(self, name, tuple(tuple(map(float, row)) for row in getattr(self, name)))
        object.__setattr__(self, "overlaps", tuple(self.overlaps))
        for step, action in enumerate(self.actions):
            if action not in BRANCHES:
                known = f"known: {', '.join(BRANCHES)}"
                raise StepPlanError(f"actions: step {step} has the unknown action {action!r}; {known}")
        if not self.actions.startswith(Action.FULL):
            raise StepPlanError("actions: the first step must be F: nothing was evaluated before it")
        evaluated = len(self.evaluated)
        self._check_rows()
        if self.guard and len(self.guard.changes) != evaluated:
            raise StepPlanError(f"guard.changes: must be {evaluated} numbers, one for each evaluated step")
        if len(self.overlaps) > evaluated or any(type(o) is not int or o < 0 for o in self.overlaps):
            raise StepPlanError(
                f"overlaps: must be numbers of frames, 0 or more, for at most the {evaluated} evaluated steps"
            )
        numbers = [each for row in self.corrections + self.level_corrections for each in row]
        if not all(math.isfinite(number) for number in numbers):
            raise StepPlanError("corrections: must be finite numbers; tune again")

    def _check_rows(self) -> None:
        """Raise StepPlanError if rows of corrections do not fit the actions or each other."""
        evaluated, rows, levels = len(self.evaluated), self.corrections, self.level_corrections
        if rows and [len(row) for row in rows] != [TERMS] * evaluated:
            raise StepPlanError(
                f"corrections: must be {evaluated} rows of {TERMS}, one for each evaluated step"
            )
        if levels and (
            len(levels) != len(rows) or len({len(row) for row in levels}) > 1 or len(levels[0]) <= TERMS
        ):
            raise StepPlanError(
                f"level_corrections: must be a row for each of corrections, of {TERMS} factors and a number "
                "a channel"
            )
        for number, (step, to) in enumerate(self.jumps if rows else ()):
            if not self.skips(step, to) and any((*rows[number], *(levels[number] if levels else ()))):
                raise StepPlanError(
                    f"corrections: step {step} leaves nothing out, its row must be zeros; tune again"
                )

    @property
    def evaluated(self) -> list[int]:
        """The indices of the steps that are not S, in order."""
        return [step for step, action in enumerate(self.actions) if action != Action.SKIP]

    @property
    def jumps(self) -> list[tuple[int, int]]:
        """The jumps (step, to) from each evaluated step to the next one, or to the end of the schedule."""
        return list(zip(self.evaluated, [*self.evaluated[1:], len(self.actions)], strict=True))

    def skips(self, step: int, to: int) -> bool:
        """Return whether a jump leaves out work of the base model: steps, or a branch's full evaluation."""
        return to > step + 1 or self.actions[step] != Action.FULL

    @property
    def cheaper(self) -> bool:
        """Whether any jump leaves out work of the base model."""
        return any(self.skips(*jump) for jump in self.jumps)

    @property
    def branches(self) -> int:
        """Number of branches evaluated for a window over all steps; those of H count in full."""
        return sum(BRANCHES[action] for action in self.actions)

    def windows(self, step: int, own: WindowRule | ContinuationWindows) -> WindowRule | ContinuationWindows:
        """Return the window rule of a step. own: the generator's rule, which applies after the overlaps.

        A rule that changes by step is asked for the one at that step. H takes the windows of the last F,
        whose features it uses. ValueError: the overlap is too large.
        """
        planned = dict(zip(self.evaluated, self.overlaps, strict=False))
        if self.actions[step] == Action.DEEP_CACHE:  # deep features belong to the windows they come from
            step = self.actions.rindex(Action.FULL, 0, step)
        own = own.at(step) if hasattr(own, "at") else own
        return overlapping(own, planned[step]) if step in planned else own

    @property
    def deep_cache(self) -> bool:
        """Whether the plan has the action H."""
        return Action.DEEP_CACHE in self.actions

    def calls(
        self,
        guidance: Guidance,
        own: WindowRule | ContinuationWindows,
        frames: int,
        actions: str = "".join(BRANCHES),
    ) -> int:
        """Return how often the denoiser is evaluated for a clip: once for a branch of a window at a step.

        At guidance 1 the unconditional branch cancels. actions: count only the steps with these letters.
        """
        branches = branches_of(guidance)
        return sum(
            self.windows(step, own).count(frames) * len(branches[: Action(self.actions[step]).evaluated])
            for step in self.evaluated
            if self.actions[step] in actions
        )

    def check_steps(self, steps: int) -> None:
        """Raise StepPlanError if the schedule has another number of steps than the plan."""
        if len(self.actions) != steps:
            raise StepPlanError(
                f"actions: {len(self.actions)} letters for a schedule of {steps} steps; "
                "tune for this generator, or leave out as much untuned: [steps] with "
                f'actions = "{self.resized(steps)}" alone'
            )

    def resized(self, steps: int) -> str:
        """Write actions for another schedule that evaluate about the same share of it, at the same places."""
        length = len(self.actions)

        def due(step: int) -> int:
            """Round up the evaluations that belong before a step."""
            parts = (min(max(step * length - each * steps, 0), steps) for each in self.evaluated)
            return -(-sum(parts) // length)

        letters = []
        for step in range(steps):
            last = max(each for each in self.evaluated if each * steps <= step * length)
            letters.append(self.actions[last] if due(step + 1) > due(step) else Action.SKIP.value)
        return "".join(letters)

    def check_channels(self, channels: int) -> None:
        """Raise StepPlanError if level_corrections are for latents of another number of channels."""
        known = len(self.level_corrections[0]) - TERMS if self.level_corrections else channels
        if known != channels:
            raise StepPlanError(
                f"level_corrections: are for {known} channels, not {channels}; tune for this generator"
            )


def base_plan(generator: Generator) -> StepPlan:
    """Return the base model's own plan: every step is F."""
    return StepPlan(Action.FULL.value * generator.scheduler.steps)
