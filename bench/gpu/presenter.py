"""The bundled generator: its denoiser as a network to measure, and a small one for a rehearsal."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import nn

from bench.gpu.filled import filled
from bench.gpu.subjects import Subject
from generators.presenter.files import AUTOENCODER_FILE, DENOISER_FILE
from generators.presenter.generator import Presenter
from generators.presenter.load import save_weights
from generators.presenter.model import Autoencoder, AutoencoderSize, Denoise, DenoiserSize

SIZES = {"full": DenoiserSize(), "tiny": DenoiserSize(1, 24, 1, 32)}


class Small(Presenter):
    """The presenter's own classes with small random weights, for 32x48 pixels."""

    name = "small"
    size = (32, 48)

    def __init__(self, folder: Path) -> None:
        if not (folder / DENOISER_FILE).is_file():
            torch.manual_seed(0)
            save_weights(Autoencoder(AutoencoderSize(8, 8, 1, 1)), folder / AUTOENCODER_FILE)
            save_weights(Denoise(SIZES["tiny"]), folder / DENOISER_FILE)
        super().__init__(folder)


def denoiser(size: str, frames: int) -> Subject:
    """A step of its only window."""
    generator = Presenter()
    calls = f"{2 * generator.grid.steps} a window: two branches at {generator.grid.steps} steps"
    spec = generator.components["denoise"]
    return Subject(spec, partial(_denoiser, size), calls, {"b": 1}, same_dtype=True)


def _denoiser(size: str, device: str, dtype: torch.dtype) -> nn.Module:
    return filled(lambda: Denoise(SIZES[size]), device, dtype)
