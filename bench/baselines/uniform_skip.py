"""Uniform skipping: every n-th step is evaluated, in between each window has its last prediction again."""

from __future__ import annotations

from bench.baselines.rival import Knobs, Rival
from bench.baselines.wrapped import Skipping
from generators.contract import Generator


def knobs(generator: Generator) -> Knobs:
    """every: 1 evaluates all."""
    return {"every": tuple(range(1, min(generator.scheduler.steps, 12) + 1))}


def wrap(generator: Generator, every: int) -> Generator:
    """The generator, evaluated at every n-th step."""
    return Skipping(generator, frozenset(range(0, generator.scheduler.steps, int(every))))


RIVAL = Rival("uniform-skip", "FORA, arXiv 2407.01425, on the network's output; written here", knobs, wrap)
