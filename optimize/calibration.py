"""Record what each component of a generator meets in real runs: over all steps, both branches."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from engines.artifact import file_sha256
from engines.spec import Engine
from generators.contract import Engines, Generator, offers_deep_cache
from pipeline.batch.dataset import Request
from pipeline.request import read_opening
from pipeline.sampler import generate
from pipeline.step_plan import StepPlan

CLIPS = 2  # of the first window each: enough for ranges, and 100 evaluations of a model of 25 steps
Inputs = Mapping[str, np.ndarray]


class Recorder:
    """An engine that keeps every input it is called with."""

    def __init__(self, engine: Engine, arrays: dict[str, np.ndarray]) -> None:
        """arrays: one copy of each array by its hash, shared by recorders, as steps share their constants."""
        self.spec, self.inputs = engine.spec, []
        self._engine, self._arrays = engine, arrays

    def __call__(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """The engine's outputs."""
        self.inputs.append({name: self._single(array) for name, array in arrays.items()})
        return self._engine(**arrays)

    def close(self) -> None:
        """Nothing: the engine is its owner's."""

    def _single(self, array: np.ndarray) -> np.ndarray:
        array = np.ascontiguousarray(array)
        key = f"{array.dtype} {array.shape} {hashlib.sha256(array).hexdigest()}"
        if key not in self._arrays:
            self._arrays[key] = array.copy()  # callers may write into theirs
        return self._arrays[key]


def describe(requests: Sequence[Request]) -> list[dict[str, str | int]]:
    """What a recording of these requests depends on, beside the engines."""
    return [
        {
            "video": file_sha256(request.video),
            "image": file_sha256(request.image),
            "seed": request.seed,
        }
        for request in requests
    ]


def record(generator: Generator, engines: Engines, requests: Sequence[Request]) -> dict[str, list[Inputs]]:
    """By component: the inputs of each of its calls, in order.

    Of each request the frames of one window are sampled over all steps, as the base model does, and decoded;
    so memory is bounded by steps, branches and clips. InputError if a file cannot be read.
    """
    arrays: dict[str, np.ndarray] = {}
    recorders = {name: Recorder(engine, arrays) for name, engine in engines.items()}
    plans = [None]
    if offers_deep_cache(generator):  # whose components no other plan runs
        plans.append(StepPlan(("FH" * generator.scheduler.steps)[: generator.scheduler.steps]))
    for request in requests:
        frames, image = read_opening(request, generator, generator.windows.frames)
        for plan in plans:
            generate(generator, recorders, frames, image, request.seed, plan)
    return {name: recorder.inputs for name, recorder in recorders.items()}
