"""Fewer steps of the same sampler: what everyone tries first."""

from __future__ import annotations

from dataclasses import replace

from generators.contract import Generator
from generators.samplers import FlowMatchEuler
from pipeline.caches.technique import Technique, TechniqueError, Values
from pipeline.window_denoiser import OpenDenoiser, SerialDenoiser

SHIFTS = (1.0, 2.0, 3.0, 4.0, 5.0, 7.0)


def shifts(generator: Generator) -> Values:
    """The generator's own shift, then others, the nearest first; none is faster."""
    own = float(_own(generator).shift)
    return (own, *sorted((s for s in SHIFTS if s != own), key=lambda shift: abs(shift - own)))


def steps(generator: Generator) -> Values:
    """From the generator's own number of steps down to one."""
    return tuple(range(generator.scheduler.steps, 0, -1))


def apply(generator: Generator, shift: float, steps: int) -> OpenDenoiser:
    """Give the generator another schedule."""
    own = _own(generator)
    if shift <= 0:
        raise TechniqueError(f"shift: must be above 0, is {shift!r}")
    if (shift, steps) != (own.shift, own.steps):
        generator.scheduler = replace(own, steps=steps, shift=shift)
    return SerialDenoiser


def _own(generator: Generator) -> FlowMatchEuler:
    if not isinstance(generator.scheduler, FlowMatchEuler):
        kind = type(generator.scheduler).__name__
        raise TechniqueError(f"name: fewer-steps is for FlowMatchEuler, and {generator.name} has {kind}")
    return generator.scheduler


TECHNIQUE = Technique(
    "fewer-steps",
    "Euler's method on a coarser schedule; common practice, written here, Apache-2.0",
    {"shift": shifts, "steps": steps},
    apply,
    keeps=False,
)
