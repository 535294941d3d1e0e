"""Sampling grids: the times at which the base model evaluates its denoiser, and how it moves between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from engines.errors import UsageError

# Gives unit noise like a clip's latents for a step: the same whatever steps are taken, and in what windows.
Draw = Callable[[int], np.ndarray]


class Solver(Protocol):
    """The steps of one request along a grid; a solver may keep what it needs of the steps before.

    One that cannot go over several steps at once, as on a coarser grid, has advance(latents, prediction,
    step) in place of leap; where steps are skipped it advances step by step, with the same prediction. It
    must not hold on to latents that it gave if others come back: they may have been corrected.
    """

    def leap(self, latents: np.ndarray, prediction: np.ndarray, step: int, to: int) -> np.ndarray:
        """Compute latents at a later step from those at step and the guided prediction there."""
        ...


class Scheduler(Protocol):
    """A grid as the sampling loop sees it; times are in the unit of the generator's own denoise.

    One whose latents are not of about unit variance at every time may have gains, as KarrasEuler has. One
    that adds noise at its steps says stochastic = True; its solver() takes the Draw that gives this noise.
    """

    steps: int

    @property
    def times(self) -> np.ndarray:
        """(steps + 1,) float32: where the denoiser is evaluated, and the end."""
        ...

    def solver(self) -> Solver:
        """Make a solver for a new request."""
        ...


def bfloat16(array: np.ndarray) -> np.ndarray:
    """Round float32 numbers to the nearest of 8 significant bits (Veltkamp's way: three operations)."""
    spread = array * np.float32(65537)
    return spread - (spread - array)


def open_solver(scheduler: Scheduler, draw: Draw | None = None) -> Solver:
    """Make a solver for a new request; UsageError: it needs noise, and none can be drawn."""
    if not getattr(scheduler, "stochastic", False):
        return scheduler.solver()
    if draw is None:
        raise UsageError(
            f"{type(scheduler).__name__} adds noise at its steps, and step plans are fitted to runs without: "
            "tune with --technique, or with a scheduler that adds none (eta=0)"
        )
    return scheduler.solver(draw)


def leap(solver: Solver, latents: np.ndarray, prediction: np.ndarray, step: int, to: int) -> np.ndarray:
    """Move latents to a later step by one prediction: at once if the solver can, else step by step."""
    if hasattr(solver, "leap"):
        return solver.leap(latents, prediction, step, to)
    for each in range(step, to):
        latents = solver.advance(latents, prediction, each)
    return latents


@dataclass(frozen=True)
class FlowMatchEuler:
    """Flow matching by Euler steps from noise (time 1) to clean (time 0), as Wan samples.

    shift > 1 spends more of the steps near the noise: t = shift * u / (1 + (shift - 1) * u) for even u.
    least: the time in training at the last step, if the published grid does not go on evenly to 0 there:
    diffusers has 0.001; shifted it is the last u. half: the base model keeps latents, and what it adds to
    them, in bfloat16; half_times: times as its network sees them too, in thousandths, which moves these by up
    to 0.002.
    """

    steps: int
    shift: float = 1.0
    least: float = 0.0
    half: bool = False
    half_times: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.shift <= 0:
            raise ValueError(f"a grid needs steps >= 1 and shift > 0, got {self.steps} and {self.shift}")

    @property
    def times(self) -> np.ndarray:
        """(steps + 1,) float32, falling from 1 to 0; the denoiser is evaluated at all but the last."""
        return bfloat16(self.sigmas * np.float32(1000)) / np.float32(1000) if self.half_times else self.sigmas

    @cached_property
    def sigmas(self) -> np.ndarray:
        """(steps + 1,) float32: shares of noise in the latents."""
        u = np.linspace(1.0, 0.0, self.steps + 1)
        if self.least:
            u[:-1] = np.linspace(1.0, self._shifted(self.least), self.steps)
        return self._shifted(u).astype(np.float32)

    def _shifted(self, u: float | np.ndarray) -> float | np.ndarray:
        return self.shift * u / (1 + (self.shift - 1) * u)

    def solver(self) -> FlowMatchEuler:
        """Return the grid itself: a step needs nothing of those before."""
        return self

    def leap(self, latents: np.ndarray, flow: np.ndarray, step: int, to: int) -> np.ndarray:
        """Compute latents at a later step by the flow (noise minus clean) at step."""
        return self.stored(latents + self.stored((self.sigmas[to] - self.sigmas[step]) * flow))

    def stored(self, latents: np.ndarray) -> np.ndarray:
        """Round latents as the base model stores them, and return float32."""
        return bfloat16(latents) if self.half else latents


@dataclass(frozen=True)
class KarrasEuler:
    """Euler steps on the sigmas of Karras et al. (2022) for a model that predicts v: Stable Video Diffusion.

    Latents at a step are clean ones plus sigma times noise. half: the base model keeps times and latents in
    half precision between steps, so at the first sigma of 700 latents are rounded to halves.
    """

    steps: int
    least: float = 0.002
    most: float = 700.0
    rho: float = 7.0
    half: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.least < self.most:
            raise ValueError(
                f"a grid needs steps >= 1 and 0 < least < most, got {self.steps}, {self.least}, {self.most}"
            )

    @cached_property
    def sigmas(self) -> np.ndarray:
        """(steps + 1,) float32, from most to least, then 0."""
        most, least = self.most ** (1 / self.rho), self.least ** (1 / self.rho)
        sigmas = (most + np.linspace(0, 1, self.steps) * (least - most)) ** self.rho
        return np.append(sigmas, 0).astype(np.float32)

    @cached_property
    def times(self) -> np.ndarray:
        """(steps + 1,) float32: a quarter of the sigmas' logarithms, as the network sees them."""
        return np.append(self.stored(np.float32(0.25) * np.log(self.sigmas[:-1])), np.float32(-np.inf))

    @property
    def gains(self) -> np.ndarray:
        """(steps + 1,): what a squared error of 1 in the latents of a step comes to at the end, about.

        Of latents of unit variance, about which no more is known: their paths go as sqrt(1 + sigma^2).
        """
        return 1 / (1 + self.sigmas.astype(np.float64) ** 2)

    def begin(self, noise: np.ndarray) -> np.ndarray:
        """Scale unit noise to the latents to begin with."""
        return self.stored(self.stored(noise) * np.sqrt(self.sigmas[0] ** 2 + 1))

    def scaled(self, latents: np.ndarray, step: int) -> np.ndarray:
        """Scale latents of that step to unit variance, as the network sees them."""
        return self.stored(latents / np.sqrt(self.sigmas[step] ** 2 + 1))

    def solver(self) -> KarrasEuler:
        """Return the grid itself: a step needs nothing of those before."""
        return self

    def leap(self, latents: np.ndarray, v: np.ndarray, step: int, to: int) -> np.ndarray:
        """Compute latents at a later step by the guided v at step."""
        sigma, following = self.sigmas[step], self.sigmas[to]
        clean = v * (-sigma / np.sqrt(sigma**2 + 1)) + latents / (sigma**2 + 1)
        return self.stored(latents + (latents - clean) / sigma * (following - sigma))

    def stored(self, array: np.ndarray) -> np.ndarray:
        """Round the array as the base model stores it, and return float32."""
        return array.astype(np.float16 if self.half else np.float32).astype(np.float32)


@dataclass(frozen=True)
class UniPcMultistep:
    """UniPC, a multistep solver with a corrector, for flow matching, as diffusers samples Wan with it.

    Zhao et al., 2023, "UniPC: A Unified Predictor-Corrector Framework", its B2 variant of order 2, predicting
    the clean latents. shift means the same as in FlowMatchEuler; first, last: shares of noise, before
    it, between which the grid is even. Wan's own code has 0.999 and 0.
    """

    steps: int
    shift: float = 1.0
    first: float = 1.0
    last: float = 1e-3

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
        u = np.linspace(float(np.float32(self.first)), self.last, self.steps + 1)[:-1]
        sigmas = self.shift * u / (1 + (self.shift - 1) * u)
        sigmas[0] = min(sigmas[0], 1 - 1e-6)  # a logarithm of what is left is taken
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

    def leap(self, latents: np.ndarray, flow: np.ndarray, step: int, to: int) -> np.ndarray:
        """Compute latents at a later step by the flow at step; the steps before count by their lengths.

        Latents that are not those it has predicted for this step were corrected by others already.
        """
        clean = latents - np.float32(self._sigmas[step]) * flow
        if self._known and (latents is self._landed or np.array_equal(latents, self._landed)):
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
