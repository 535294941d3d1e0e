"""The components of conditioning: the picture for cross-attention, and features of skeletons."""

from __future__ import annotations

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from generators.clip.vision import ClipVision, normalise

THROUGH = 16  # channels inside the pose networks
POSE_STRIDES = (1, 1, 1, (1, 2, 2), 2, 2)


class ImageKv(nn.Module):
    """Component `image_kv`: levels (1, S, S, 3) at CLIP's size to every block's keys and values.

    Both (layers, tokens, dim). Levels are of 255, and not rounded.
    """

    def __init__(self, clip: ClipVision, network: WanTransformer3DModel) -> None:
        super().__init__()
        self.clip, self.embedder = clip, network.condition_embedder.image_embedder
        crossed = [block.attn2 for block in network.blocks]
        self.keys = nn.ModuleList(attention.add_k_proj for attention in crossed)
        self.values = nn.ModuleList(attention.add_v_proj for attention in crossed)
        self.norms = nn.ModuleList(attention.norm_added_k for attention in crossed)

    def forward(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute keys and values."""
        picture = levels.permute(0, 3, 1, 2) / 127.5 - 1.0
        hidden = self.clip.hidden(normalise(picture))
        tokens = self.embedder(hidden.to(self.keys[0].weight.dtype))
        keys = [norm(key(tokens)) for key, norm in zip(self.keys, self.norms, strict=True)]
        return torch.cat(keys).float(), torch.cat([value(tokens) for value in self.values]).float()


class PoseTokens(nn.Module):
    """Component `pose`: skeletons (4 F, H, W, 3) uint8 to tokens (1, dim, F, H/16, W/16)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute the tokens; those of four frames are one latent frame's."""
        frames = centred(pixels, 255.0, 0.0).transpose(0, 1).unsqueeze(0)
        return self.network(frames.to(self.network[0].weight.dtype)).float()


class ReferencePose(nn.Module):
    """Component `reference_pose`: a skeleton (1, H, W, 3) uint8 to features (1, 20, 1, H/8, W/8)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute the features of one skeleton."""
        picture = centred(pixels, 255.0, 0.0)
        return self.network(picture.to(self.network[0].weight.dtype)).unsqueeze(2).float()


def pose_embedding(dim: int) -> nn.Sequential:
    """Make UniAnimate's dwpose_embedding: seven convolutions, over time too, to a token for each patch."""
    layers: list[nn.Module] = []
    for number, stride in enumerate(POSE_STRIDES):
        layers += [nn.Conv3d(THROUGH if number else 3, THROUGH, 3, stride, 1), nn.SiLU()]
    return nn.Sequential(*layers, nn.Conv3d(THROUGH, dim, (1, 2, 2), (1, 2, 2)))


def reference_pose_embedding(channels: int) -> nn.Sequential:
    """Make UniAnimate's randomref_embedding_pose: six convolutions down to a latent."""
    layers: list[nn.Module] = []
    for number, stride in enumerate((1, 1, 1, 2, 2)):
        layers += [nn.Conv2d(THROUGH if number else 3, THROUGH, 3, stride, 1), nn.SiLU()]
    return nn.Sequential(*layers, nn.Conv2d(THROUGH, channels, 3, 2, 1))


def centred(pixels: Tensor, scale: float, offset: float) -> Tensor:
    """Scale pixels (n, H, W, 3) uint8 to (n, 3, H, W) float32: divided by scale, less offset."""
    # Cast first: TensorRT takes uint8 at the borders of a graph, but moves none.
    return pixels.to(torch.float32).permute(0, 3, 1, 2) / scale - offset
