"""Guidance on an interval: the unconditional branch is left out where noise is high, and where it is low.

Kynkäänniemi et al., 2024. Outside of the interval the guided prediction is the conditional one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from generators.contract import Constants, Generator
from pipeline.caches.technique import Technique, TechniqueError
from pipeline.window_denoiser import OpenDenoiser, SerialDenoiser, WindowBranch

TENTHS = tuple(tenth / 10 for tenth in range(11))


class IntervalDenoiser(SerialDenoiser):
    """Guides at times from low to high; elsewhere the other branch equals the conditional one.

    clip: as SerialDenoiser takes it.
    """

    def __init__(self, low: float, high: float, *clip: object) -> None:
        super().__init__(*clip)
        # Times of a schedule are float32.
        times = self._generator.scheduler.times
        self._guided = (times >= low - 1e-6) & (times <= high + 1e-6)
        self._conditional: dict[int, np.ndarray] = {}  # of this step, by window

    def evaluate(
        self, branch: WindowBranch, window: np.ndarray, step: int, constants: Constants
    ) -> np.ndarray:
        """Predict one branch of a window, which are asked for with the conditional one first."""
        if not branch.conditional and not self._guided[step]:
            return self._conditional.pop(branch.window)
        prediction = super().evaluate(branch, window, step, constants)
        if branch.conditional and not self._guided[step]:
            self._conditional[branch.window] = prediction
        return prediction


def apply(generator: Generator, from_above: float, from_below: float) -> OpenDenoiser:
    """Guide between the two times; where they are beyond each other there is no guidance at all."""
    times = generator.scheduler.times
    if times.min() < 0 or times.max() > 1:
        raise TechniqueError("name: guidance-interval is for schedules with times from 1 to 0")
    if isinstance(generator.guidance, Mapping):
        raise TechniqueError("name: guidance-interval is for one unconditional branch, and this has others")
    if generator.guidance == 1.0:
        raise TechniqueError(
            "name: guidance-interval leaves out the unconditional branch, which guidance 1 does not have; "
            "uniform-skip runs with any"
        )
    return partial(IntervalDenoiser, from_below, 1 - from_above)


# from_below: the least time that is guided; from_above: 1 minus the greatest one.
TECHNIQUE = Technique(
    "guidance-interval",
    "Kynkäänniemi et al., arXiv 2404.07724; written here from the paper, Apache-2.0",
    {"from_above": TENTHS[:10], "from_below": TENTHS},
    apply,
)
