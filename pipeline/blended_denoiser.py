"""Predict for a clip at once: which windows and branches a step has, and the blend of their predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from generators.contract import Generator, branches_of
from generators.windows import Blend, ContinuationWindows, WindowRule
from pipeline.sampler_state import ClipGuidance
from pipeline.step_plan import Action, StepPlan
from pipeline.window_denoiser import WindowBranch, WindowDenoiser


class StepWindows(NamedTuple):
    """The windows of a clip at one step: their rule, and for each window the indices of its latent frames."""

    rule: WindowRule | ContinuationWindows
    indices: Sequence[np.ndarray]


class BlendedDenoiser:
    """A ClipDenoiser that evaluates each window and blends the predictions.

    denoise: evaluates windows. condition_indices: for each latent frame, the index of the conditions it sees.
    windows: for each step of the schedule. tick: called after every evaluated window. part: the latent frames
    to predict for, whose windows these are (see `part_of`); None: all.
    """

    def __init__(
        self,
        generator: Generator,
        denoise: WindowDenoiser,
        condition_indices: np.ndarray,
        windows: Sequence[StepWindows],
        tick: Callable[[], None] = lambda: None,
        part: np.ndarray | None = None,
    ) -> None:
        self.frames, self.windows = len(condition_indices if part is None else part), denoise
        self.guidance = guidance_over(generator, condition_indices)
        if part is not None and isinstance(self.guidance, np.ndarray):
            self.guidance = self.guidance.take(part, generator.frame_axis)
        self._generator, self._step_windows, self._tick, self._part = generator, windows, tick, part

    def __call__(self, latents: np.ndarray, step: int, action: str) -> tuple[np.ndarray, ...]:
        """Return the conditional prediction, at F and H the other branches' too; an empty tuple at S.

        EngineError: the action is H, and the window denoiser cannot do it.
        """
        branches = branches_at(self._generator, action)
        rule, indices = self._step_windows[step]
        wanted = [
            WindowBranch(n, own, branch, None if self._part is None else self._part[own])
            for n, own in enumerate(indices)
            for branch in branches
        ]
        blends = {branch: Blend(rule, latents, self._generator.frame_axis) for branch in branches}
        for each, prediction in zip(wanted, self.windows(latents, step, action, wanted), strict=True):
            blends[each.conditional].add(each.indices, prediction)
            if each.conditional == branches[-1]:
                self._tick()
        return tuple(blend.result() for blend in blends.values())

    def count(self, plan: StepPlan, steps: int | None = None) -> int:
        """Return how many windows a plan evaluates, in all its steps or in the first `steps` of them."""
        return sum(
            len(self._step_windows[step].indices) for step in plan.evaluated if steps is None or step < steps
        )


def step_windows(generator: Generator, plan: StepPlan, frames: int) -> list[StepWindows]:
    """Return the windows of a clip at each step. StepPlanError: the schedule is of another length."""
    plan.check_steps(generator.scheduler.steps)
    rules = [plan.windows(step, generator.windows) for step in range(generator.scheduler.steps)]
    made = [rules.index(rule) for rule in rules]
    windows = {
        number: StepWindows(rules[number], rules[number].window_indices(frames)) for number in set(made)
    }
    return [windows[number] for number in made]


def part_of(indices: Sequence[np.ndarray], begin: int, end: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the latent frames of the windows in which a run of frames lies, in order, and these windows.

    Sampled alone, the run is as in the whole clip but for what windows beyond tell these where they overlap.
    indices: of each window's frames. Those that are returned are places among the part's frames.
    """
    run = np.arange(begin, end)
    own = [each for each in indices if np.isin(each, run).any()]
    part = np.unique(np.concatenate(own))
    return part, [np.searchsorted(part, each) for each in own]


def branches_at(generator: Generator, action: str) -> tuple:
    """Return which branches an action evaluates, the conditional one first.

    At guidance 1 the unconditional branch cancels and is not evaluated.
    """
    return branches_of(generator.guidance)[: Action(action).evaluated]


def guidance_over(generator: Generator, condition_indices: np.ndarray) -> ClipGuidance:
    """Return the generator's guidance; where it changes over a clip, that of each latent frame (5 axes).

    GeneratorError: guidance of another kind than the contract has.
    """
    branches_of(generator.guidance)
    if not isinstance(generator.guidance, tuple | list):  # a list, as JSON and YAML have for a pair
        return generator.guidance
    own = np.linspace(*generator.guidance, condition_indices.max() + 1, dtype=np.float32)
    shape = [1] * 5
    shape[generator.frame_axis] = -1
    return own[condition_indices].reshape(shape)
