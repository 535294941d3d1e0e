"""Stable Video Diffusion's autoencoder as components: pictures to latents, latents of some frames back."""

from __future__ import annotations

from diffusers import AutoencoderKLTemporalDecoder
from torch import Tensor, nn, uint8
from torch.nn import functional as F

from generators.mimicmotion.layers import enlarge, flat, residual
from generators.mimicmotion.pose_net import PoseNet


def to_input(pixels: Tensor) -> Tensor:
    """Scale pixels (N, H, W, 3) uint8 to the networks' input, (N, 3, H, W) float32 in [-1, 1]."""
    # Cast first: TensorRT takes uint8 at the borders of a graph, but moves none.
    return pixels.float().permute(0, 3, 1, 2) / 127.5 - 1.0


class Encode(nn.Module):
    """Component `encode`: pixels (N, H, W, 3) uint8 to latents (N, 4, H/8, W/8), the mean, not scaled."""

    def __init__(self, vae: AutoencoderKLTemporalDecoder) -> None:
        super().__init__()
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode pixels to latents."""
        pictures = to_input(pixels).to(self.quant_conv.weight.dtype)
        return self.quant_conv(self.encoder(pictures)).chunk(2, 1)[0].float()


class Pose(nn.Module):
    """Component `pose`: skeleton pixels (N, H, W, 3) uint8 to features (N, C, H/8, W/8)."""

    def __init__(self, pose_net: PoseNet) -> None:
        super().__init__()
        self.pose_net = pose_net

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute the features of pixels."""
        return self.pose_net(to_input(pixels).to(self.pose_net.scale.dtype)).float()


class Decode(nn.Module):
    """Component `decode`: latents (N, 4, h, w) of neighbouring frames to pixels (N, 8h, 8w, 3), truncated.

    Its temporal layers see these frames and no others. The second output, (N,) the mean size of each picture
    before it is clamped, is not finite where a number has overflowed, which pixels cannot show. The
    autoencoder given is taken apart.
    """

    def __init__(self, vae: AutoencoderKLTemporalDecoder) -> None:
        super().__init__()
        self.decoder, self.scale = vae.decoder, 1 / vae.config.scaling_factor
        decoder = self.decoder
        for level in (decoder.mid_block, *decoder.up_blocks):
            for block in level.resnets:
                temporal = block.temporal_res_block
                temporal.conv1, temporal.conv2 = flat(temporal.conv1), flat(temporal.conv2)
        decoder.time_conv_out = flat(decoder.time_conv_out)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Decode latents to pixels."""
        decoder, frames = self.decoder, latents.shape[0]
        first, *others = decoder.mid_block.resnets
        latents = (latents * self.scale).to(decoder.conv_in.weight.dtype)
        x = residual(first, decoder.conv_in(latents), frames)
        for attention, block in zip(decoder.mid_block.attentions, others, strict=False):
            x = residual(block, attention(x), frames)
        for level in decoder.up_blocks:
            for block in level.resnets:
                x = residual(block, x, frames)
            if level.upsamplers is not None:
                x = enlarge(level.upsamplers[0].conv, x)
        x = decoder.conv_out(F.silu(decoder.conv_norm_out(x)))
        size = x.shape[2:]
        moved = decoder.time_conv_out(x.flatten(2).transpose(0, 1)[None])[0]  # (3, N, H * W)
        x = moved.transpose(0, 1).unflatten(2, size).float()
        pixels = (x / 2 + 0.5).clamp(0.0, 1.0) * 255.0
        return pixels.permute(0, 2, 3, 1).to(uint8), x.abs().mean((1, 2, 3))
