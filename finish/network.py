"""The cover network: one number for how good a picture is, by inverted residuals as in MobileNetV3.

Howard et al., 2019 (https://arxiv.org/abs/1905.02244): expand, convolve by channel, weigh channels, project.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class CoverSize:
    """Channels of the first stage, which the others are multiples of, and of the last hidden layer."""

    width: int = 24
    hidden: int = 128


class Normed(nn.Sequential):
    """A convolution without bias, batch normalisation, and perhaps a hard swish."""

    def __init__(
        self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1, active: bool = True
    ) -> None:
        convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(after), nn.Hardswish() if active else nn.Identity())


class Excite(nn.Module):
    """Weighs channels by what their means say (squeeze and excitation)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(4, channels // 4)
        self.down, self.up = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same shape."""
        return x * F.hardsigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Inverted(nn.Module):
    """An inverted residual; a way around it where it keeps the shape."""

    def __init__(self, before: int, after: int, wide: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.around = stride == 1 and before == after
        self.inner = nn.Sequential(
            Normed(before, wide, 1),
            Normed(wide, wide, kernel, stride, groups=wide),
            Excite(wide),
            Normed(wide, after, 1, active=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, h, w) to (N, after, h / stride, w / stride)."""
        return x + self.inner(x) if self.around else self.inner(x)


class CoverNet(nn.Module):
    """Pictures (N, SIDE, SIDE, 3) uint8 to scores (N,): about 1 for a flawless one, 0 for a useless one."""

    def __init__(self, size: CoverSize = CoverSize()) -> None:
        super().__init__()
        self.size, w = size, size.width
        # after, expanded, kernel, stride
        plan = [
            (w, 3 * w, 3, 1), (2 * w, 4 * w, 5, 2), (2 * w, 6 * w, 5, 1),
            (3 * w, 8 * w, 5, 2), (3 * w, 10 * w, 5, 1), (5 * w, 12 * w, 5, 2), (5 * w, 16 * w, 5, 1),
        ]  # fmt: skip
        stages, before = [], w
        for after, wide, kernel, stride in plan:
            stages.append(Inverted(before, after, wide, kernel, stride))
            before = after
        self.stem = Normed(48, w, 3)  # sees each pixel: fine noise would be gone after a stride
        self.stages = nn.Sequential(*stages)
        self.last = Normed(before, 8 * w, 1)
        self.hidden, self.out = nn.Linear(16 * w, size.hidden), nn.Linear(size.hidden, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """The means of features say what is there; their deviations whether all of it is sharp."""
        x = pixels.float().permute(0, 3, 1, 2) / 127.5 - 1  # TensorRT takes uint8 into a cast only
        x = self.last(self.stages(self.stem(F.pixel_unshuffle(x, 4))))
        mean = x.mean((2, 3))
        power = (x * x).mean((2, 3)) - mean * mean
        pooled = torch.cat([mean, torch.sqrt(power.clamp(min=0) + 1e-4)], 1)
        return self.out(F.hardswish(self.hidden(pooled)))[:, 0]


def folded(network: CoverNet) -> CoverNet:
    """The same network for inference, its normalisations within its convolutions; changes it in place."""
    for module in network.eval().modules():
        if isinstance(module, Normed) and isinstance(module[1], nn.BatchNorm2d):
            module[0] = nn.utils.fuse_conv_bn_eval(module[0], module[1])
            module[1] = nn.Identity()
    return network


def unfolded(network: CoverNet, pixels: Tensor) -> CoverNet:
    """Folded weights for training on, with normalisations that leave those pictures' scores as they are."""

    def normalise(module: Normed, inputs: tuple[Tensor]) -> None:
        convolution = module[0]
        variance, mean = torch.var_mean(convolution(*inputs), (0, 2, 3), correction=0)
        module[1] = norm = nn.BatchNorm2d(len(mean)).eval()
        norm.running_mean, norm.running_var = mean - convolution.bias, variance
        norm.weight, norm.bias = nn.Parameter(torch.sqrt(variance + norm.eps)), nn.Parameter(mean)
        convolution.bias = None

    layers = [module for module in network.modules() if isinstance(module, Normed)]
    hooks = [layer.register_forward_pre_hook(normalise) for layer in layers]
    with torch.no_grad():
        network(pixels)
    for hook in hooks:
        hook.remove()
    return network
