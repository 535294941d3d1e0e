"""Exact rewrites of a network before it is exported: less work, the same numbers up to rounding.

A rewrite knows its layers by their exact classes and applies where every call that they were seen to take
meets its condition. Everything else stays as it is.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from engines.onnx.export import Change

if TYPE_CHECKING:
    from torch import Tensor, nn

    from engines.onnx.export_streamed import Turn

# diffusers has the same classes in each of these.
WAN = tuple(f"diffusers.models.transformers.transformer_wan{kind}" for kind in ("", "_animate"))


@dataclass(frozen=True)
class Call:
    """A call of an attention layer: how many tokens its context had (0: none, it attends to itself)."""

    context: int
    masked: bool
    rotary: bool


Calls = Mapping[str, Sequence[Call]]


def rewrite(module: nn.Module, inputs: Iterable[Tensor]) -> tuple[nn.Module, list[str]]:
    """Rewrite a module; give it and a sentence for each rewrite that applied; the same module if none did.

    inputs: an example, with which the module runs once. The module given is left as it was; what no rewrite
    changes is shared with it, weights first of all.
    """
    calls = watch(module, inputs)
    chosen = [(each, names) for each in REWRITES if (names := each.fits(module, calls))]
    if not chosen:
        return module, []
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    module = copy.deepcopy(module, shared)
    for each, names in chosen:
        for name in names:
            each.apply(module.get_submodule(name))
    return module, [f"{len(names)} x {each.what}" for each, names in chosen]


def fold_one_token(attention: nn.Module) -> None:
    """Replace attention to a context of one token by that token's value: a softmax over one key is 1."""
    attention.set_processor(_OneToken())


def turned(parameter: nn.Parameter, rows: Tensor) -> nn.Parameter:
    """Return the parameter with its rows in that order."""
    from torch import nn

    return nn.Parameter(parameter.detach()[rows], requires_grad=False)


def rotate_halves(attention: nn.Module, turn: Turn = turned) -> None:
    """Make the rotary embedding pair the halves of a head instead of its even and odd numbers.

    Rows of the query's and the key's weights move, in both the same way, which their product does not notice.
    The exporter writes slices with a stride as scatters between transpositions, half of OpenVINO's time.
    """
    import torch

    size = attention.inner_dim // attention.heads
    head = torch.arange(size).view(-1, 2).T.reshape(-1)  # 0, 2, 4, ... 1, 3, 5, ...
    rows = torch.cat([head + size * number for number in range(attention.heads)])
    for layer in (attention.to_q, attention.to_k, attention.norm_q, attention.norm_k):
        for name, weight in list(layer.named_parameters()):
            setattr(layer, name, turn(weight, rows))
    attention.set_processor(RotaryHalves())


def watch(module: nn.Module, inputs: Iterable[Tensor]) -> dict[str, list[Call]]:
    """Record the calls of attention layers of known classes while the module runs once, by their names."""
    import torch

    layers = {name: layer for name, layer in module.named_modules() if is_known(layer)}
    calls: dict[str, list[Call]] = {name: [] for name in layers}
    if not layers:
        return calls
    hooks = [
        layer.register_forward_pre_hook(partial(_note, calls[name]), with_kwargs=True)
        for name, layer in layers.items()
    ]
    try:
        with torch.inference_mode():
            module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


class _OneToken:
    """The attention to one token: its value, whatever the query, once for all queries."""

    def __call__(
        self,
        attention: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: None = None,
        rotary_emb: None = None,
    ) -> Tensor:
        return attention.to_out[0](attention.to_v(encoder_hidden_states))  # (B, 1, C), added to every token


class RotaryHalves:
    """The attention of tokens to each other in which i and i + size / 2 of a head rotate as a pair."""

    def __call__(
        self,
        attention: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: None,
        attention_mask: None,
        rotary_emb: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Attend, as diffusers' processor of an attention layer does."""
        import torch

        def heads(tokens: Tensor) -> Tensor:
            return tokens.unflatten(2, (attention.heads, -1)).transpose(1, 2)  # (B, heads, L, size)

        # Each of the tables (1, L, 1, size) has its numbers twice, side by side.
        cos, sin = (torch.cat([table[..., ::2]] * 2, -1).transpose(1, 2) for table in rotary_emb)
        query = _rotate(heads(attention.norm_q(attention.to_q(hidden_states))), cos, sin)
        key = _rotate(heads(attention.norm_k(attention.to_k(hidden_states))), cos, sin)
        value = heads(attention.to_v(hidden_states))
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        return attention.to_out[0](mixed.transpose(1, 2).flatten(2))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    import torch

    half = x.shape[-1] // 2
    turned = x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin  # the form that OpenVINO fuses
    return turned.to(x.dtype)  # the tables are in fp32


def _with_one_token(module: nn.Module, calls: Calls) -> list[str]:
    """List the cross-attention layers in known blocks whose contexts had one token."""
    return [
        name
        for name, seen in calls.items()
        if seen
        and all(call == Call(1, False, False) for call in seen)
        # Only there is it known that the answer is added to every token, and norm2 serves nothing else.
        and name.rpartition(".")[2] == "attn2"
        and of_wan(module.get_submodule(name.rpartition(".")[0]), "WanTransformerBlock")
    ]


def _with_rotary(module: nn.Module, calls: Calls) -> list[str]:
    """List the self-attention layers with rotary embedding."""
    return [
        name for name, seen in calls.items() if seen and all(call == Call(0, False, True) for call in seen)
    ]


@dataclass(frozen=True)
class Rewrite:
    """A rewrite: its description, the names of the layers that it fits, and the change to one of them."""

    what: str
    fits: Callable[[nn.Module, Calls], list[str]]
    apply: Callable[[nn.Module], None]


REWRITES = (
    Rewrite("attention to one token is its value", _with_one_token, fold_one_token),
    Rewrite("rotary embedding of halves", _with_rotary, rotate_halves),
)
EXACT = Change(rewrite, (Path(__file__),))


def is_known(layer: nn.Module) -> bool:
    """Tell whether it computes as diffusers' WanAttention: no image tokens, fused or adapted layers."""
    if not of_wan(layer, "WanAttention"):
        return False
    import torch

    processor = layer.processor
    linear = (layer.to_q, layer.to_k, layer.to_v, layer.to_out[0])
    return (
        of_wan(processor, "WanAttnProcessor")
        and processor._attention_backend is None
        and processor._parallel_config is None
        and layer.add_k_proj is None
        and not layer.fused_projections
        and all(type(each) is torch.nn.Linear for each in linear)
        and all(type(each) is torch.nn.RMSNorm for each in (layer.norm_q, layer.norm_k))
    )


def of_wan(thing: object, name: str) -> bool:
    """Tell whether it is of diffusers' class of that name itself, not of one that inherits from it."""
    where = type(thing).__module__
    return where in WAN and type(thing) is getattr(sys.modules[where], name)


def _note(calls: list[Call], layer: nn.Module, arguments: tuple, named: Mapping) -> None:
    names = ("hidden_states", "encoder_hidden_states", "attention_mask", "rotary_emb")
    given = {**dict(zip(names, arguments, strict=False)), **named}
    context = given.get("encoder_hidden_states")
    calls.append(
        Call(
            0 if context is None else context.shape[1],
            given.get("attention_mask") is not None,
            given.get("rotary_emb") is not None,
        )
    )
