"""Between pixels and features: the autoencoder, the pose guider, and CLIP's view of the picture."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from generators.clip.vision import ClipVision, normalise
from generators.refnet.unet import Attend

SCALE = 0.18215  # upstream's, whatever the autoencoder's config says
GUIDER = (16, 32, 96, 256)  # channels of the pose guider's levels


class Encode(nn.Module):
    """Component `encode`: the picture (1, H, W, 3) uint8 to scaled latents (1, 4, H/8, W/8), the mean."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode pixels to latents."""
        pictures = (2.0 * to_unit(pixels) - 1.0).to(self.quant_conv.weight.dtype)
        return self.quant_conv(self.encoder(pictures)).chunk(2, 1)[0].float() * SCALE


class Decode(nn.Module):
    """Component `decode`: latents (N, 4, h, w) to pixels (N, 8h, 8w, 3), truncated.

    The second output, (N,) the mean size of each picture before it is clamped, is not finite where a number
    has overflowed, which pixels cannot show. half: pictures are rounded to halves, as upstream's are.
    """

    def __init__(self, vae: AutoencoderKL, half: bool) -> None:
        super().__init__()
        self.decoder, self.post_quant_conv, self._half = vae.decoder, vae.post_quant_conv, half

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Decode latents to pixels."""
        latents = (latents * (1 / SCALE)).to(self.post_quant_conv.weight.dtype)
        x = self.decoder(self.post_quant_conv(latents)).float()
        seen = (x.half().float() / 2 + 0.5).half().float() if self._half else x / 2 + 0.5
        pixels = seen.clamp(0.0, 1.0) * 255.0
        return pixels.permute(0, 2, 3, 1).to(torch.uint8), x.abs().mean((1, 2, 3))


class PoseGuider(nn.Module):
    """Component `pose`: skeletons (N, H, W, 3) uint8 to features (N, channels, H/8, W/8).

    Tensors are named as in the published pose_guider.pth. channels: of the U-Net's first level.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, GUIDER[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for before, after in zip(GUIDER, GUIDER[1:], strict=False):
            self.blocks.append(nn.Conv2d(before, before, 3, padding=1))
            self.blocks.append(nn.Conv2d(before, after, 3, stride=2, padding=1))
        self.conv_out = nn.Conv2d(GUIDER[-1], channels, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute the features of skeletons."""
        x = to_unit(pixels).to(self.conv_in.weight.dtype)
        for layer in (self.conv_in, *self.blocks):
            x = F.silu(layer(x))
        return self.conv_out(x).float()


class ImageEmbed(nn.Module):
    """Component `image_embed`: pixels (1, S, S, 3) uint8, S being CLIP's size, to the embedding (1, D).

    The second output is the image context of Denoise, (2, M); its first row is the unconditional branch's,
    which sees zeros instead of the embedding.
    """

    def __init__(self, clip: ClipVision, attend: Attend) -> None:
        super().__init__()
        self.clip, self.attend = clip, attend

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the embedding and both rows of the image context."""
        seen = normalise(2.0 * to_unit(pixels) - 1.0).to(self.clip.visual_projection.weight.dtype)
        embedding = self.clip.embed(seen)
        rows = self.attend(torch.cat([torch.zeros_like(embedding), embedding]))
        return embedding.float(), rows.float()


def to_unit(pixels: Tensor) -> Tensor:
    """Scale pixels (N, H, W, 3) uint8 to (N, 3, H, W) float32 in [0, 1]."""
    # Cast first: TensorRT takes uint8 at the borders of a graph, but moves none.
    return pixels.float().permute(0, 3, 1, 2) / 255.0
