"""The grids of models trained to remove noise in a thousand small steps: DDIM and DPM-Solver++ 2M.

Song et al., 2021, "Denoising Diffusion Implicit Models"; Lu et al., 2022, "DPM-Solver++"; Lin et al., 2024,
"Common Diffusion Noise Schedules and Sample Steps are Flawed" (zero terminal signal to noise). As diffusers
has them, without noise added on the way and without clipping or thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

TRAINED = 1000  # steps that the models were trained on
PREDICTIONS, SPACINGS, BETAS = ("epsilon", "v"), ("leading", "trailing"), ("scaled_linear", "linear")
NEAR_ZERO = 2.0**-24  # the share of signal that DPM-Solver++ is given for none, whose logarithm it takes


@dataclass(frozen=True)
class Diffusion:
    """The base of grids over trained steps; names are those of diffusers' configuration files, shortened.

    prediction: of the noise ("epsilon") or of v. spacing: "leading" counts from the first trained step, plus
    offset; "trailing" from the last. betas: how noise grows from least to most in training. zero_snr:
    rescaled so that nothing of the picture is left at the last. Latents at a step are signal times clean ones
    plus noise, the squares of both adding up to 1.
    """

    steps: int
    prediction: str = "epsilon"
    spacing: str = "leading"
    offset: int = 0
    betas: str = "scaled_linear"
    least: float = 0.00085
    most: float = 0.012
    zero_snr: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= TRAINED:
            raise ValueError(f"a grid needs steps from 1 to {TRAINED}, got {self.steps}")
        for name, known in (("prediction", PREDICTIONS), ("spacing", SPACINGS), ("betas", BETAS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")

    @cached_property
    def times(self) -> np.ndarray:
        """(steps + 1,) float32: the trained steps at which the denoiser is evaluated, then -1."""
        return np.append(self._places, -1).astype(np.float32)

    @property
    def _places(self) -> np.ndarray:
        if self.spacing == "trailing":
            return np.round(np.arange(TRAINED, 0, -TRAINED / self.steps)).astype(int) - 1
        counted = np.arange(self.steps)[::-1] + self._left_out
        return counted * (TRAINED // (self.steps + self._left_out)) + self.offset

    @property
    def _left_out(self) -> int:
        """Count the evenly spaced places at the start that "leading" does not use."""
        return 0

    @cached_property
    def _trained(self) -> np.ndarray:
        """(TRAINED,) float64: the square of the signal's share after each trained step."""
        if self.betas == "linear":
            betas = np.linspace(self.least, self.most, TRAINED)
        else:
            betas = np.linspace(self.least**0.5, self.most**0.5, TRAINED) ** 2
        kept = np.cumprod(1 - betas)
        if not self.zero_snr:
            return kept
        roots = np.sqrt(kept)
        return ((roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))) ** 2

    @cached_property
    def kept(self) -> np.ndarray:
        """(steps + 1,) float64: the square of the signal's share at each step, then 1."""
        return np.append(self._trained[self._places], 1.0)

    def clean(self, latents: np.ndarray, prediction: np.ndarray, kept: float) -> np.ndarray:
        """Compute the predicted clean latents where that share of the signal is kept."""
        signal, noise = np.float32(kept**0.5), np.float32((1 - kept) ** 0.5)
        if self.prediction == "v":
            return signal * latents - noise * prediction
        return (latents - noise * prediction) / signal


@dataclass(frozen=True)
class DdimScheduler(Diffusion):
    """DDIM without noise (eta 0): the clean latents and the noise that are predicted, mixed anew.

    to_one: the last step leads to clean latents, else to the first trained step (diffusers'
    set_alpha_to_one).
    """

    to_one: bool = True

    def solver(self) -> DdimScheduler:
        """Return the grid itself: a step needs nothing of those before."""
        return self

    def advance(self, latents: np.ndarray, prediction: np.ndarray, step: int) -> np.ndarray:
        """Compute latents at step + 1 from those at step and the guided prediction there."""
        return self.leap(latents, prediction, step, step + 1)

    def leap(self, latents: np.ndarray, prediction: np.ndarray, step: int, to: int) -> np.ndarray:
        """Compute latents at a later step at once."""
        kept, then = self.kept[step], self._landing(to)
        clean = self.clean(latents, prediction, kept)
        signal, noise = np.float32(kept**0.5), np.float32((1 - kept) ** 0.5)
        of_noise = prediction if self.prediction == "epsilon" else signal * prediction + noise * latents
        return np.float32(then**0.5) * clean + np.float32((1 - then) ** 0.5) * of_noise

    def _landing(self, to: int) -> float:
        """Return the share kept where the step before `to` ends, whole trained steps further on."""
        place = self._places[to - 1] - TRAINED // self.steps
        return self._trained[place] if place >= 0 else 1.0 if self.to_one else self._trained[0]


@dataclass(frozen=True)
class DpmSolverMultistep(Diffusion):
    """DPM-Solver++ of second order over two steps (2M, midpoint); of first at the first step and the last."""

    @property
    def _left_out(self) -> int:
        return 1

    @cached_property
    def kept(self) -> np.ndarray:
        """(steps + 1,) float64: the square of the signal's share at each step, never nothing, then 1."""
        return np.maximum(super().kept, NEAR_ZERO)

    def solver(self) -> DpmSolver:
        """Make a solver for a new request."""
        return DpmSolver(self)


class DpmSolver:
    """The solver of one request: it keeps the last predicted clean latents, and their step."""

    def __init__(self, grid: DpmSolverMultistep) -> None:
        self._grid, self._before = grid, None
        with np.errstate(divide="ignore"):
            self._lambdas = 0.5 * (np.log(grid.kept) - np.log(1 - grid.kept))

    def advance(self, latents: np.ndarray, prediction: np.ndarray, step: int) -> np.ndarray:
        """Compute latents at step + 1 from those at step and the guided prediction there."""
        return self.leap(latents, prediction, step, step + 1)

    def leap(self, latents: np.ndarray, prediction: np.ndarray, step: int, to: int) -> np.ndarray:
        """Compute latents at a later step at once; the step before counts by its length."""
        kept, lambdas = self._grid.kept, self._lambdas
        clean = self._grid.clean(latents, prediction, kept[step])
        towards, before, self._before = clean, self._before, (step, clean)
        if before is not None and to < self._grid.steps:
            place, other = before
            ratio = (lambdas[to] - lambdas[step]) / (lambdas[step] - lambdas[place])
            towards = clean + np.float32(0.5 * ratio) * (clean - other)
        share = ((1 - kept[to]) / (1 - kept[step])) ** 0.5
        growth = kept[to] ** 0.5 * -np.expm1(lambdas[step] - lambdas[to])
        return np.float32(share) * latents + np.float32(growth) * towards
