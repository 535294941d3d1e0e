"""Measure base runs for techniques that are fitted to a model: real videos by torch in fp32, watched."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from engines.load import start_engines
from engines.progress import Progress
from generators.checkpoint import open_checkpoint
from generators.contract import Constants, Generator
from pipeline.batch.dataset import Request
from pipeline.caches.calibration import EMBEDDER, Calibration, embedder_names
from pipeline.recipe import BASELINE
from pipeline.request import Options, make_video
from pipeline.window_denoiser import Key, SerialDenoiser, WindowBranch

if TYPE_CHECKING:
    import torch


class BaseRuns:
    """Takes note of what a generator's denoiser does. generator: a copy, whose build is replaced."""

    def __init__(self, generator: Generator) -> None:
        self._build, generator.build = generator.build, self.build
        self.changes: dict[int, list[float]] = {}
        self.ratios: dict[int, list[float]] = {}
        self.at: tuple[int, Key] = (0, (0, True))  # step, window and branch that are being predicted
        self.residuals: dict[Key, torch.Tensor] = {}  # of the step before
        self._entered = None

    def build(self, component: str) -> torch.nn.Module:
        """Build a component as the generator does; the denoiser's first and last block are watched."""
        module = self._build(component)
        blocks = next((m.blocks for m in module.modules() if hasattr(m, "blocks")), None)
        if component == "denoise" and blocks:
            blocks[0].register_forward_pre_hook(self._enter)
            blocks[-1].register_forward_hook(self._leave)
        return module

    def result(self, generator: Generator, signals: tuple[float, ...]) -> Calibration:
        """The means so far. signals: those of the calibration, which no run changes."""
        steps = range(1, generator.scheduler.steps)
        ratios = (1.0, *(float(np.mean(self.ratios[step])) for step in steps)) if self.ratios else ()
        changes = tuple(float(np.mean(self.changes[step])) for step in steps)
        return Calibration(changes, ratios, signals)

    def _enter(self, block: torch.nn.Module, inputs: tuple) -> None:
        self._entered = inputs[0]

    def _leave(self, block: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        step, key = self.at
        residual, before = output - self._entered, self.residuals.get(key)
        if before is not None:
            ratio = residual.norm(dim=-1) / before.norm(dim=-1).clamp_min(1e-8)
            self.ratios.setdefault(step, []).append(float(ratio.mean()))
        self.residuals[key] = residual


class WatchedDenoiser(SerialDenoiser):
    """Evaluates as the base model does, and notes how predictions change from step to step.

    clip: as SerialDenoiser takes it.
    """

    def __init__(self, runs: BaseRuns, *clip: object) -> None:
        super().__init__(*clip)
        self._runs, self._kept = runs, {}
        runs.residuals = {}

    def evaluate(
        self, branch: WindowBranch, window: np.ndarray, step: int, constants: Constants
    ) -> np.ndarray:
        """Predict one branch of a window."""
        key = branch.key
        self._runs.at = step, key
        found = super().evaluate(branch, window, step, constants)
        if key in self._kept:
            self._runs.changes.setdefault(step, []).append(relative_change(found, self._kept[key]))
        self._kept[key] = found
        return found


def calibrate(
    generator: Generator, requests: Sequence[Request], device: str, say: Callable[[str], None]
) -> Calibration:
    """Make base runs of these requests by torch in fp32, and measure them. EngineError."""
    signals = signal_changes(generator)  # first: what is wrong with the weights is found before the runs
    generator = copy.copy(generator)
    runs = BaseRuns(generator)
    _, engines = start_engines(generator, BASELINE.choice(generator, device), say)
    options = Options(open_denoiser=partial(WatchedDenoiser, runs))
    try:
        with TemporaryDirectory() as folder:
            for request in requests:
                make_video(request, Path(folder) / "video.mp4", generator, engines,
                           lambda total: Progress("base run", total), options)  # fmt: skip
    finally:
        for engine in engines.values():
            engine.close()
    return runs.result(generator, signals)


def relative_change(new: np.ndarray, old: np.ndarray) -> float:
    """Mean absolute change, relative to the old one's mean magnitude (TeaCache's relative L1 distance)."""
    return float(np.abs(new - old).mean() / max(float(np.abs(old).mean()), np.finfo(np.float32).tiny))


def signal_changes(generator: Generator) -> tuple[float, ...]:
    """For each step but the first, the relative change of what a Wan network makes of the time; else ()."""
    weights = embedder_weights(generator)
    if not weights:
        return ()
    signals = time_signals(weights, generator.scheduler.times[:-1] * 1000)
    return tuple(relative_change(new, old) for old, new in zip(signals, signals[1:], strict=False))


def time_signals(weights: dict[str, np.ndarray], times: np.ndarray) -> np.ndarray:
    """(steps, 6 width) what Wan's network makes of times: sinusoids, two layers, a projection."""
    half = weights["time_embedder.linear_1.weight"].shape[1] // 2
    angles = times[:, None] * np.exp(-np.log(10_000) * np.arange(half) / half)
    x = np.concatenate([np.cos(angles), np.sin(angles)], 1)
    for layer in ("time_embedder.linear_1", "time_embedder.linear_2", "time_proj"):
        if layer != "time_embedder.linear_1":
            x = x / (1 + np.exp(-x))  # SiLU
        x = x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
    return x


def embedder_weights(generator: Generator) -> dict[str, np.ndarray]:
    """The weights of a Wan network's time embedder, by what follows EMBEDDER in their names; else none."""
    return {
        name.partition(EMBEDDER)[2]: tensor.double().numpy()
        for path, names in embedder_names(generator).items()
        for name, tensor in open_checkpoint(path).tensors(names).items()
    }
