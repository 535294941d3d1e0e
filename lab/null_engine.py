"""An engine that computes nothing: right shapes, counted calls, simulated seconds; for tests of the rest."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from engines.spec import ComponentSpec


@dataclass
class NullEngine:
    """An engine that answers calls that fit the spec with zeros after `seconds`; `calls` counts them.

    Dims that only outputs name take their size from sizes.
    """

    spec: ComponentSpec
    seconds: float = 0.0
    sizes: Mapping[str, int] | None = None
    calls: int = 0
    closed: bool = False
    path = None

    def __call__(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """Give zeros for each output. ValueError: an input does not fit, or the engine is closed."""
        if self.closed:
            raise ValueError(f"{self.spec.name}: this engine is closed; build another")
        sizes = {**(self.sizes or {}), **self.spec.check(arrays)}
        time.sleep(self.seconds)
        self.calls += 1
        return {
            tensor.name: np.zeros([sizes.get(dim, dim) for dim in tensor.dims], tensor.dtype)
            for tensor in self.spec.outputs
        }

    def close(self) -> None:
        """Make further calls errors."""
        self.closed = True
