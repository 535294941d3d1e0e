"""Record the inputs of each component of a generator in real runs, over all steps and both branches."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from engines.device_arrays import contiguous
from engines.progress import Progress
from engines.spec import Engine
from generators.contract import Engines, Generator, offers_deep_cache
from pipeline.batch.dataset import Request
from pipeline.columns import read_columns
from pipeline.request import read_opening
from pipeline.sampler import evaluations, generate
from pipeline.step_plan import StepPlan

CLIPS = 2  # the first window of each: enough for ranges, and 100 evaluations of a model of 25 steps
Inputs = Mapping[str, np.ndarray]


class Recorder:
    """An engine wrapper that keeps the inputs of every call in `inputs`, in order."""

    def __init__(self, engine: Engine, arrays: dict[str, np.ndarray]) -> None:
        """Wrap an engine. arrays: one copy of each array by its hash, shared by all recorders.

        So constants, which are the same at every step, are stored once.
        """
        self.spec, self.inputs = engine.spec, []
        self._engine, self._arrays = engine, arrays

    def __call__(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """Return the engine's outputs, and record its inputs."""
        self.inputs.append({name: self._single(array) for name, array in arrays.items()})
        return self._engine(**arrays)

    def close(self) -> None:
        """Do nothing: the caller closes the engine."""

    def _single(self, array: np.ndarray) -> np.ndarray:
        """Return the shared copy of an array."""
        array = contiguous(array)
        key = f"{array.dtype} {array.shape} {hashlib.sha256(array).hexdigest()}"
        if key not in self._arrays:
            self._arrays[key] = array.copy()  # the caller may write into the original
        return self._arrays[key]


def describe(requests: Sequence[Request]) -> list[dict[str, object]]:
    """Return what a recording of these requests depends on, beside the engines.

    These are hashes by video, image and further pictures' columns, the seed, and texts by column, if there
    are any. InputError: a file cannot be read.
    """
    described = []
    for request in requests:
        hashes = {kind.removesuffix("_sha256"): digest for kind, digest in request.hashes().items()}
        columns = {"columns": dict(request.columns)} if request.columns else {}
        described.append({**hashes, "seed": request.seed, **columns})
    return described


def record(generator: Generator, engines: Engines, requests: Sequence[Request]) -> dict[str, list[Inputs]]:
    """Return by component the inputs of each of its calls, in order.

    The first window of each request is sampled by the base model's plan and decoded, so memory is bounded by
    steps, branches and clips. InputError: a file cannot be read.
    """
    arrays: dict[str, np.ndarray] = {}
    recorders = {name: Recorder(engine, arrays) for name, engine in engines.items()}
    plans, length = [None], generator.windows.frames
    if offers_deep_cache(generator):  # only a plan with H runs its shallow component
        plans.append(StepPlan(("FH" * generator.scheduler.steps)[: generator.scheduler.steps]))
    total = sum(evaluations(generator, length, plan) for plan in plans) * len(requests)
    with Progress("evaluations recorded", total) as progress:
        for request in requests:
            frames, image = read_opening(request, generator, length)
            columns = read_columns(request, generator, notes=[])
            for plan in plans:
                generate(generator, recorders, frames, image, request.seed, plan, columns, progress.tick)
    return {name: recorder.inputs for name, recorder in recorders.items()}
