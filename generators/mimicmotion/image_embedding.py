"""The picture as a whole for the U-Net: its CLIP embedding, and what cross-attention to that gives."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generators.clip.vision import ClipVision, normalise
from generators.mimicmotion.unet import Attend
from generators.mimicmotion.vae import to_input


class ImageEmbed(nn.Module):
    """Component `image_embed`: the picture (1, H, W, 3) uint8 to the image context of Denoise, (2, M).

    The first row is the unconditional branch's, which sees zeros instead of the embedding.
    """

    def __init__(self, clip: ClipVision, attend: Attend, height: int, width: int) -> None:
        super().__init__()
        self.clip, self.attend = clip, attend
        size = clip.size.image_size
        self.register_buffer("rows", reduction(height, size), persistent=False)
        self.register_buffer("columns", reduction(width, size), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute both rows of the image context, (2, M) float32."""
        small = self.rows @ to_input(pixels) @ self.columns.T
        seen = normalise(small).to(self.clip.visual_projection.weight.dtype)
        embedding = self.clip.embed(seen)
        return self.attend(torch.cat([torch.zeros_like(embedding), embedding])).float()


def reduction(had: int, new: int) -> Tensor:
    """Make the matrix (new, had) of upstream's linear way to CLIP's size along one axis.

    A Gaussian blur of deviation (had / new - 1) / 2, mirrored at the ends, then cubic interpolation with the
    corners in place.
    """
    sigma = max((had / new - 1) / 2, 0.001)
    taps = int(max(4 * sigma, 3)) // 2 * 2 + 1
    kernel = torch.exp(-((torch.arange(taps) - taps // 2.0) ** 2) / (2 * sigma**2))
    columns = torch.eye(had)[:, None]  # each pixel alone, (had, 1, had)
    blurred = F.conv1d(F.pad(columns, (taps // 2,) * 2, "reflect"), (kernel / kernel.sum()).view(1, 1, -1))
    made = F.interpolate(blurred[:, :, None], (1, new), mode="bicubic", align_corners=True)
    return made[:, 0, 0].T.contiguous()
