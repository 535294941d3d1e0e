"""Add up wall-clock seconds by stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Seconds:
    """A stopwatch: wall-clock seconds by stage; a stage that is entered twice adds up."""

    stages: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time spent inside a with block to that stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - start)

    def add(self, stage: str, seconds: float) -> None:
        """Add seconds that were measured elsewhere."""
        self.stages[stage] = self.stages.get(stage, 0.0) + seconds

    def move(self, seconds: float, source: str, target: str) -> None:
        """Move seconds from the stage `source`, where they were measured, to the stage `target`."""
        self.add(source, -seconds)
        self.add(target, seconds)

    def of_each(self, source: Iterator[np.ndarray], stage: str) -> Iterator[np.ndarray]:
        """Give the items of source, and add the time waited for each of them to the stage."""
        while True:
            with self(stage):
                item = next(source, None)
            if item is None:
                return
            yield item

    def rounded(self) -> dict[str, float]:
        """Return the seconds by stage to 0.1 ms, for a manifest line."""
        return {stage: round(seconds, 4) for stage, seconds in self.stages.items()}
