"""The layers of a U-Net of Stable Diffusion 1.5 for the frames of one window, and AnimateDiff's modules.

Each function takes a module for its weights. The frames of the window are the batch, (F, C, h, w).
"""

from __future__ import annotations

import math

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from generators.unet.parts import attend

HEADS, GROUPS = 8, 32  # of attention along the frames, and of the norm before it, whatever the U-Net has


class MotionModule(nn.Module):
    """Attention of each place along the frames, twice, named as in the published motion_module.pth."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.temporal_transformer = nn.Module()
        inner, block = self.temporal_transformer, nn.Module()
        inner.norm = nn.GroupNorm(GROUPS, channels, eps=1e-6)
        inner.proj_in, inner.proj_out = nn.Linear(channels, channels), nn.Linear(channels, channels)
        inner.transformer_blocks = nn.ModuleList([block])
        block.attention_blocks = nn.ModuleList(
            Attention(channels, heads=HEADS, dim_head=channels // HEADS) for _ in range(2)
        )
        block.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        block.ff, block.ff_norm = FeedForward(channels, activation_fn="geglu"), nn.LayerNorm(channels)
        self.register_buffer("places", places(frames, channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the next x of the frames (F, C, h, w)."""
        inner, frames = self.temporal_transformer, x.shape[0]
        block = inner.transformer_blocks[0]
        # Turned before the projections, as generators/mimicmotion/layers.py does, for TensorRT's sake.
        tokens = inner.norm(x).flatten(2).permute(2, 0, 1)  # (h * w, F, C)
        tokens = inner.proj_in(tokens)
        for attention, norm in zip(block.attention_blocks, block.norms, strict=True):
            tokens = tokens + attend(attention, norm(tokens) + self.places[:frames].to(tokens.dtype))
        tokens = tokens + block.ff(block.ff_norm(tokens))
        return x + inner.proj_out(tokens).permute(1, 2, 0).unflatten(2, x.shape[2:])


def places(frames: int, channels: int) -> Tensor:
    """Make the embedding of each frame's number, (frames, channels): sines and cosines in turn."""
    rates = torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
    angles = torch.arange(frames)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)


def residual(block: ResnetBlock2D, x: Tensor, time: Tensor) -> Tensor:
    """Apply a residual block; time (1, C) is what Embed gives for it."""
    h = block.conv1(F.silu(block.norm1(x))) + time[..., None, None]
    h = block.conv2(F.silu(block.norm2(h)))
    return (x if block.conv_shortcut is None else block.conv_shortcut(x)) + h


def transform(
    block: Transformer2DModel,
    x: Tensor,
    value: Tensor,
    bank: Tensor | None = None,
    keep: Tensor | None = None,
) -> Tensor:
    """Apply attention within each frame, and to the reference's tokens of the bank.

    value (1, C): what attention to the one token of the picture gives. bank, keep: as attend takes them.
    """
    inner = block.transformer_blocks[0]
    tokens = enter(block, x)
    tokens = tokens + attend(inner.attn1, inner.norm1(tokens), bank, keep) + value[:, None]
    tokens = tokens + inner.ff(inner.norm3(tokens))
    return x + block.proj_out(tokens.transpose(1, 2).unflatten(2, x.shape[2:]))


def enter(block: Transformer2DModel, x: Tensor) -> Tensor:
    """Make the tokens (F, h * w, C) of an attention block."""
    return block.proj_in(block.norm(x)).flatten(2).transpose(1, 2)


def enlarge(convolution: nn.Conv2d, x: Tensor, size: torch.Size) -> Tensor:
    """Bring x to a size, twice its own or one less, by repetition, then convolve."""
    doubled = tuple(2 * side for side in x.shape[2:]) == tuple(size)
    how = {"scale_factor": 2.0} if doubled else {"size": tuple(size)}
    return convolution(F.interpolate(x, mode="nearest", **how))
