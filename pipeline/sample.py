"""The sampling loop: steps outside, windows inside, then guidance, then the step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engines.spec import Engine
from generators.contract import Constants, Engines, Generator
from generators.windows import Blend, cut
from optimize.step_plan import StepPlan, Walk
from pipeline.evaluate import Clip
from pipeline.split import SplitEngine

Tick = Callable[[], None]


class Predictor:
    """What the denoiser predicts for a whole clip: each window is evaluated, then they are blended.

    constants and frames: of the clip. tick is called after every evaluated window.
    """

    def __init__(
        self,
        generator: Generator,
        engine: Engine,
        constants: Constants,
        frames: int,
        tick: Tick = lambda: None,
    ) -> None:
        self.frames = generator.windows.padded(frames)
        self._generator, self._tick = generator, tick
        padded = {
            name: _repeat_last(array, generator.frame_axis, self.frames)
            if name in generator.per_frame
            else array
            for name, array in constants.items()
        }
        split = isinstance(engine, SplitEngine)
        self._evaluate = engine.clip(padded) if split else Clip(generator, engine, padded)

    def __call__(self, latents: np.ndarray, step: int, action: str) -> tuple[np.ndarray, ...]:
        """The conditional prediction, and at F the unconditional one too; none at S.

        At guidance 1 the unconditional branch cancels and is not evaluated.
        """
        generator = self._generator
        both = action == "F" and generator.guidance != 1.0
        branches = () if action == "S" else (True, False) if both else (True,)
        starts = generator.windows.starts(self.frames) if branches else ()
        blends = [Blend(generator.windows, latents, generator.frame_axis) for _ in branches]
        parts = [(start, branch) for start in starts for branch in branches]
        predictions = self._evaluate(latents, step, parts)
        for start in starts:
            for blend in blends:
                blend.add(start, next(predictions))
            self._tick()
        return tuple(blend.result() for blend in blends)


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

    At each step both branches are predicted, or what the plan says, and guided; then the step is taken.
    tick is called after every evaluated window. StepPlanError: the plan is for another grid.
    """
    predict = Predictor(generator, engine, constants, frames, tick)
    noise = generator.noise(predict.frames, seed)
    plan, axis = plan or base_plan(generator), generator.frame_axis
    walk = Walk(plan, generator.grid, generator.guidance, noise, axis)
    for step in range(generator.grid.steps):
        walk.advance(step, *predict(walk.latents, step, walk.action(step)))
    walk.latents = walk.latents[cut(noise.ndim, axis, 0, frames)]
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
    return len((plan or base_plan(generator)).evaluated) * generator.windows.count(frames)


def _repeat_last(array: np.ndarray, axis: int, length: int) -> np.ndarray:
    """The array with its last frame repeated until it has that length along the axis."""
    missing = length - array.shape[axis]
    if missing <= 0:
        return array
    return np.concatenate(
        [array, np.repeat(array[cut(array.ndim, axis, array.shape[axis] - 1, 1)], missing, axis)], axis
    )
