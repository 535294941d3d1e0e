"""Wan2.1-Fun-V1.1-1.3B-Control with random weights: its denoiser and the decoder of its autoencoder."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from bench.gpu.filled import filled
from bench.gpu.subjects import Subject
from generators.wan import denoise, load, vae
from generators.wan.fun_control import FunControl
from generators.wan.sizes import TransformerSize, VaeSize

# The published transformer/config.json; and the least that has each of its parts.
SIZES = {
    "full": TransformerSize(num_attention_heads=12, in_channels=48, ffn_dim=8960, num_layers=30),
    "tiny": TransformerSize(
        num_attention_heads=2, attention_head_dim=16, in_channels=48, text_dim=16, freq_dim=16, ffn_dim=48,
        num_layers=2, image_dim=32,
    ),
}  # fmt: skip
VAES = {"full": VaeSize(), "tiny": VaeSize(base_dim=16, dim_mult=(1, 2, 2, 2), num_res_blocks=1)}
PROMPT = 512  # tokens, of which most are padding; the network sees all


def denoiser(size: str, frames: int) -> Subject:
    """A step of a window of that many frames of the video."""
    generator = _generator(size, frames)
    calls = f"{2 * generator.grid.steps} a window: two branches at {generator.grid.steps} steps"
    spec = generator.components["denoise"]
    return Subject(spec, partial(_denoiser, generator), calls, plain=partial(_plain, generator))


def decoder(size: str, frames: int) -> Subject:
    """Four frames from a latent one, but the first, whose graph is another."""
    generator = _generator(size, frames)
    calls = f"{(frames - 1) // 4} for {frames} frames, beside a smaller one for the first"
    spec = generator.components["decode_next"]
    return Subject(spec, partial(_decoder, generator), calls, same_dtype=True)


def _denoiser(generator: FunControl, device: str, dtype: torch.dtype) -> nn.Module:
    network = filled(lambda: load.fun_control_network(generator.network), device, dtype)
    prompts = torch.randn(2, PROMPT, generator.network.text_dim, device=device)
    return denoise.FunControl(network, prompts).eval()


def _decoder(generator: FunControl, device: str, dtype: torch.dtype) -> nn.Module:
    network = filled(lambda: vae.autoencoder(generator.vae), device, dtype)
    caches = generator.vae.decoder_caches(*generator.latent_size)
    return vae.Decode(network, caches, generator.truncate).to(device, dtype).eval()


def _plain(generator: FunControl, device: str, dtype: torch.dtype) -> tuple[nn.Module, dict[str, Tensor]]:
    """As VideoX-Fun runs it: text and picture go through their projections at every call."""
    size, (height, width) = generator.network, generator.latent_size
    frames = generator.settings.length + 1  # the picture is a frame of tokens
    random = partial(torch.randn, device=device, dtype=dtype)
    return filled(lambda: denoise.transformer(size), device, dtype), {
        "hidden_states": random(1, size.in_channels, frames, height, width),
        "timestep": torch.full((1,), 500, device=device),
        "encoder_hidden_states": random(1, PROMPT, size.text_dim),
        "encoder_hidden_states_image": random(1, generator.clip.tokens, size.image_dim),
    }


def _generator(size: str, frames: int) -> FunControl:
    """That of a folder which has everything but weights."""
    width, height, frames = (832, 480, frames) if size == "full" else (48, 32, 5)
    with TemporaryDirectory() as name:
        folder = Path(name)
        for part, config in (("transformer", SIZES[size]), ("vae", VAES[size])):
            (folder / part).mkdir()
            (folder / part / "config.json").write_text(json.dumps(asdict(config)))
        settings = f"width = {width}\nheight = {height}\nframes = {frames}\noverlap = 1\n"
        (folder / "vivace.toml").write_text(settings)
        return FunControl(folder)
