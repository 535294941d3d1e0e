"""Sampling grids: the times at which the base model evaluates its denoiser, and how it moves between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np


class Solver(Protocol):
    """Moves the latents of one request along a grid; it may keep what it needs of the steps before."""

    def advance(self, latents: np.ndarray, prediction: np.ndarray, step: int) -> np.ndarray:
        """Latents at step + 1 from those at step and the guided prediction there."""
        ...


class Grid(Protocol):
    """What the sampling loop asks of a grid; times mean what the generator's own denoise makes of them."""

    steps: int

    @property
    def times(self) -> np.ndarray:
        """(steps + 1,) float32: where the denoiser is evaluated, and the end."""
        ...

    def solver(self) -> Solver:
        """A solver for a new request."""
        ...


@dataclass(frozen=True)
class FlowGrid:
    """Flow matching by Euler steps from noise (time 1) to clean (time 0), as Wan samples.

    shift > 1 spends more of the steps near the noise: t = shift * u / (1 + (shift - 1) * u) for even u.
    last: u of the last step, if the published grid does not go on evenly to 0 there.
    """

    steps: int
    shift: float = 1.0
    last: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.shift <= 0:
            raise ValueError(f"a grid needs steps >= 1 and shift > 0, got {self.steps} and {self.shift}")

    @cached_property
    def times(self) -> np.ndarray:
        """(steps + 1,) float32, falling from 1 to 0; the denoiser is evaluated at all but the last."""
        u = np.linspace(1.0, 0.0, self.steps + 1)
        if self.last:
            u[:-1] = np.linspace(1.0, self.last, self.steps)
        return (self.shift * u / (1 + (self.shift - 1) * u)).astype(np.float32)

    def solver(self) -> FlowGrid:
        """Itself: a step needs nothing of those before."""
        return self

    def advance(self, latents: np.ndarray, flow: np.ndarray, step: int) -> np.ndarray:
        """Latents at times[step + 1] from latents at times[step] and the flow (noise minus clean) there."""
        return latents + (self.times[step + 1] - self.times[step]) * flow
