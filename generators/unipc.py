"""UniPC, a multistep solver with a corrector, for flow matching, as diffusers samples Wan with it.

Zhao et al., 2023, "UniPC: A Unified Predictor-Corrector Framework", its B2 variant of order 2, predicting the
clean latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class UniPcMultistep:
    """The grid from noise to clean latents; shift means the same as in FlowMatchEuler."""

    steps: int
    shift: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.shift <= 0:
            raise ValueError(f"a grid needs steps >= 1 and shift > 0, got {self.steps} and {self.shift}")

    @cached_property
    def sigmas(self) -> np.ndarray:
        """(steps + 1,) float32 shares of noise in the latents, to 0."""
        return self._sigmas.astype(np.float32)

    @cached_property
    def times(self) -> np.ndarray:
        """(steps + 1,) float32: the sigmas in thousandths, truncated, as networks take them."""
        return (np.trunc(self._sigmas * 1000) / 1000).astype(np.float32)

    @property
    def _sigmas(self) -> np.ndarray:
        u = np.linspace(1.0, 1e-3, self.steps + 1)[:-1]
        sigmas = self.shift * u / (1 + (self.shift - 1) * u)
        sigmas[0] -= 1e-6  # a logarithm of what is left is taken
        return np.append(sigmas, 0.0)

    def solver(self) -> UniPc:
        """Make a solver for a new request."""
        return UniPc(self.sigmas)


class UniPc:
    """The solver of one request: it keeps the last corrected latents and two predicted clean ones."""

    def __init__(self, sigmas: np.ndarray) -> None:
        sigmas = sigmas.astype(np.float64)
        self._sigmas, self._end = sigmas, len(sigmas) - 1
        with np.errstate(divide="ignore"):
            self._lambdas = np.log(1 - sigmas) - np.log(sigmas)
        self._corrected: np.ndarray | None = None
        self._landed: np.ndarray | None = None
        self._known: list[tuple[int, np.ndarray]] = []  # the last two steps, the newest first: clean latents

    def advance(self, latents: np.ndarray, flow: np.ndarray, step: int) -> np.ndarray:
        """Compute latents at step + 1 from those at step and the flow (noise minus clean) there."""
        return self.leap(latents, flow, step, step + 1)

    def leap(self, latents: np.ndarray, flow: np.ndarray, step: int, to: int) -> np.ndarray:
        """Compute latents at a later step at once; the steps before count by their lengths.

        Latents that are not those it has predicted for this step were corrected by others already.
        """
        clean = latents - np.float32(self._sigmas[step]) * flow
        if self._known and np.array_equal(latents, self._landed):
            latents = self._correct(clean, step)
        self._corrected, self._known = latents, [(step, clean), *self._known[:1]]
        self._landed = self._predict(latents, to)
        return self._landed

    def _predict(self, latents: np.ndarray, to: int) -> np.ndarray:
        """Predict the next latents; by first order at the first and the last step."""
        (step, clean), *earlier = self._known
        moved, growth = self._moved(latents, clean, step, to)
        if not earlier or to == self._end:
            return moved
        [(before, other)] = earlier
        return moved - np.float32(growth * 0.5 / self._ratio(before, step, to)) * (other - clean)

    def _correct(self, clean: np.ndarray, step: int) -> np.ndarray:
        """Correct the latents of this step, now that the clean ones are predicted from it too."""
        (last, last_clean), *earlier = self._known
        moved, growth = self._moved(self._corrected, last_clean, last, step)
        newest = clean - last_clean
        if not earlier:
            return moved - np.float32(growth * 0.5) * newest
        [(before, other)] = earlier
        h, ratio = self._lambdas[step] - self._lambdas[last], self._ratio(before, last, step)
        first = np.expm1(-h) / -h - 1
        second = first / -h - 0.5
        sides = np.array([first, 2 * second]) / np.expm1(-h)
        old, new = np.linalg.solve(np.array([[1.0, 1.0], [ratio, 1.0]]), sides)
        return (
            moved
            - np.float32(growth * old / ratio) * (other - last_clean)
            - np.float32(growth * new) * newest
        )

    def _moved(self, latents: np.ndarray, clean: np.ndarray, a: int, b: int) -> tuple[np.ndarray, float]:
        """Move latents of step a to step b by first order; give the factor of what higher orders add."""
        growth = (1 - self._sigmas[b]) * np.expm1(self._lambdas[a] - self._lambdas[b])
        share = self._sigmas[b] / self._sigmas[a]
        return np.float32(share) * latents - np.float32(growth) * clean, growth

    def _ratio(self, before: int, step: int, to: int) -> float:
        """Compute the ratio of the step before to the one from `step`, in log signal to noise; negative."""
        lambdas = self._lambdas
        return (lambdas[before] - lambdas[step]) / (lambdas[to] - lambdas[step])
