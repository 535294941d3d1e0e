"""Estimate the least time a recipe's networks could take here: their arithmetic at a large product's rate."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from engines.spec import Cadence, ComponentSpec
from generators.contract import SHALLOW, Generator
from pipeline.recipe import Recipe
from pipeline.step_plan import base_plan

SIZE = 2048  # of the square matrices whose product is timed
TIMES = 12  # that it is timed; the least counts


def calls(generator: Generator, recipe: Recipe, frames: int) -> dict[str, int]:
    """Count the calls of each component for a clip, without those a guard would add. RecipeError."""
    generator = recipe.adapt(generator)
    plan, windows = recipe.steps or base_plan(generator), generator.windows
    times = {
        Cadence.REQUEST: 1,
        Cadence.CHUNK: -(-frames // generator.chunk),
        Cadence.WINDOW: windows.count(frames),
        Cadence.STEP: plan.calls(generator.guidance, windows, frames, "FC"),
    }
    found = {name: times[spec.cadence] for name, spec in generator.components.items()}
    if SHALLOW in found:
        found[SHALLOW] = plan.calls(generator.guidance, windows, frames, "H")
    return found


def operations(generator: Generator) -> dict[str, int]:
    """Count multiplications and additions in a call of each component, as torch does, at its `opt` sizes."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    found = {}
    for name, spec in generator.components.items():
        module = generator.build(name).eval().requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            module(*(torch.from_numpy(array) for array in _zeros(spec)))
        found[name] = counter.get_total_flops()
    return found


def peak(precision: str, device: str = "cpu", size: int = SIZE) -> float:
    """Measure operations a second of a product of two large matrices in bf16, fp16 or fp32, the best of many.

    The numbers are random: GPUs are faster where most bits are the same.
    """
    import torch

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(TIMES):
        start = time.perf_counter()
        float((a @ b)[0, 0])  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def roofline_seconds(times: Mapping[str, int], work: Mapping[str, int], rate: float) -> float:
    """Return seconds a clip, from what calls(), operations() and peak() give."""
    return sum(times[name] * work[name] for name in times) / rate


def _zeros(spec: ComponentSpec) -> list[np.ndarray]:
    sizes = {name: each.opt for name, each in spec.ranges.items()}
    return [np.zeros([sizes.get(dim, dim) for dim in tensor.dims], tensor.dtype) for tensor in spec.inputs]
