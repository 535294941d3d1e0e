"""The presenter as models of other kinds: the same network, latents rescaled, time counted otherwise.

A flow from clean latents to noise, x = (1 - t) clean + t noise, is a model of noise that keeps a share a of
the signal and s of the noise, with t = s / (a + s) and latents a + s times as large; what it predicts follows
from the flow without an approximation. So each of these is a trained model with a scheduler of its own:

  python tune.py --generator lab/kinds/models.py:Ddim --out ddim.toml
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engines.spec import Engine
from generators.contract import Constants
from generators.diffusion_grids import DdimScheduler, DpmSolverMultistep
from generators.presenter.generator import Presenter
from generators.samplers import KarrasEuler, UniPcMultistep


class OtherKind(Presenter):
    """The base class of all these kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.fingerprint_files = (*self.fingerprint_files, Path(__file__))


class Noising(OtherKind):
    """A model of v (Salimans and Ho, 2022) whose squared shares add up to 1."""

    def shares(self, step: int) -> tuple[float, float]:
        """Return the shares of signal and of noise in the latents of a step."""
        kept = float(self.scheduler.kept[step])
        return kept**0.5, (1 - kept) ** 0.5

    def unit(self, latents: np.ndarray, step: int) -> np.ndarray:
        """Return the latents of a step at unit variance."""
        return latents

    def denoise(
        self, engine: Engine, latents: np.ndarray, step: int, constants: Constants, conditional: bool
    ) -> np.ndarray:
        """Return v of one window: a times the noise minus s times the clean latents."""
        a, s = self.shares(step)
        x = self.unit(latents, step)
        time = np.array([s / (a + s)], np.float32)
        flow = self.flow(engine, x / np.float32(a + s), time, constants, conditional)
        return (np.float32(a - s) * x + flow) / np.float32(a + s)


class Ddim(Noising):
    """A kind sampled as reference-net models are: v, zero terminal signal to noise, 20 DDIM steps, guidance
    3.5.
    """

    name = "presenter-ddim"
    scheduler = DdimScheduler(20, "v", "trailing", betas="linear", zero_snr=True)
    guidance = 3.5


class Dpm(Noising):
    """The same kind as Ddim, sampled by DPM-Solver++ 2M."""

    name = "presenter-dpm"
    scheduler = DpmSolverMultistep(20, "v", "trailing", betas="linear", zero_snr=True)
    guidance = 2.5


class Karras(Noising):
    """A kind sampled as Stable Video Diffusion is: Euler steps over sigmas from 700, 25 of them."""

    name = "presenter-karras"
    scheduler = KarrasEuler(25, half=False)
    guidance = 2.0

    def shares(self, step: int) -> tuple[float, float]:
        """Return the shares of signal and of noise in latents of unit variance."""
        sigma = float(self.scheduler.sigmas[step])
        return 1 / (1 + sigma**2) ** 0.5, sigma / (1 + sigma**2) ** 0.5

    def unit(self, latents: np.ndarray, step: int) -> np.ndarray:
        """Return the latents of a step at unit variance."""
        return self.scheduler.scaled(latents, step)

    def noise(self, frames: int, seed: int) -> np.ndarray:
        """Return noise at the first sigma."""
        return self.scheduler.begin(super().noise(frames, seed))


class UniPc(OtherKind):
    """A kind sampled as diffusers samples Wan: flow matching by UniPC, 20 steps, shift 5."""

    name = "presenter-unipc"
    scheduler = UniPcMultistep(20, 5.0)
    guidance = 2.5
