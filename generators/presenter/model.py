"""The presenter's networks: a small image autoencoder and a pose-driven video diffusion transformer.

Importing this file needs torch and diffusers; nothing at run time on another engine imports it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional as F

LATENT_CHANNELS = 16
DOWNSAMPLE = 8


class Residual(nn.Module):
    """The block x + conv(silu(conv(silu(x)))), without normalisation, which prevented sharp edges."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block's output, shaped like x."""
        return x + self.second(F.silu(self.first(F.silu(x))))


@dataclass(frozen=True)
class AutoencoderSize:
    """The channels and residual blocks at a quarter and at an eighth of the picture's size."""

    fine: int = 64
    coarse: int = 128
    fine_blocks: int = 2
    coarse_blocks: int = 3


class Autoencoder(nn.Module):
    """The autoencoder: pictures (N, 3, H, W) in [-1, 1] to latents (N, 16, H/8, W/8), variance 1, and back.

    H and W are multiples of 16 (8 for the autoencoder itself, twice that for the transformer's patches).
    """

    def __init__(self, size: AutoencoderSize = AutoencoderSize()) -> None:
        super().__init__()
        self.size, fine, coarse = size, size.fine, size.coarse
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, fine, 3, padding=1),
            *[Residual(fine) for _ in range(size.fine_blocks)],
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * fine, coarse, 1),
            *[Residual(coarse) for _ in range(size.coarse_blocks)],
            nn.Conv2d(coarse, LATENT_CHANNELS, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(LATENT_CHANNELS, coarse, 3, padding=1),
            *[Residual(coarse) for _ in range(size.coarse_blocks)],
            nn.Conv2d(coarse, 4 * fine, 1),
            nn.PixelShuffle(2),
            *[Residual(fine) for _ in range(size.fine_blocks + 1)],
            nn.Conv2d(fine, 48, 3, padding=1),
            nn.PixelShuffle(4),
        )
        self.register_buffer("mean", torch.zeros(1, LATENT_CHANNELS, 1, 1))
        self.register_buffer("std", torch.ones(1, LATENT_CHANNELS, 1, 1))

    def encode(self, pictures: Tensor) -> Tensor:
        """Encode pictures (N, 3, H, W) to latents (N, 16, H/8, W/8)."""
        return (self.encoder(pictures) - self.mean) / self.std

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents to pictures (N, 3, H, W), not clamped."""
        return self.decoder(latents * self.std + self.mean)


def to_input(pixels: Tensor) -> Tensor:
    """Scale pixels (N, H, W, 3) uint8 to the autoencoder's (N, 3, H, W) float32 in [-1, 1]."""
    # Cast first: TensorRT takes uint8 at the borders of a graph, but moves none.
    return pixels.to(torch.float32).permute(0, 3, 1, 2) / 127.5 - 1.0


class Encode(nn.Module):
    """Component `encode`: pixels (N, H, W, 3) uint8 to latents (N, 16, H/8, W/8) float32."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode pixels to latents."""
        return self.autoencoder.encode(to_input(pixels))


class Decode(nn.Module):
    """Component `decode`: latents (N, 16, h, w) float32 to pixels (N, 8h, 8w, 3) uint8, rounded."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, latents: Tensor) -> Tensor:
        """Decode latents to pixels."""
        pixels = (self.autoencoder.decode(latents) + 1.0) * 127.5
        return pixels.clamp(0.0, 255.0).round().permute(0, 2, 3, 1).to(torch.uint8)


@dataclass(frozen=True)
class DenoiserSize:
    """The sizes of the transformer; the defaults are the bundled weights'."""

    heads: int = 4
    head_dim: int = 64
    layers: int = 8
    ffn: int = 768


class Denoise(nn.Module):
    """Component `denoise`: the flow (noise minus clean) of one window, for one branch.

    latents (B, 16, F, h, w) noisy at time (B,) in [0, 1]; pose (B, 16, F, h, w) skeleton latents and
    reference (B, 16, h, w), both zero in the unconditional branch, where conditional (B,) is 0 instead of 1.
    The reference goes in as a clean frame before the others, which is cut off again, and by channel beside
    every frame; text is a constant token. The network's output is added to a first guess of the flow: the
    linear one from the noisy latents (Karras et al., 2022, for flow matching), as if every frame were the
    reference plus something of unit variance. So it need carry neither the noise nor what does not move.
    """

    def __init__(self, size: DenoiserSize = DenoiserSize()) -> None:
        super().__init__()
        self.size = size
        width = size.heads * size.head_dim
        self.context = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.transformer = WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=size.heads,
            attention_head_dim=size.head_dim,
            in_channels=3 * LATENT_CHANNELS + 1,
            out_channels=LATENT_CHANNELS,
            text_dim=width,
            freq_dim=256,
            ffn_dim=size.ffn,
            num_layers=size.layers,
            cross_attn_norm=True,
            rope_max_seq_len=64,
        )

    def forward(
        self, latents: Tensor, time: Tensor, pose: Tensor, reference: Tensor, conditional: Tensor
    ) -> Tensor:
        """Compute the flow, shaped like latents."""
        batch, _, frames, h, w = latents.shape
        flag = conditional.view(batch, 1, 1, 1).expand(batch, 1, h, w)
        nothing = torch.zeros_like(reference)
        clean = torch.cat([reference, nothing, nothing, flag], 1)
        beside = reference.unsqueeze(2).expand(-1, -1, frames, -1, -1)
        noisy = torch.cat([latents, pose, beside, torch.zeros_like(latents[:, :1])], 1)
        x = torch.cat([clean.unsqueeze(2), noisy], 2)
        context = self.context.expand(batch, -1, -1)
        change = self.transformer(x, time * 1000.0, context, return_dict=False)[0][:, :, 1:]
        t = time.view(batch, 1, 1, 1, 1)
        slope = (2 * t - 1) / (t.square() + (1 - t).square())
        return change + slope * (latents - (1 - t) * beside) - beside
