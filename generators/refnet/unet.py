"""The two U-Nets without their constants, which other components compute once a request.

Embed has the layers of the time, Attend those of attention to the picture's one token, Reference the other
U-Net with the keys and values that the denoiser makes of its tokens, Denoise all else of the denoiser, and
Shallow of that the first and the last few layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from generators.refnet.layers import MotionModule, enlarge, enter, residual, transform
from generators.unet.parts import PictureAttention, levels, transformers

Visit = Callable[[Tensor, nn.Module, int], Tensor]


def add_motion(unet: UNet2DConditionModel, frames: int) -> UNet2DConditionModel:
    """Give each level motion modules for windows of up to so many frames, one behind each layer."""
    for level in levels(unet):
        blocks = level.resnets if level is not unet.mid_block else level.attentions
        channels = [getattr(block, "out_channels", None) or block.in_channels for block in blocks]
        level.motion_modules = nn.ModuleList(MotionModule(each, frames) for each in channels)
    return unet


def run(
    unet: UNet2DConditionModel, x: Tensor, times: Iterator[Tensor], visit: Visit
) -> tuple[Tensor, Tensor]:
    """Run the levels on what the first convolution gave; also give what goes into the last layer up.

    times: for each residual block what Embed gives. visit: is told what a block gave, the level and the
    layer's number, and applies what follows.
    """
    skips = [x]
    for level in unet.down_blocks:
        for layer, block in enumerate(level.resnets):
            x = visit(residual(block, x, next(times)), level, layer)
            skips.append(x)
        if level.downsamplers is not None:
            x = level.downsamplers[0].conv(x)
            skips.append(x)
    first, *others = unet.mid_block.resnets
    x = residual(first, x, next(times))
    for layer, block in enumerate(others):
        x = residual(block, visit(x, unet.mid_block, layer), next(times))
    for level in unet.up_blocks:
        for layer, block in enumerate(level.resnets):
            deepest = x
            x = visit(residual(block, torch.cat([x, skips.pop()], 1), next(times)), level, layer)
        if level.upsamplers is not None:
            x = enlarge(level.upsamplers[0].conv, x, skips[-1].shape[2:])
    return x, deepest


class Embed(nn.Module):
    """Component `embed`: times (S,) to what every residual block adds, (S, N), one row for each time."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.time_proj, self.time_embedding = unet.time_proj, unet.time_embedding
        blocks = [block for level in levels(unet) for block in level.resnets]
        self.projections = nn.ModuleList(block.time_emb_proj for block in blocks)

    @property
    def sizes(self) -> list[int]:
        """The length of each block's part of a row."""
        return [projection.out_features for projection in self.projections]

    def forward(self, time: Tensor) -> Tensor:
        """Project times to rows."""
        dtype = self.time_embedding.linear_1.weight.dtype
        embedding = F.silu(self.time_embedding(self.time_proj(time).to(dtype)))
        return torch.cat([projection(embedding) for projection in self.projections], 1).float()


class Attend(PictureAttention):
    """The attention of all blocks to the picture, to the image context."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__(block.transformer_blocks[0].attn2 for block in transformers(unet))


class Reference(nn.Module):
    """Component `reference`: what the denoiser's self-attention sees of the picture, (1, T, 2 * C) a block.

    latents (1, 4, h, w), the picture's; embedding (1, D), CLIP's. Upstream keeps the tokens of this U-Net and
    projects them to keys and values for each frame, window and step; the result is the same for all. What
    follows the last block's tokens is left out. Both U-Nets given are taken apart.
    """

    def __init__(self, unet: UNet2DConditionModel, denoiser: UNet2DConditionModel) -> None:
        super().__init__()
        self.embed, self.attend, self.unet = Embed(unet), Attend(unet), unet
        last = transformers(unet)[-1]
        last.proj_out, inner = None, last.transformer_blocks[0]
        inner.attn1 = inner.norm3 = inner.ff = None
        own = [block.transformer_blocks[0].attn1 for block in transformers(denoiser)]
        self.keys = nn.ModuleList(layer.to_k for layer in own)
        self.values = nn.ModuleList(layer.to_v for layer in own)
        self._sizes = self.embed.sizes, self.attend.sizes
        take_out_constants(unet)

    def forward(self, latents: Tensor, embedding: Tensor) -> tuple[Tensor, ...]:
        """Compute keys and values side by side, of each attention block in the order in which they run."""
        dtype = self.unet.conv_in.weight.dtype
        times = self.embed(latents.new_zeros(1)).to(dtype).split(self._sizes[0], 1)
        values = iter(self.attend(embedding.to(dtype)).split(self._sizes[1], 1))
        last, bank = transformers(self.unet)[-1], []

        def visit(x: Tensor, level: nn.Module, layer: int) -> Tensor:
            if not hasattr(level, "attentions"):
                return x
            block, place = level.attentions[layer], len(bank)
            seen = block.transformer_blocks[0].norm1(enter(block, x))
            bank.append(torch.cat([self.keys[place](seen), self.values[place](seen)], 2).float())
            return x if block is last else transform(block, x, next(values))

        run(self.unet, self.unet.conv_in(latents.to(dtype)), iter(times), visit)
        return tuple(bank)


class Denoise(nn.Module):
    """Component `denoise`: the prediction (v) for a window of a clip, in one branch of guidance.

    latents (1, F, 4, h, w); pose (1, F, C, h, w), the guider's features; embedding (1, N), a row of Embed;
    image_context (1, M), a row of Attend; keep (1,), 0 where the branch does not see the bank; bank: what
    Reference gives, of a branch that does not see it any part. The U-Net given is taken apart. features: also
    give what goes into the last of the layers on the way up, (1, F, C, h, w), for Shallow.
    """

    def __init__(self, unet: UNet2DConditionModel, features: bool = False) -> None:
        super().__init__()
        self.unet, self._features = unet, features
        self._sizes = Embed(unet).sizes, Attend(unet).sizes
        take_out_constants(unet)

    def forward(
        self, latents: Tensor, pose: Tensor, embedding: Tensor, image_context: Tensor, keep: Tensor,
        *bank: Tensor,
    ) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
        """Compute the prediction (1, F, 4, h, w), and features if they are wanted."""
        unet, dtype = self.unet, self.unet.conv_in.weight.dtype
        times = iter(embedding.to(dtype).split(self._sizes[0], 1))
        values = iter(image_context.to(dtype).split(self._sizes[1], 1))
        banks, keep = (each.to(dtype) for each in bank), keep.to(dtype)

        def visit(x: Tensor, level: nn.Module, layer: int) -> Tensor:
            if hasattr(level, "attentions"):
                x = transform(level.attentions[layer], x, next(values), next(banks), keep)
            return level.motion_modules[layer](x)

        x, deepest = run(unet, begin(unet, latents, pose), times, visit)
        v = leave(unet, x)
        return (v, deepest[None].float()) if self._features else v


class Shallow(nn.Module):
    """Component `denoise_shallow`: the prediction of Denoise with the features of an earlier step.

    Only the first convolution and the last layers are computed anew (DeepCache, Ma et al., 2023). Inputs as
    Denoise has them, of the bank only what the last block sees, then features (1, F, C, h, w). The U-Net
    given is taken apart.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        take_out_constants(unet)
        last = unet.up_blocks[-1]
        self.conv_in, self.conv_norm_out, self.conv_out = unet.conv_in, unet.conv_norm_out, unet.conv_out
        self.resnet, self.attention = last.resnets[-1], last.attentions[-1]
        self.motion_module = last.motion_modules[-1]

    def forward(
        self, latents: Tensor, pose: Tensor, embedding: Tensor, image_context: Tensor, keep: Tensor,
        bank: Tensor, features: Tensor,
    ) -> Tensor:  # fmt: skip
        """Compute the prediction (1, F, 4, h, w)."""
        dtype = self.conv_in.weight.dtype
        time = embedding[:, -self.resnet.out_channels :].to(dtype)
        value = image_context[:, -self.attention.in_channels :].to(dtype)
        x = torch.cat([features.to(dtype)[0], begin(self, latents, pose)], 1)
        x = transform(self.attention, residual(self.resnet, x, time), value, bank.to(dtype), keep.to(dtype))
        return leave(self, self.motion_module(x))


def begin(ends: nn.Module, latents: Tensor, pose: Tensor) -> Tensor:
    """Apply the first convolution to the frames, and add the pose: (1, F, 4, h, w) to (F, C, h, w)."""
    dtype = ends.conv_in.weight.dtype
    return ends.conv_in(latents[0].to(dtype)) + pose[0].to(dtype)


def leave(ends: nn.Module, x: Tensor) -> Tensor:
    """Apply the last layers: (F, C, h, w) to the prediction (1, F, 4, h, w)."""
    return ends.conv_out(F.silu(ends.conv_norm_out(x)))[None].float()


def take_out_constants(unet: UNet2DConditionModel) -> None:
    """Remove what Embed and Attend compute."""
    del unet.time_proj, unet.time_embedding
    for block in (block for level in levels(unet) for block in level.resnets):
        del block.time_emb_proj
    for block in transformers(unet):
        del block.transformer_blocks[0].attn2, block.transformer_blocks[0].norm2
