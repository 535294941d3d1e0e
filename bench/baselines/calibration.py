"""What rivals that are fitted to a model need to know of its base runs, measured and kept in a file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.baselines.errors import RivalError
from bench.baselines.wrapped import Wrapped
from engines.artifact import built_folder, fingerprint
from engines.files import atomic_write
from engines.spec import Engine
from generators.contract import Constants, Generator

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Calibration:
    """Of the base model's steps but the first, means over windows, branches and videos.

    changes: mean absolute change of the prediction since the step before, relative to that one's mean
    magnitude. ratios: of the residual's length over all blocks, to that at the step before, mean over tokens;
    the first step has 1. Empty if the network has no list of blocks.
    """

    changes: tuple[float, ...]
    ratios: tuple[float, ...]


class Observed(Wrapped):
    """Samples as the inner generator does, and takes note; its denoiser must run by torch for the ratios."""

    def __init__(self, inner: Generator) -> None:
        super().__init__(inner)
        self.changes: dict[int, list[float]] = {}
        self.ratios: dict[int, list[float]] = {}
        self._entered = None

    def build(self, component: str) -> torch.nn.Module:
        """The inner generator's; the denoiser's first and last block are watched."""
        module = self._inner.build(component)
        blocks = next((m.blocks for m in module.modules() if hasattr(m, "blocks")), None)
        if component == "denoise" and blocks:
            blocks[0].register_forward_pre_hook(self._enter)
            blocks[-1].register_forward_hook(self._leave)
        return module

    def predict(
        self, engine: Engine, latents: np.ndarray, step: int, constants: Constants, conditional: bool
    ) -> np.ndarray:
        """The inner generator's."""
        found = super().predict(engine, latents, step, constants, conditional)
        if self.key in self.kept:
            before = self.kept[self.key]
            self.changes.setdefault(step, []).append(relative_change(found, before))
        self.kept[self.key] = found
        return found

    def forget(self) -> None:
        """The residuals of the request before."""
        self._residuals: dict[tuple[int, bool], torch.Tensor] = {}

    def result(self) -> Calibration:
        """The means so far."""
        steps = range(1, self.scheduler.steps)
        ratios = (1.0, *(float(np.mean(self.ratios[step])) for step in steps)) if self.ratios else ()
        return Calibration(tuple(float(np.mean(self.changes[step])) for step in steps), ratios)

    def _enter(self, block: torch.nn.Module, inputs: tuple) -> None:
        self._entered = inputs[0]

    def _leave(self, block: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        residual, before = output - self._entered, self._residuals.get(self.key)
        if before is not None:
            ratio = residual.norm(dim=-1) / before.norm(dim=-1).clamp_min(1e-8)
            self.ratios.setdefault(self._step, []).append(float(ratio.mean()))
        self._residuals[self.key] = residual


def relative_change(new: np.ndarray, old: np.ndarray) -> float:
    """Mean absolute change, relative to the old one's mean magnitude (TeaCache's relative L1 distance)."""
    return float(np.abs(new - old).mean() / max(float(np.abs(old).mean()), np.finfo(np.float32).tiny))


def calibration_file(generator: Generator) -> Path:
    """Where the calibration of these weights lies, beside the generator's artifacts."""
    return (
        built_folder(generator.name)
        / f"rivals-{(fingerprint(generator.fingerprint_files) or 'unknown')[:8]}.json"
    )


def save_calibration(calibration: Calibration, path: Path, data: Iterable[str]) -> None:
    """Write it whole or not at all. data: the requests that it is from."""
    with atomic_write(path) as draft:
        draft.write_text(json.dumps({"requests": list(data), **asdict(calibration)}, indent=1) + "\n")


def load_calibration(path: Path) -> Calibration:
    """From a file; RivalError if it is not there, or another thing."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Calibration(tuple(map(float, found["changes"])), tuple(map(float, found["ratios"])))
    except OSError as error:
        raise RivalError(f"no calibration at {path}; run: python -m bench.baselines calibrate") from error
    except (ValueError, LookupError, TypeError) as error:
        raise RivalError(f"{path} is no calibration; delete it and calibrate again") from error
