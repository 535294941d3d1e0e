"""Fewer steps of the same sampler: what everyone tries first."""

from __future__ import annotations

import copy

from bench.baselines.rival import Knobs, Rival
from generators.contract import Generator
from generators.samplers import FlowMatchEuler

SHIFTS = (1.0, 2.0, 3.0, 4.0, 5.0, 7.0)


def knobs(generator: Generator) -> Knobs:
    """shift: the generator's own, then others (none is faster); steps: from its own number down to one."""
    own = generator.scheduler.shift
    shifts = (own, *sorted((s for s in SHIFTS if s != own), key=lambda shift: abs(shift - own)))
    return {"shift": shifts, "steps": tuple(range(generator.scheduler.steps, 0, -1))}


def wrap(generator: Generator, shift: float, steps: int) -> Generator:
    """A copy of the generator with another grid."""
    adapted = copy.copy(generator)
    adapted.scheduler = FlowMatchEuler(int(steps), float(shift))
    return adapted


RIVAL = Rival("fewer-steps", "Euler's method on a coarser grid; common practice", knobs, wrap)
