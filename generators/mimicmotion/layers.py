"""The computation of diffusers' spatio-temporal layers, with their constants as inputs.

Each function takes a diffusers module for its weights. Frames of a batch lie one after another, (B * F, C, h,
w). Repeats are written as expand: the exporter's repeat_interleave is wrong for batches of two or more where
sizes are symbolic (onnxscript 0.7.2). Blends are one addition: a * x + (1 - a) * (x + h) is x + (1 - a) * h.
"""

from __future__ import annotations

from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import SpatioTemporalResBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from torch import Tensor, nn
from torch.nn import functional as F

from generators.unet.parts import attend


def residual(
    block: SpatioTemporalResBlock, x: Tensor, frames: int, embedding: Tensor | None = None
) -> Tensor:
    """Apply a residual block over pixels, then one over frames, blended.

    embedding (B, 2 * C): the projected time of the one and of the other; the decoder has none.
    """
    spatial, temporal, mixer = block.spatial_res_block, block.temporal_res_block, block.time_mixer
    own, moving = (None, None) if embedding is None else embedding.chunk(2, 1)
    h = spatial.conv1(F.silu(spatial.norm1(x)))
    if own is not None:
        h = h + _for_each_frame(own, frames)[..., None, None]
    h = spatial.conv2(F.silu(spatial.norm2(h)))
    x = (x if spatial.conv_shortcut is None else spatial.conv_shortcut(x)) + h
    h = temporal.conv1(F.silu(temporal.norm1(_frames_last(x, frames))))
    if moving is not None:
        h = h + moving[..., None, None]
    h = temporal.conv2(F.silu(temporal.norm2(h)))
    share = mixer.mix_factor.sigmoid()
    share = share if mixer.switch_spatial_to_temporal_mix else 1 - share
    return x + share * _pictures(h, x.shape[2:])


def transform(
    block: TransformerSpatioTemporalModel, x: Tensor, image_context: Tensor, places: Tensor
) -> Tensor:
    """Apply attention within each frame, then along the frames, blended.

    image_context (B, 2 * C): what attention to the one token of the picture gives, the same for all queries,
    in the first and in the second. places (F, C): the embedding of each frame's number.
    """
    frames, (within, along) = places.shape[0], image_context.chunk(2, 1)
    spatial, temporal = block.transformer_blocks[0], block.temporal_transformer_blocks[0]
    tokens = block.proj_in(block.norm(x).flatten(2).transpose(1, 2))  # (B * F, h * w, C)
    tokens = tokens + attend(spatial.attn1, spatial.norm1(tokens)) + _for_each_frame(within, frames)[:, None]
    tokens = tokens + spatial.ff(spatial.norm3(tokens))
    mixed = tokens.unflatten(0, (-1, frames)) + places[:, None]  # (B, F, h * w, C)
    mixed = mixed + temporal.ff_in(temporal.norm_in(mixed))
    mixed = mixed + _attend_along(temporal.attn1, temporal.norm1(mixed)) + along[:, None, None]
    mixed = mixed + temporal.ff(temporal.norm3(mixed))
    share = block.time_mixer.mix_factor.sigmoid()
    tokens = share * tokens + (1 - share) * mixed.flatten(0, 1)
    return x + block.proj_out(tokens).transpose(1, 2).unflatten(2, x.shape[2:])


def enlarge(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """Double height and width by repetition, then convolve."""
    return convolution(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def flat(convolution: nn.Conv3d) -> nn.Conv2d:
    """Make a convolution over frames one over (F, h * w): engines have more kernels for two axes."""
    after, before = convolution.weight.shape[:2]
    size, padding = convolution.kernel_size[:2], convolution.padding[:2]
    made = nn.Conv2d(before, after, size, padding=padding, device="meta")
    made.weight = nn.Parameter(convolution.weight.detach().squeeze(-1), requires_grad=False)
    made.bias = nn.Parameter(convolution.bias.detach(), requires_grad=False)
    return made


def _for_each_frame(rows: Tensor, frames: int) -> Tensor:
    """Repeat rows (B, C) for each of the frames, (B * F, C)."""
    return rows.unsqueeze(1).expand(-1, frames, -1).flatten(0, 1)


def _frames_last(x: Tensor, frames: int) -> Tensor:
    """Rearrange pictures (B * F, C, h, w) to (B, C, F, h * w)."""
    return x.flatten(2).unflatten(0, (-1, frames)).transpose(1, 2)


def _pictures(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Rearrange (B, C, F, h * w) to pictures (B * F, C, h, w)."""
    return x.transpose(1, 2).flatten(0, 1).unflatten(2, size)


def _attend_along(layer: Attention, tokens: Tensor) -> Tensor:
    """Apply attention of tokens (B, F, L, C) to those of the same place in all frames."""
    # Turned before the projections: TensorRT-RTX 1.7 builds no engine for a free B where heads are turned
    # with them in five axes ("CHECK(new_stride_order[i1] != new_stride_order[i2]) failed").
    mixed = attend(layer, tokens.transpose(1, 2).flatten(0, 1))  # (B * L, F, C)
    return mixed.unflatten(0, (-1, tokens.shape[2])).transpose(1, 2)
