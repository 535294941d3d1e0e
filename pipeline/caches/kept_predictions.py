"""Evaluate windows at some steps only; in between each window and branch keeps its last prediction."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from generators.contract import Constants
from pipeline.window_denoiser import SerialDenoiser, WindowBranch


class SkippingDenoiser(SerialDenoiser):
    """Evaluates at the given steps, which any engine can do.

    steps: 0 is among them. clip: as SerialDenoiser takes it.
    """

    def __init__(self, steps: Collection[int], *clip: object) -> None:
        super().__init__(*clip)
        self._steps, self._kept = steps, {}

    def evaluate(
        self, branch: WindowBranch, window: np.ndarray, step: int, constants: Constants
    ) -> np.ndarray:
        """Predict one branch of a window, or give its last prediction again."""
        if step in self._steps:
            self._kept[branch.key] = super().evaluate(branch, window, step, constants)
        return self._kept[branch.key]
