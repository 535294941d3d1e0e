"""The sampling loop: steps outside, windows inside, guidance in between."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engines.spec import Engine
from generators.contract import Constants, Engines, Generator
from generators.windows import Blend, cut

Tick = Callable[[], None]


def sample(
    generator: Generator,
    engine: Engine,
    constants: Constants,
    frames: int,
    seed: int,
    tick: Tick = lambda: None,
) -> np.ndarray:
    """Clean latents of `frames` frames along generator.frame_axis, as the base model makes them.

    Each window is evaluated at each step with and without its condition; predictions are blended over the
    windows before the step is taken. At guidance 1 the unconditional branch cancels and is not evaluated.
    tick is called after every evaluated window.
    """
    axis, windows = generator.frame_axis, generator.windows
    padded = windows.padded(frames)
    constants = {
        name: _repeat_last(array, axis, padded) if name in generator.per_frame else array
        for name, array in constants.items()
    }
    latents = generator.noise(padded, seed)
    for step in range(generator.grid.steps):
        blend = Blend(windows, latents, axis)
        for start in windows.starts(padded):
            part = cut(latents.ndim, axis, start, windows.length)
            seen = {
                name: array[part] if name in generator.per_frame else array
                for name, array in constants.items()
            }
            blend.add(start, _guided(generator, engine, latents[part], step, seen))
            tick()
        latents = generator.grid.advance(latents, blend.result(), step)
    return latents[cut(latents.ndim, axis, 0, frames)]


def generate(
    generator: Generator, engines: Engines, skeletons: np.ndarray, image: np.ndarray, seed: int
) -> np.ndarray:
    """Frames (F, H, W, 3) uint8 of a clip that is held in memory.

    skeletons (F, H, W, 3) and image (H, W, 3) are at the generator's size already.
    """
    chunks = np.split(skeletons, range(generator.chunk, len(skeletons), generator.chunk))
    constants = generator.condition(engines, chunks, image[None])
    latents = sample(generator, engines["denoise"], constants, len(skeletons), seed)
    return np.concatenate(list(generator.decode(engines, latents)))


def evaluations(generator: Generator, frames: int) -> int:
    """How many windows are evaluated for a clip: the ticks of sample()."""
    windows = generator.windows
    return generator.grid.steps * len(windows.starts(windows.padded(frames)))


def _guided(
    generator: Generator, engine: Engine, latents: np.ndarray, step: int, seen: Constants
) -> np.ndarray:
    conditional = generator.denoise(engine, latents, step, seen, True)
    if generator.guidance == 1.0:
        return conditional
    unconditional = generator.denoise(engine, latents, step, seen, False)
    return unconditional + generator.guidance * (conditional - unconditional)


def _repeat_last(array: np.ndarray, axis: int, length: int) -> np.ndarray:
    """The array with its last frame repeated until it has that length along the axis."""
    missing = length - array.shape[axis]
    if missing <= 0:
        return array
    return np.concatenate(
        [array, np.repeat(array[cut(array.ndim, axis, array.shape[axis] - 1, 1)], missing, axis)], axis
    )
