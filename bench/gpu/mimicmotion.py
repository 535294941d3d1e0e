"""MimicMotion with random weights: its U-Net without what is constant, and the temporal decoder."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from torch import Tensor, nn

from bench.gpu.filled import filled
from bench.gpu.subjects import Subject
from generators.mimicmotion.files import HALVES, Settings
from generators.mimicmotion.generator import MimicMotion
from generators.mimicmotion.random_weights import CONFIGS
from generators.mimicmotion.unet import Denoise
from generators.mimicmotion.vae import Decode


def denoiser(size: str, frames: int) -> Subject:
    """A step of a window of that many frames, for one branch."""
    frames = frames if size == "full" else 3
    generator = _generator(size, frames)
    calls = f"{2 * generator.grid.steps} a window: two branches at {generator.grid.steps} steps"
    spec, sizes = generator.components["denoise"], {"b": 1, "f": frames}
    plain = partial(_plain, size, spec.outputs[0].dims[3:], frames)
    return Subject(spec, partial(_denoiser, size, frames), calls, sizes, plain)


def decoder(size: str, frames: int) -> Subject:
    """A chunk of frames."""
    generator = _generator(size, frames)
    chunk = generator.chunk if size == "full" else 2
    spec = generator.components["decode"]
    return Subject(spec, partial(_decoder, size), f"one for each {chunk} frames", {"n": chunk})


def _denoiser(size: str, frames: int, device: str, dtype: torch.dtype) -> nn.Module:
    return Denoise(_unet(size, device, dtype), frames).to(device, dtype).eval()


def _decoder(size: str, device: str, dtype: torch.dtype) -> nn.Module:
    vae = filled(lambda: AutoencoderKLTemporalDecoder.from_config(CONFIGS[size]["vae"]), device, dtype)
    return Decode(vae).to(device).eval()


def _plain(
    size: str, latent_size: tuple[int, int], frames: int, device: str, dtype: torch.dtype
) -> tuple[nn.Module, dict[str, Tensor]]:
    """As upstream's pipeline runs it; without the pose network, which it runs beside it at every call."""
    unet = _unet(size, device, dtype)
    random = partial(torch.randn, device=device, dtype=dtype)
    return unet, {
        "sample": random(1, frames, 8, *latent_size),
        "timestep": torch.ones(1, device=device, dtype=dtype),
        "encoder_hidden_states": random(1, 1, unet.config.cross_attention_dim),
        "added_time_ids": torch.ones(1, 3, device=device, dtype=dtype),
    }


def _unet(size: str, device: str, dtype: torch.dtype) -> UNetSpatioTemporalConditionModel:
    return filled(lambda: UNetSpatioTemporalConditionModel.from_config(CONFIGS[size]["unet"]), device, dtype)


def _generator(size: str, frames: int) -> MimicMotion:
    """That of a folder which has everything but weights."""
    width, height = (576, 1024) if size == "full" else (64, 64)
    with TemporaryDirectory() as name:
        folder = Path(name)
        for part, config in CONFIGS[size].items():
            (folder / part).mkdir()
            (folder / part / "config.json").write_text(json.dumps(config))
        for file in (Settings.checkpoint, *(f"{part}/{file}" for part, file in HALVES.items())):
            (folder / file).touch()
        settings = f"width = {width}\nheight = {height}\ntile = {frames}\noverlap = 1\n"
        (folder / "vivace.toml").write_text(settings)
        return MimicMotion(folder)
