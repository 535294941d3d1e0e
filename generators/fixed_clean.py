"""The solver of grids whose steps can add noise: DDIM and Euler."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from generators.samplers import Draw


class NoisyGrid(Protocol):
    """A grid whose latents are a signal's share of clean ones and noise; generators/diffusion_grids.py."""

    def split(self, latents: np.ndarray, prediction: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Split latents into the predicted clean ones and the rest, which is noise."""
        ...

    def spread(self, step: int) -> tuple[float, float]:
        """Compute by what the noise of a step's latents is multiplied for the next, and how much is added."""
        ...

    def signal(self, to: int) -> float:
        """Return the clean latents' factor where the step before `to` ends."""
        ...


class FixedClean:
    """A solver that keeps the predicted clean latents over a leap, and adds the noise of every step in it.

    So a leap ends with the noise that the steps left out would have added, and as much of it.
    """

    def __init__(self, grid: NoisyGrid, draw: Draw | None = None) -> None:
        self._grid, self._draw = grid, draw

    def advance(self, latents: np.ndarray, prediction: np.ndarray, step: int) -> np.ndarray:
        """Compute latents at step + 1 from those at step and the guided prediction there."""
        return self.leap(latents, prediction, step, step + 1)

    def leap(self, latents: np.ndarray, prediction: np.ndarray, step: int, to: int) -> np.ndarray:
        """Compute latents at a later step at once."""
        clean, noise = self._grid.split(latents, prediction, step)
        for each in range(step, to):
            kept, added = self._grid.spread(each)
            noise = np.float32(kept) * noise
            if added:
                noise = noise + np.float32(added) * self._draw(each)
        return np.float32(self._grid.signal(to)) * clean + noise
