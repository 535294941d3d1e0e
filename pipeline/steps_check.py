"""Check a generator's noise and its scheduler over all steps; random numbers stand in for predictions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from engines.errors import BROKEN, describe_error
from generators.contract import Generator
from generators.samplers import Draw, Scheduler, leap, open_solver
from generators.windows import ContinuationWindows, frame_slice
from pipeline.component_check import Finding, same
from pipeline.sampler_state import begin_noise

SEED = 1
CORNER = np.s_[..., :8, :8]  # of latents, kept of each step: what a solver keeps shows everywhere
MENDS = {
    "noise": "give as many latent frames along frame_axis as are asked for",
    "step_noise": "give float32 like noise(frames, seed), by seed and step alone: torch_normal(shape, seed, "
    "calls=step + 1) of generators/noise.py, or np.random.Philox((seed, step)) made inside",
    "scheduler": "let solver() give a new object for each clip, and its advance(latents, prediction, step) "
    "or leap(latents, prediction, step, to) new latents like those given: end it with .astype(np.float32)",
}


def check_steps(generator: Generator) -> Iterator[Finding]:
    """Sample a clip of one window, then a longer one, each twice; give the first thing that is wrong.

    Latents after each step, and the noise of steps, must be like the first noise and the same both times.
    """
    windows = generator.windows
    continued = isinstance(windows, ContinuationWindows)
    for frames in (windows.frames, 2 * windows.frames + 1):
        clip = len(windows.condition_indices(frames))
        count = windows.length * windows.count(frames) if continued else clip
        sampled = windows.length if continued else count  # at once: all that a solver sees
        for member, check in (("noise", _noise), ("step_noise", _step_noise), ("scheduler", _solver)):
            try:
                wrong = check(generator, count, sampled)
            except BROKEN as error:
                wrong = describe_error(error)
            if wrong:
                yield Finding(member, f"of {count} latent frames: {wrong}", MENDS[member])
                return


def _noise(generator: Generator, count: int, sampled: int) -> str | None:
    noise = generator.noise(count, SEED)
    right = noise.shape[generator.frame_axis] == count and noise.dtype == np.float32
    return None if right else f"it gives {kind_of(noise)}, and frame_axis is {generator.frame_axis}"


def _step_noise(generator: Generator, count: int, sampled: int) -> str | None:
    """Say what is wrong with the generator's own noise at the first and the last step, if it is used."""
    if not (hasattr(generator, "step_noise") and getattr(generator.scheduler, "stochastic", False)):
        return None
    noise = generator.noise(count, SEED)
    for step in (0, generator.scheduler.steps - 1):
        first, again, other = (generator.step_noise(count, seed, step) for seed in (SEED, SEED, SEED + 1))
        if not _alike(first, noise):
            return f"it gives {kind_of(first)} for latents {kind_of(noise)}"
        if not np.array_equal(first, again):
            return "the same seed and step give other numbers the second time"
        if np.array_equal(first, other):
            return "another seed gives the same numbers"
    return None


def _solver(generator: Generator, count: int, sampled: int) -> str | None:
    """Say what is wrong with a solver's latents over all steps, or with those of the next one."""
    noise, draw = begin_noise(generator, count, SEED)
    own = frame_slice(noise.ndim, generator.frame_axis, 0, sampled)
    walks = [_walk(generator.scheduler, noise[own], lambda step: draw(step)[own]) for _ in range(2)]
    corners = []
    for step, (latents, kept) in enumerate(walks[0]):
        place = f"at step {step + 1} of {generator.scheduler.steps}"
        if not _alike(latents, noise[own]):
            return f"{place} it gives {kind_of(latents)} for latents {kind_of(noise[own])}"
        if not np.isfinite(latents).all():
            return f"{place} it gives numbers that are not finite, for predictions of unit variance"
        if not kept:
            return f"{place} it writes into the latents or the prediction it is given"
        corners.append(latents[CORNER].copy())
    for step, (latents, _) in enumerate(walks[1]):
        if not same([corners[step]], [latents[CORNER]]):
            again = "the same clip gives other latents the second time"
            return f"{again}, from step {step + 1} on: it keeps what it had of the clip before"
    return None


def _walk(scheduler: Scheduler, noise: np.ndarray, draw: Draw) -> Iterator[tuple[np.ndarray, bool]]:
    """Give the latents after each step of a new solver, and whether it left unchanged what it was given."""
    solver, latents = open_solver(scheduler, draw), noise.copy()
    predictions = np.random.default_rng(SEED)
    for step in range(scheduler.steps):
        prediction = predictions.standard_normal(noise.shape, np.float32)
        given = latents.copy(), prediction.copy()
        following = leap(solver, latents, prediction, step, step + 1)
        yield following, np.array_equal(given[0], latents) and np.array_equal(given[1], prediction)
        latents = following


def kind_of(value: object) -> str:
    """Write an array's shape and dtype, or another value's class."""
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.dtype.name}"
    return type(value).__name__


def _alike(array: object, latents: np.ndarray) -> bool:
    return getattr(array, "shape", None) == latents.shape and array.dtype == np.float32
