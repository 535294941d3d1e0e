"""A small network that finds OpenPose's 18 joints in a picture: one heat map for each."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import torch
from torch import Tensor, nn

from bench.pose import JOINTS

STRIDE = 4  # pixels a cell of a heat map
RARE = -5.0  # the logit that training begins with: hardly any cell holds a joint


@dataclass(frozen=True)
class JointSize:
    """Channels at 2, 4, 8 and 16 pixels a cell."""

    half: int = 12
    quarter: int = 20
    eighth: int = 28
    sixteenth: int = 44


class JointNet(nn.Module):
    """Pictures (N, H, W, 3) uint8, sides multiples of 16, to heat maps (N, 18, H / 4, W / 4) from 0 to 1."""

    def __init__(self, size: JointSize = JointSize()) -> None:
        super().__init__()
        self.size = size
        a, b, c, d = astuple(size)
        self.enter = nn.Sequential(_conv(3, a, 2), _conv(a, b, 2), _conv(b, b))
        self.eighth = nn.Sequential(_conv(b, c, 2), _conv(c, c))
        self.sixteenth = nn.Sequential(_conv(c, d, 2), _conv(d, d), _conv(d, c))
        self.up_eighth, self.up_quarter = nn.Sequential(_conv(c, c), nn.Conv2d(c, b, 1)), _conv(b, b)
        self.heads = nn.Conv2d(b, JOINTS, 1)
        nn.init.constant_(self.heads.bias, RARE)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the heat maps."""
        return torch.sigmoid(self.logits(pictures))

    def logits(self, pictures: Tensor) -> Tensor:
        """Return the heat maps before the sigmoid."""
        fine = self.enter(pictures.permute(0, 3, 1, 2).float() / 127.5 - 1)
        middle = self.eighth(fine)
        middle = self.up_eighth(middle + _twice(self.sixteenth(middle)))
        return self.heads(self.up_quarter(fine + _twice(middle)))


def _conv(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )


def _twice(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
