"""What the U-Nets of MimicMotion and of AnimateAnyone's kind share: their order and their attention."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional as F

HIDDEN = -1e4  # is added to the scores of what is not to be seen: nothing is left of it, in halves too


def levels(unet: nn.Module) -> list[nn.Module]:
    """List its levels, in the order in which they run."""
    return [*unet.down_blocks, unet.mid_block, *unet.up_blocks]


def transformers(unet: nn.Module) -> list[nn.Module]:
    """List its attention blocks, in the order in which they run."""
    return [block for level in levels(unet) for block in getattr(level, "attentions", ())]


class PictureAttention(nn.Module):
    """The attention of layers to the picture's embedding: (B, D) to the image context (B, M).

    A softmax over one token is 1, so this is the token's value whatever the query, the frame or the step.
    """

    def __init__(self, layers: Iterable[Attention]) -> None:
        super().__init__()
        values, outputs = zip(*((layer.to_v, layer.to_out[0]) for layer in layers), strict=True)
        self.values, self.outputs = nn.ModuleList(values), nn.ModuleList(outputs)

    @property
    def sizes(self) -> list[int]:
        """The length of each layer's part of a row."""
        return [output.out_features for output in self.outputs]

    def forward(self, embedding: Tensor) -> Tensor:
        """Compute the values side by side, in the order in which the layers run."""
        pairs = zip(self.values, self.outputs, strict=True)
        return torch.cat([output(value(embedding)) for value, output in pairs], 1)


def attend(
    layer: Attention, tokens: Tensor, bank: Tensor | None = None, keep: Tensor | None = None
) -> Tensor:
    """Apply attention of tokens (N, L, C) to each other, and to those of a bank.

    bank (1, T, 2 * C): keys and values of more tokens, the same for all N. keep (1,): 0 where they are not to
    be seen.
    """
    query, key, value = layer.to_q(tokens), layer.to_k(tokens), layer.to_v(tokens)
    mask = None
    if bank is not None:
        more = [each.expand(tokens.shape[0], -1, -1) for each in bank.chunk(2, 2)]
        key, value = torch.cat([key, more[0]], 1), torch.cat([value, more[1]], 1)
        hidden = ((1 - keep) * HIDDEN).expand(bank.shape[1])
        mask = torch.cat([keep.new_zeros(tokens.shape[1]), hidden])[None, None, None]
    query, key, value = (each.unflatten(2, (layer.heads, -1)).transpose(1, 2) for each in (query, key, value))
    mixed = F.scaled_dot_product_attention(query, key, value, mask)
    return layer.to_out[0](mixed.transpose(1, 2).flatten(2))
