"""Exact rewrites of a network that is too large to run: layers are known by where they stand.

As in optimize/exact_rewrites.py, but no call is watched, weights are turned when they are written, and what
is between half precision layers is computed in fp32, as upstream does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engines.onnx.export import Change
from engines.onnx.export_streamed import Turn
from optimize import exact_rewrites
from optimize.exact_rewrites import is_known, of_wan, rotate_halves

if TYPE_CHECKING:
    from torch import nn


def rewrite_bare(twin: nn.Module, turn: Turn) -> list[str]:
    """Rewrite a module without weights in place; give a sentence for each rewrite that applied.

    turn(parameter, rows): the parameter with its rows in that order.
    """
    layers = [layer for name, layer in twin.named_modules() if _is_rotary(twin, name, layer)]
    for layer in layers:
        rotate_halves(layer, turn)
    return [f"{len(layers)} x rotary embedding of halves"] if layers else []


def _is_rotary(module: nn.Module, name: str, layer: nn.Module) -> bool:
    """Tell whether it is the self-attention of Wan's own block, which always gives it rotary tables."""
    above, _, place = name.rpartition(".")
    block = module.get_submodule(above)
    return place == "attn1" and of_wan(block, "WanTransformerBlock") and is_known(layer)


BARE = Change(rewrite_bare, (Path(__file__), Path(exact_rewrites.__file__)))
