"""The grids of models trained to remove noise in a thousand small steps: DDIM, DPM-Solver++ 2M, Euler.

Song et al., 2021, "Denoising Diffusion Implicit Models"; Lu et al., 2022, "DPM-Solver++"; Karras et al.,
2022; Lin et al., 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed" (zero terminal signal
to noise). As diffusers has them, without clipping or thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from generators.samplers import Draw

TRAINED = 1000  # steps that the models were trained on
PREDICTIONS, BETAS = ("epsilon", "v"), ("scaled_linear", "linear")
SPACINGS = ("leading", "trailing", "linspace")
NEAR_ZERO = 2.0**-24  # the share of signal in place of none, where its logarithm or inverse is taken


@dataclass(frozen=True)
class Diffusion:
    """The base of grids over trained steps; names are those of diffusers' configuration files, shortened.

    prediction: of the noise ("epsilon") or of v. spacing: "leading" counts from the first trained step, plus
    offset; "trailing" from the last; "linspace" goes from one to the other. betas: how noise grows from least
    to most in training. zero_snr: rescaled so that nothing of the picture is left at the last. Latents at a
    step are signal times clean ones plus noise, the squares of both adding up to 1, if nothing else is said.
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
            # Cut off: by rounding this range has a place too many for 62 numbers of steps, as 61 and 103.
            even = np.arange(TRAINED, 0, -TRAINED / self.steps)[: self.steps]
            return np.round(even).astype(int) - 1
        if self.spacing == "linspace":
            even = np.linspace(0, TRAINED - 1, self.steps + self._left_out)
            return np.round(even).astype(int)[::-1][: self.steps]
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
        stored = self.stored
        if self.prediction == "v":
            return stored(stored(signal * latents) - stored(noise * prediction))
        return stored(stored(latents - stored(noise * prediction)) / signal)

    def stored(self, array: np.ndarray) -> np.ndarray:
        """Round the array as the base model stores it, and return float32."""
        return array


class FreshNoise:
    """What grids have in common whose steps can add noise: eta, its share, from none to all (1)."""

    eta: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta is the share of fresh noise, from 0 to 1, got {self.eta}")

    @property
    def stochastic(self) -> bool:
        """Whether noise is added at the steps."""
        return self.eta > 0


@dataclass(frozen=True)
class DdimScheduler(FreshNoise, Diffusion):
    """DDIM: the clean latents and the noise that are predicted, mixed anew.

    to_one: the last step leads to clean latents, else to the first trained step (diffusers'
    set_alpha_to_one). eta: the share of fresh noise, from none to that of DDPM (1). half: the base model
    keeps latents, predictions and what it adds up in half precision, if eta is 0.
    """

    to_one: bool = True
    eta: float = 0.0
    half: bool = False

    def solver(self, draw: Draw | None = None) -> DdimScheduler | FixedClean:
        """Return the grid itself, for a step needs nothing of those before; or what adds noise to it."""
        return FixedClean(self, draw) if self.stochastic else self

    def split(self, latents: np.ndarray, prediction: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Split latents into the predicted clean ones and the rest, which is noise."""
        clean = self.clean(latents, prediction, self.kept[step])
        return clean, latents - np.float32(self.kept[step] ** 0.5) * clean

    def spread(self, step: int) -> tuple[float, float]:
        """Compute by what the noise of a step's latents is multiplied for the next, and how much is added."""
        kept, then = self.kept[step], self._landing(step + 1)
        added = self.eta * ((1 - then) / (1 - kept) * (1 - kept / then)) ** 0.5
        return (max(1 - then - added**2, 0.0) / (1 - kept)) ** 0.5, added  # less than none by rounding

    def signal(self, to: int) -> float:
        """Return the clean latents' factor where the step before `to` ends."""
        return self._landing(to) ** 0.5

    def leap(self, latents: np.ndarray, prediction: np.ndarray, step: int, to: int) -> np.ndarray:
        """Compute latents at a later step at once."""
        kept, then = self.kept[step], self._landing(to)
        stored = self.stored
        prediction = of_noise = stored(prediction)
        clean = self.clean(latents, prediction, kept)
        if self.prediction == "v":
            signal, noise = np.float32(kept**0.5), np.float32((1 - kept) ** 0.5)
            of_noise = stored(stored(signal * prediction) + stored(noise * latents))
        signal, noise = np.float32(then**0.5), np.float32((1 - then) ** 0.5)
        return stored(stored(signal * clean) + stored(noise * of_noise))

    def stored(self, array: np.ndarray) -> np.ndarray:
        """Round the array as the base model stores it, and return float32."""
        return array.astype(np.float16).astype(np.float32) if self.half else array

    def _landing(self, to: int) -> float:
        """Return the share kept where the step before `to` ends, whole trained steps further on."""
        place = self._places[to - 1] - TRAINED // self.steps
        return self._trained[place] if place >= 0 else 1.0 if self.to_one else self._trained[0]


class FixedClean:
    """A solver that keeps the predicted clean latents over a leap, and adds the noise of every step in it.

    So a leap ends with the noise that the steps left out would have added, and as much of it.
    """

    def __init__(self, grid: DdimScheduler | EulerScheduler, draw: Draw | None = None) -> None:
        self._grid, self._draw = grid, draw

    def leap(self, latents: np.ndarray, prediction: np.ndarray, step: int, to: int) -> np.ndarray:
        """Compute latents at a later step at once."""
        clean, noise = self._grid.split(latents, prediction, step)
        for each in range(step, to):
            kept, added = self._grid.spread(each)
            noise = np.float32(kept) * noise
            if added:
                noise = noise + np.float32(added) * self._draw(each)
        return np.float32(self._grid.signal(to)) * clean + noise


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


@dataclass(frozen=True)
class EulerScheduler(FreshNoise, Diffusion):
    """Euler steps on the sigmas of a model trained in a thousand steps; with eta 1 the ancestral sampler.

    Latents at a step are clean ones plus sigma times noise: begin() scales the noise for that, and the
    network sees scaled() latents. eta: the share of fresh noise.
    """

    spacing: str = "linspace"
    eta: float = 0.0

    @cached_property
    def _trained(self) -> np.ndarray:
        return np.maximum(super()._trained, NEAR_ZERO)

    @property
    def _exact(self) -> np.ndarray:
        """(steps,) float32 trained steps, between two of them where they are even."""
        even = np.linspace(0, TRAINED - 1, self.steps)[::-1]
        return (even if self.spacing == "linspace" else self._places).astype(np.float32)

    @cached_property
    def times(self) -> np.ndarray:
        """(steps + 1,) float32: the trained steps at which the denoiser is evaluated, then -1."""
        return np.append(self._exact, np.float32(-1))

    @cached_property
    def sigmas(self) -> np.ndarray:
        """(steps + 1,) float32 of noise at each step, then 0."""
        trained = ((1 - self._trained) / self._trained) ** 0.5
        return np.append(np.interp(self._exact, np.arange(TRAINED), trained), 0).astype(np.float32)

    @property
    def gains(self) -> np.ndarray:
        """(steps + 1,): what a squared error of 1 at a step comes to at the end; see KarrasEuler."""
        return 1 / (1 + self.sigmas.astype(np.float64) ** 2)

    def begin(self, noise: np.ndarray) -> np.ndarray:
        """Scale unit noise to the latents to begin with."""
        most = self.sigmas.max()
        return noise * (np.sqrt(most**2 + 1) if self.spacing == "leading" else most)

    def scaled(self, latents: np.ndarray, step: int) -> np.ndarray:
        """Scale latents of that step to unit variance, as the network sees them."""
        return latents / np.sqrt(self.sigmas[step] ** 2 + 1)

    def solver(self, draw: Draw | None = None) -> FixedClean:
        """Make a solver for a new request."""
        return FixedClean(self, draw)

    def split(self, latents: np.ndarray, prediction: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Split latents into the predicted clean ones and the rest, which is noise."""
        sigma = self.sigmas[step]
        if self.prediction == "epsilon":
            return latents - sigma * prediction, sigma * prediction
        clean = prediction * (-sigma / np.sqrt(sigma**2 + 1)) + latents / (sigma**2 + 1)
        return clean, latents - clean

    def spread(self, step: int) -> tuple[float, float]:
        """Compute by what the noise of a step's latents is multiplied for the next, and how much is added."""
        sigma, then = self.sigmas[step : step + 2].astype(np.float64)
        added = min(then, self.eta * (then**2 * (sigma**2 - then**2) / sigma**2) ** 0.5)
        return (then**2 - added**2) ** 0.5 / sigma, added

    def signal(self, to: int) -> float:
        """Return the clean latents' factor, which is 1 everywhere."""
        return 1.0
