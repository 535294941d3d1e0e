"""Count bytes between host and device of a whole video: sample it with engines that compute nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from engines.spec import ComponentSpec
from generators.contract import Generator
from lab.gpu.fake_arrays import FakeArray, FakePlace
from pipeline.sampler import generate
from pipeline.step_plan import StepPlan


@dataclass
class EmptyEngine:
    """An engine whose outputs are zeros that take no memory. crossed: bytes, up and down, by component."""

    spec: ComponentSpec
    place: FakePlace | None = None
    crossed: Counter = field(default_factory=Counter)
    path = None

    def __call__(self, **arrays: np.ndarray | FakeArray) -> dict[str, np.ndarray | FakeArray]:
        """Give zeros for each output. ValueError: an input does not fit."""
        sizes, made = self.spec.check(arrays), {}
        self.crossed["up"] += sum(each.nbytes for each in arrays.values() if isinstance(each, np.ndarray))
        for tensor in self.spec.outputs:
            zeros = np.broadcast_to(np.zeros((), tensor.dtype), [sizes.get(dim, dim) for dim in tensor.dims])
            stays = self.place and zeros.dtype.kind == "f"
            made[tensor.name] = FakeArray(zeros, self.place) if stays else zeros
            self.crossed["down"] += 0 if stays else zeros.nbytes
        return made

    def close(self) -> None:
        """Do nothing."""


def bytes_across(
    generator: Generator, frames: int, resident: bool, plan: StepPlan | None = None
) -> tuple[int, int]:
    """Return how many bytes a video of that many frames sends up to the device, and brings down.

    resident: arrays stay on the device; else each passes through the host at every call.
    """
    place = FakePlace() if resident else None
    engines = {name: EmptyEngine(spec, place) for name, spec in generator.components.items()}
    width, height = generator.size
    skeletons = np.zeros((frames, height, width, 3), np.uint8)
    generate(generator, engines, skeletons, skeletons[0], 0, plan)
    crossed = sum((engine.crossed for engine in engines.values()), Counter())
    return (
        crossed["up"] + (place.up.total() if place else 0),
        crossed["down"] + (place.down.total() if place else 0),
    )
