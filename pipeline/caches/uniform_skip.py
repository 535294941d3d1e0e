"""Uniform skipping: every n-th step is evaluated, in between each window has its last prediction again."""

from __future__ import annotations

from functools import partial

from generators.contract import Generator
from pipeline.caches.kept_predictions import SkippingDenoiser
from pipeline.caches.technique import Technique, up_to_steps
from pipeline.window_denoiser import OpenDenoiser


def apply(generator: Generator, every: int) -> OpenDenoiser:
    """Evaluate every n-th step; 1 evaluates all."""
    return partial(SkippingDenoiser, range(0, generator.scheduler.steps, every))


TECHNIQUE = Technique(
    "uniform-skip",
    "FORA, arXiv 2407.01425, on the network's output; written here, Apache-2.0",
    {"every": up_to_steps(12)},
    apply,
)
