"""The U-Net without its constants, which other components compute once a request.

Modules share the tensors of one diffusers U-Net: Embed has the time's layers, Attend those of attention to
the picture's one token, Denoise all the others, and Shallow of those the first and the last few.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.models.resnet import SpatioTemporalResBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from torch import Tensor, nn
from torch.nn import functional as F

from generators.mimicmotion.layers import enlarge, flat, residual, transform
from generators.unet.parts import PictureAttention, levels, transformers


def residual_blocks(unet: UNetSpatioTemporalConditionModel) -> list[SpatioTemporalResBlock]:
    """List its residual blocks, in the order in which they run."""
    return [block for level in levels(unet) for block in level.resnets]


class Embed(nn.Module):
    """Component `embed`: times (S,) to what every residual block adds, (S, N), one row for each time.

    ids: frame rate less one, motion bucket, strength of the picture's noise, which SVD sees beside the time.
    """

    def __init__(self, unet: UNetSpatioTemporalConditionModel, ids: tuple[float, float, float]) -> None:
        super().__init__()
        self.time_proj, self.time_embedding = unet.time_proj, unet.time_embedding
        self.add_time_proj, self.add_embedding = unet.add_time_proj, unet.add_embedding
        blocks = residual_blocks(unet)
        parts = [part for block in blocks for part in (block.spatial_res_block, block.temporal_res_block)]
        self.projections = nn.ModuleList(part.time_emb_proj for part in parts)
        self.register_buffer("ids", torch.tensor(ids), persistent=False)

    def forward(self, time: Tensor) -> Tensor:
        """Project times to rows."""
        dtype = self.time_embedding.linear_1.weight.dtype
        beside = self.add_embedding(self.add_time_proj(self.ids).flatten()[None].to(dtype))
        embedding = F.silu(self.time_embedding(self.time_proj(time).to(dtype)) + beside)
        return torch.cat([projection(embedding) for projection in self.projections], 1).float()


class Attend(PictureAttention):
    """The attention of all blocks to the picture, within frames and along them, to the image context."""

    def __init__(self, unet: UNetSpatioTemporalConditionModel) -> None:
        super().__init__(
            part[0].attn2
            for block in transformers(unet)
            for part in (block.transformer_blocks, block.temporal_transformer_blocks)
        )


class Denoise(nn.Module):
    """Component `denoise`: the prediction (v) for windows of one clip, one for each branch in the batch.

    latents (B, F, 4, h, w), scaled to unit variance; image (1, 4, h, w), the picture's latents; pose (1, F,
    C, h, w), PoseNet's features; conditional (B,), 0 where the branch sees neither; embedding (B, N), a row
    of Embed; image_context (B, M), rows of Attend. h, w are multiples of 8. The U-Net given is taken apart.
    features: also give what goes into the last of the layers on the way up, (B, F, C, h, w), for Shallow.
    """

    def __init__(self, unet: UNetSpatioTemporalConditionModel, frames: int, features: bool = False) -> None:
        super().__init__()
        self.unet, self._features = unet, features
        self._embedded = [2 * block.spatial_res_block.out_channels for block in residual_blocks(unet)]
        self._image_context = [2 * block.in_channels for block in transformers(unet)]
        _take_out_constants(unet, frames)

    def forward(
        self, latents: Tensor, image: Tensor, pose: Tensor, conditional: Tensor, embedding: Tensor,
        image_context: Tensor,
    ) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
        """Compute the prediction (B, F, 4, h, w), and features if they are wanted."""
        unet, frames, dtype = self.unet, latents.shape[1], self.unet.conv_in.weight.dtype
        x = enter(unet, *(each.to(dtype) for each in (latents, image, pose, conditional)))
        times = iter(embedding.to(dtype).split(self._embedded, 1))
        values = iter(image_context.to(dtype).split(self._image_context, 1))
        skips = [x]
        for level in unet.down_blocks:
            for block, attention in _pairs(level):
                x = _layer(block, attention, x, frames, times, values)
                skips.append(x)
            if level.downsamplers is not None:
                x = level.downsamplers[0].conv(x)
                skips.append(x)
        first, second = unet.mid_block.resnets
        x = _layer(first, unet.mid_block.attentions[0], x, frames, times, values)
        x = residual(second, x, frames, next(times))
        for level in unet.up_blocks:
            for block, attention in _pairs(level):
                deepest = x
                x = _layer(block, attention, torch.cat([x, skips.pop()], 1), frames, times, values)
            if level.upsamplers is not None:
                x = enlarge(level.upsamplers[0].conv, x)
        v = leave(unet, x, frames)
        return (v, deepest.unflatten(0, (-1, frames)).float()) if self._features else v


class Shallow(nn.Module):
    """Component `denoise_shallow`: the prediction of Denoise with the features of an earlier step.

    Only the first convolution and the last layers are computed anew, a twelfth of the whole (DeepCache, Ma et
    al., 2023). Inputs as Denoise has them, then features (B, F, C, h, w). The U-Net given is taken apart.
    """

    def __init__(self, unet: UNetSpatioTemporalConditionModel, frames: int) -> None:
        super().__init__()
        _take_out_constants(unet, frames)
        last = unet.up_blocks[-1]
        self.conv_in, self.conv_norm_out, self.conv_out = unet.conv_in, unet.conv_norm_out, unet.conv_out
        self.resnet, self.attention = last.resnets[-1], last.attentions[-1]

    def forward(
        self, latents: Tensor, image: Tensor, pose: Tensor, conditional: Tensor, embedding: Tensor,
        image_context: Tensor, features: Tensor,
    ) -> Tensor:  # fmt: skip
        """Compute the prediction (B, F, 4, h, w)."""
        frames, dtype = latents.shape[1], self.conv_in.weight.dtype
        skip = enter(self, *(each.to(dtype) for each in (latents, image, pose, conditional)))
        time = embedding[:, -2 * self.resnet.spatial_res_block.out_channels :].to(dtype)
        value = image_context[:, -2 * self.attention.in_channels :].to(dtype)
        x = torch.cat([features.to(dtype).flatten(0, 1), skip], 1)
        x = _layer(self.resnet, self.attention, x, frames, iter([time]), iter([value]))
        return leave(self, x, frames)


def enter(ends: nn.Module, latents: Tensor, image: Tensor, pose: Tensor, conditional: Tensor) -> Tensor:
    """Apply the first convolution to latents beside the picture's, and add the pose."""
    seen = conditional[:, None, None, None, None]
    beside = (image[:, None] * seen).expand(-1, latents.shape[1], -1, -1, -1)
    return ends.conv_in(torch.cat([latents, beside], 2).flatten(0, 1)) + (pose * seen).flatten(0, 1)


def leave(ends: nn.Module, x: Tensor, frames: int) -> Tensor:
    """Apply the last layers: (B * F, C, h, w) to the prediction (B, F, 4, h, w)."""
    x = ends.conv_out(F.silu(ends.conv_norm_out(x)))
    return x.unflatten(0, (-1, frames)).float()


def _layer(
    block: SpatioTemporalResBlock,
    attention: TransformerSpatioTemporalModel | None,
    x: Tensor,
    frames: int,
    times: Iterator[Tensor],
    values: Iterator[Tensor],
) -> Tensor:
    x = residual(block, x, frames, next(times))
    return x if attention is None else transform(attention, x, next(values), attention.places[:frames])


def _pairs(level: nn.Module) -> list[tuple[SpatioTemporalResBlock, TransformerSpatioTemporalModel | None]]:
    attentions = getattr(level, "attentions", None) or [None] * len(level.resnets)
    return list(zip(level.resnets, attentions, strict=True))


def _take_out_constants(unet: UNetSpatioTemporalConditionModel, frames: int) -> None:
    """Remove what Embed and Attend compute, and make tables of the frames' embeddings."""
    for name in ("time_proj", "time_embedding", "add_time_proj", "add_embedding"):
        delattr(unet, name)
    for block in residual_blocks(unet):
        temporal = block.temporal_res_block
        temporal.conv1, temporal.conv2 = flat(temporal.conv1), flat(temporal.conv2)
        for part in (block.spatial_res_block, temporal):
            del part.time_emb_proj
    for block in transformers(unet):
        embed = copy.deepcopy(block.time_pos_embed).float()
        with torch.no_grad():
            places = embed(block.time_proj(torch.arange(frames, device=embed.linear_1.weight.device)))
        block.places = nn.Parameter(places, requires_grad=False)
        del block.time_proj, block.time_pos_embed
        for part in (block.transformer_blocks[0], block.temporal_transformer_blocks[0]):
            del part.attn2, part.norm2
