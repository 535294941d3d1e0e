"""Linear layers in 8-bit floats: weights scaled by row once, inputs by token at every call."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LARGEST = 448.0  # of float8_e4m3fn
MULTIPLE = 16  # of both widths, which the kernel wants


class Fp8Linear(nn.Module):
    """A linear layer as one scaled 8-bit product; the output is in bfloat16, whatever goes in."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight, scale = quantised(layer.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.t())  # (1, out)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        rows, scale = quantised(x.flatten(0, -2))
        made = torch._scaled_mm(rows, self.weight.t(), scale, self.scale, out_dtype=torch.bfloat16)
        made = made if self.bias is None else made + self.bias.to(made.dtype)
        return made.unflatten(0, x.shape[:-1])


def quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (n, width) in float8_e4m3fn, and what each is to be multiplied by, (n, 1) float32."""
    scale = rows.abs().amax(1, keepdim=True).float().clamp(min=1e-12) / LARGEST
    return (rows / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scale


def to_fp8(module: nn.Module) -> int:
    """Replace the linear layers of its blocks that the kernel can take; how many that were.

    Blocks are what lies in lists; layers outside of them, as a time's embedding, see few tokens.
    """
    found = [
        (place, layer)
        for place, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
        and any(part.isdecimal() for part in place.split("."))
        and layer.weight.dtype == torch.bfloat16
        and not (layer.in_features % MULTIPLE or layer.out_features % MULTIPLE)
    ]
    for place, layer in found:
        parent, _, name = place.rpartition(".")
        setattr(module.get_submodule(parent), name, Fp8Linear(layer))
    return len(found)
