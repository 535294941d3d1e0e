"""Exact rewrites of a network that is too large to run: layers are known by where they stand.

As in optimize/exact_rewrites.py, but no call is watched, weights are turned when they are written, and what
is between half precision layers is computed in fp32, as upstream does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engines.onnx.export_streamed import BareRewriting, Turn
from optimize import exact_rewrites as exact

if TYPE_CHECKING:
    from torch import Tensor, nn


def rewrite_bare(twin: nn.Module, turn: Turn) -> list[str]:
    """Rewrite a module without weights in place; give a sentence for each rewrite that applied.

    turn(parameter, rows): the parameter with its rows in that order.
    """
    layers = [layer for name, layer in twin.named_modules() if _is_rotary(twin, name, layer)]
    for layer in layers:
        _rotate_halves(layer, turn)
    return [f"{len(layers)} x rotary embedding of halves"] if layers else []


def _is_rotary(module: nn.Module, name: str, layer: nn.Module) -> bool:
    """Tell whether it is the self-attention of Wan's own block, which always gives it rotary tables."""
    above, _, place = name.rpartition(".")
    block = module.get_submodule(above)
    return place == "attn1" and exact._of_wan(block, "WanTransformerBlock") and exact._is_known(layer)


def _rotate_halves(attention: nn.Module, turn: Turn) -> None:
    import torch

    size = attention.inner_dim // attention.heads
    head = torch.arange(size).view(-1, 2).T.reshape(-1)  # 0, 2, 4, ... 1, 3, 5, ...
    rows = torch.cat([head + size * number for number in range(attention.heads)])
    for layer in (attention.to_q, attention.to_k, attention.norm_q, attention.norm_k):
        for name, weight in list(layer.named_parameters()):
            setattr(layer, name, turn(weight, rows))
    attention.set_processor(_Halves())


class _Halves:
    """The attention of tokens to each other in which i and i + size / 2 of a head rotate as a pair."""

    def __call__(
        self,
        attention: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: None,
        attention_mask: None,
        rotary_emb: Sequence[Tensor],
    ) -> Tensor:
        import torch

        def heads(tokens: Tensor) -> Tensor:
            return tokens.unflatten(2, (attention.heads, -1)).transpose(1, 2)  # (B, heads, L, size)

        def turned(tokens: Tensor) -> Tensor:
            return exact._rotate(heads(tokens), cos, sin).to(tokens.dtype)

        # Each of the tables (1, L, 1, size) has its numbers twice, side by side.
        cos, sin = (torch.cat([table[..., ::2]] * 2, -1).transpose(1, 2) for table in rotary_emb)
        query = turned(attention.norm_q(attention.to_q(hidden_states)))
        key = turned(attention.norm_k(attention.to_k(hidden_states)))
        value = heads(attention.to_v(hidden_states))
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        return attention.to_out[0](mixed.transpose(1, 2).flatten(2))


BARE = BareRewriting(rewrite_bare, (Path(__file__), Path(exact.__file__)))
