"""The sampling loop: steps outside, windows inside, then guidance, then the step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engines.spec import Engine
from generators.contract import Constants, Engines, Generator
from generators.windows import Blend, cut
from optimize.step_plan import StepPlan, Walk

Tick = Callable[[], None]


def sample(
    generator: Generator,
    engine: Engine,
    constants: Constants,
    frames: int,
    seed: int,
    plan: StepPlan | None = None,
    tick: Tick = lambda: None,
) -> Walk:
    """A walk whose latents are the clean ones of `frames` frames along generator.frame_axis.

    Each window is evaluated at each step with and without its condition, or as the plan says; both are
    blended over the windows, then guided, then the step is taken. At guidance 1 the unconditional branch
    cancels and is not evaluated. tick is called after every evaluated window.
    StepPlanError: the plan is for another grid.
    """
    axis, windows = generator.frame_axis, generator.windows
    padded = windows.padded(frames)
    constants = {
        name: _repeat_last(array, axis, padded) if name in generator.per_frame else array
        for name, array in constants.items()
    }
    noise = generator.noise(padded, seed)
    walk = Walk(plan or base_plan(generator), generator.grid, generator.guidance, noise)
    for step in range(generator.grid.steps):
        action = walk.action(step)
        both = action == "F" and generator.guidance != 1.0
        branches = () if action == "S" else (True, False) if both else (True,)
        blends = [Blend(windows, walk.latents, axis) for _ in branches]
        for start in windows.starts(padded) if branches else ():
            part = cut(walk.latents.ndim, axis, start, windows.length)
            seen = {
                name: array[part] if name in generator.per_frame else array
                for name, array in constants.items()
            }
            for blend, conditional in zip(blends, branches, strict=True):
                blend.add(start, generator.denoise(engine, walk.latents[part], step, seen, conditional))
            tick()
        walk.advance(step, *(blend.result() for blend in blends))
    walk.latents = walk.latents[cut(walk.latents.ndim, axis, 0, frames)]
    return walk


def generate(
    generator: Generator, engines: Engines, skeletons: np.ndarray, image: np.ndarray, seed: int
) -> np.ndarray:
    """Frames (F, H, W, 3) uint8 of a clip that is held in memory.

    skeletons (F, H, W, 3) and image (H, W, 3) are at the generator's size already.
    """
    chunks = np.split(skeletons, range(generator.chunk, len(skeletons), generator.chunk))
    constants = generator.condition(engines, chunks, image[None])
    latents = sample(generator, engines["denoise"], constants, len(skeletons), seed).latents
    return np.concatenate(list(generator.decode(engines, latents)))


def base_plan(generator: Generator) -> StepPlan:
    """The base model's own run: every step in full."""
    return StepPlan("F" * generator.grid.steps)


def evaluations(generator: Generator, frames: int, plan: StepPlan | None = None) -> int:
    """How many windows are evaluated for a clip: the ticks of sample(), unless a guard asks for more."""
    windows = generator.windows
    steps = (plan or base_plan(generator)).evaluated
    return len(steps) * len(windows.starts(windows.padded(frames)))


def _repeat_last(array: np.ndarray, axis: int, length: int) -> np.ndarray:
    """The array with its last frame repeated until it has that length along the axis."""
    missing = length - array.shape[axis]
    if missing <= 0:
        return array
    return np.concatenate(
        [array, np.repeat(array[cut(array.ndim, axis, array.shape[axis] - 1, 1)], missing, axis)], axis
    )
