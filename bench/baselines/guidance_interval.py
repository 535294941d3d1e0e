"""Guidance on an interval: the unconditional branch is left out where noise is high, and where it is low.

Kynkäänniemi et al., 2024. Outside of the interval the guided prediction is the conditional one.
"""

from __future__ import annotations

import numpy as np

from bench.baselines.rival import Knobs, Rival
from bench.baselines.wrapped import Wrapped
from engines.spec import Engine
from generators.contract import Constants, Generator

TENTHS = tuple(range(11))


class GuidedWithin(Wrapped):
    """Guided at times from low to high; elsewhere the other branch is said to be equal: no guidance."""

    def __init__(self, inner: Generator, low: float, high: float) -> None:
        super().__init__(inner)
        self.low, self.high = low, high

    def predict(
        self, engine: Engine, latents: np.ndarray, step: int, constants: Constants, conditional: bool
    ) -> np.ndarray:
        """The unconditional branch outside of the interval is the conditional prediction just made."""
        window, _ = self.key
        # Grid times are float32.
        if not conditional and not self.low - 1e-6 <= self.scheduler.times[step] <= self.high + 1e-6:
            return self.kept[window, True]
        self.kept[self.key] = super().predict(engine, latents, step, constants, conditional)
        return self.kept[self.key]


def knobs(generator: Generator) -> Knobs:
    """from_below: the least time, from_above: 1 minus the greatest time that is guided, 0 and 0 being all."""
    tenths = tuple(tenth / 10 for tenth in TENTHS)
    return {"from_above": tenths[:10], "from_below": tenths}


def wrap(generator: Generator, from_above: float, from_below: float) -> Generator:
    """The generator, guided between these times; beyond each other there is no guidance at all."""
    return GuidedWithin(generator, from_below, 1 - from_above)


RIVAL = Rival(
    "guidance-interval", "Kynkäänniemi et al., arXiv 2404.07724; written here from the paper", knobs, wrap
)
