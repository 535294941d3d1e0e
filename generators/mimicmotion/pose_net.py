"""MimicMotion's pose network, whose features are added behind the U-Net's first convolution."""

from __future__ import annotations

from torch import Tensor, nn, ones

# Kernel, stride and channels of each convolution; all have padding 1 and a SiLU behind them.
LAYERS = ((3, 1, 3), (4, 2, 16), (3, 1, 16), (4, 2, 32), (3, 1, 32), (4, 2, 64), (3, 1, 64), (3, 1, 128))


class PoseNet(nn.Module):
    """The network: pictures (N, 3, H, W) in [-1, 1] to features (N, channels, H/8, W/8), H and W by 8.

    Tensors are named as in the published checkpoints under `pose_net.`. channels: of the U-Net's first level.
    """

    def __init__(self, channels: int = 320) -> None:
        super().__init__()
        layers, before = [], 3
        for kernel, stride, after in LAYERS:
            layers += [nn.Conv2d(before, after, kernel, stride, padding=1), nn.SiLU()]
            before = after
        self.conv_layers = nn.Sequential(*layers)
        self.final_proj = nn.Conv2d(before, channels, 1)
        self.scale = nn.Parameter(ones(1))

    def forward(self, pictures: Tensor) -> Tensor:
        """Compute the features of pictures."""
        return self.final_proj(self.conv_layers(pictures)) * self.scale
