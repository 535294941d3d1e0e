"""Low-rank adapters (LoRA): files that change a network's weights, merged before it is exported or run.

Known are the names of peft, diffusers, kohya's programs and ComfyUI. A layer's weight gets scale * alpha /
rank * up @ down; alpha comes from the file, its metadata or the adapter_config.json beside it, else it is
the rank. Whole differences of weights and biases (.diff, .diff_b) are added too, times the scale.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from generators.adapters import Lora, config_of
from generators.contract import GeneratorError

if TYPE_CHECKING:
    from torch import Tensor

METADATA = "lora_adapter_metadata"  # diffusers' entry in a safetensors file, as JSON
KEY = re.compile(
    r"(?P<layer>.+?)"
    r"(?:[._]lora(?:_linear_layer)?[._](?P<half>A|B|down|up)(?:\.(?P<adapter>\w+))?\.(?P<kind>weight|bias)"
    r"|\.(?P<whole>alpha|diff|diff_b))"
)
KOHYA = re.compile(r"(?:lora_unet|lora_transformer|lycoris)_(?P<layer>[^.]+)")
TEXT_ENCODER = re.compile(r"lora_te\d?_|(?:base_model\.model\.)?text_encoder(?:_\d)?\.")  # how names begin
PREFIXES = {"base_model", "model", "module", "transformer", "unet", "diffusion_model", "pipe", "dit"}
Alphas = Callable[[Sequence[str], int], float]
SIDES = {"A": "down", "down": "down", "B": "up", "up": "up"}


def merge_all(
    tensors: dict[str, Tensor],
    loras: Iterable[Lora],
    rename: Callable[[str], str] = str,
    reads_text: bool = True,
) -> dict[str, Tensor]:
    """Merge files into a network's tensors, one after the other; see merge. GeneratorError.

    reads_text: False for a network that is given no text: of a file that changes a text encoder too, as
    many for Stable Diffusion do, that part is left out with a warning.
    """
    from generators.checkpoint import open_checkpoint

    for lora in loras:
        adapter = open_checkpoint(lora.path).tensors()
        adapter = adapter if reads_text else _without_text_encoder(adapter, lora.path)
        merge(tensors, adapter, lora.path, lora.scale, rename, _alphas(lora.path))
    return tensors


def merge(
    tensors: dict[str, Tensor],
    adapter: Mapping[str, Tensor],
    origin: Path,
    scale: float,
    rename: Callable[[str], str] = str,
    alphas: Alphas | None = None,
) -> None:
    """Add an adapter's changes to the tensors, in float32, each rounded to its tensor's own dtype.

    Those in 8 bits, which would lose most changes, become bfloat16. rename: gives the network's name of a
    layer for another that files may have, with _ for every dot too. alphas: gives alpha / rank by a layer's
    names, in the file and in the network, and rank, where there is no tensor of it. GeneratorError lists what
    fits no layer of the network, lacks a partner, is there twice, or has another shape, or says that there
    are several adapters; nothing is changed then.
    """
    from generators.checkpoint import kept_dtype, listed

    layers = {name.rpartition(".")[0] for name in tensors}
    flat = {layer.replace(".", "_"): layer for layer in layers}
    parts: dict[str, dict[str, Tensor]] = {}
    own, adapters, strange, twice = {}, set(), [], []
    for name, tensor in adapter.items():
        found = KEY.fullmatch(name)
        layer = _layer(found["layer"], layers, flat, rename) if found else None
        if layer is None:
            strange.append(name)
        else:
            side = SIDES.get(found["half"], "")
            kind = found["whole"] or (side if found["kind"] == "weight" else f"{side}_bias")
            twice += [name] * (kind in parts.setdefault(layer, {}))
            parts[layer][kind] = tensor
            own[layer] = found["layer"].removeprefix("base_model.model.")
            adapters |= {found["adapter"]} - {None}
    if len(adapters) > 1:
        which = ", ".join(sorted(adapters))
        raise GeneratorError(f"{origin} holds several adapters: {which}; save each to a file of its own")
    wrong = [f"{layer}: {why}" for layer, part in parts.items() if (why := _misfit(layer, part, tensors))]
    if strange or wrong or twice:
        lines = [f"{origin} is no LoRA of this network: is it for another model, or of another kind?"]
        lines += listed("tensors that fit no layer", strange) + listed("layers that do not fit", wrong)
        lines += listed("tensors of a layer that has such a one already", twice)
        raise GeneratorError("\n".join(lines))
    for layer, part in parts.items():
        for name, change in _changes(layer, part, own[layer], alphas):
            old = tensors[name]
            tensors[name] = (old.float() + scale * change.reshape(old.shape)).to(kept_dtype(old.dtype))


def _without_text_encoder(adapter: Mapping[str, Tensor], origin: Path) -> Mapping[str, Tensor]:
    """Leave out an adapter's changes of a text encoder, and warn of it; where there are no others, none."""
    rest = {name: tensor for name, tensor in adapter.items() if not TEXT_ENCODER.match(name)}
    if not rest or len(rest) == len(adapter):
        return adapter
    left = f"{len(adapter) - len(rest)} tensors of a text encoder are left out: this network reads no text"
    warnings.warn(f"{str(origin)!r}: {left}", stacklevel=3)
    return rest


def _changes(
    layer: str, part: Mapping[str, Tensor], own: str, alphas: Alphas | None
) -> Iterable[tuple[str, Tensor]]:
    """Give the names of a layer's tensors that change, and by what at a scale of 1. own: its name there."""
    weight, bias = f"{layer}.weight", f"{layer}.bias"
    if "up" in part:
        rank = len(part["down"])
        told = alphas((own, layer), rank) if alphas else 1.0
        share = float(part["alpha"]) / rank if "alpha" in part else told
        yield weight, share * (part["up"].float().flatten(1) @ part["down"].float().flatten(1))
        if "up_bias" in part:
            yield bias, share * part["up_bias"].float()
    if "diff" in part:
        yield weight, part["diff"].float()
    if "diff_b" in part:
        yield bias, part["diff_b"].float()


def _misfit(layer: str, part: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str | None:
    """Say why a layer's tensors cannot be merged, None if they can."""
    weight, bias = tensors.get(f"{layer}.weight"), tensors.get(f"{layer}.bias")
    if ("up" in part) != ("down" in part) or "down_bias" in part:
        return f"has {', '.join(part)}, where a pair of down and up belongs"
    if any(name in part for name in ("up", "diff")) and weight is None:
        return "has no weight"
    if any(name in part for name in ("up_bias", "diff_b")) and bias is None:
        return "has no bias"
    if "alpha" in part and part["alpha"].numel() != 1:
        return f"alpha is {tuple(part['alpha'].shape)}, where one number belongs"
    if "up" in part:
        up, down = part["up"], part["down"]
        if min(up.ndim, down.ndim) < 2 or not len(down):
            return f"{tuple(up.shape)} by {tuple(down.shape)} are no two matrices"
        product = up.shape[0], down[0].numel()
        square = up.ndim < 3 or all(side == 1 for side in up.shape[2:])
        if up[0].numel() != len(down) or product != (len(weight), weight[0].numel()) or not square:
            return f"{tuple(up.shape)} by {tuple(down.shape)} is no change of {tuple(weight.shape)}"
    for name, own in (("diff", weight), ("diff_b", bias), ("up_bias", bias)):
        if name in part and part[name].numel() != own.numel():
            return f"{name} is {tuple(part[name].shape)}, the network has {tuple(own.shape)}"
    return None


def _layer(name: str, layers: set[str], flat: Mapping[str, str], rename: Callable[[str], str]) -> str | None:
    """Find the network's layer that a file means, whatever prefix it has there; None if there is none."""
    kohya = KOHYA.fullmatch(name)
    if kohya:
        renamed = rename(kohya["layer"])
        return flat.get(kohya["layer"]) or (renamed if renamed in layers else None)
    short = re.sub(r"\.to_out$", ".to_out.0", name.replace(".processor.", "."))  # as old files call them
    while True:
        found = next((each for each in (short, rename(short)) if each in layers), None)
        first, dot, rest = short.partition(".")
        if found or not dot or first not in PREFIXES:
            return found
        short = rest


def _alphas(path: Path) -> Alphas | None:
    """Read how alphas are told beside a file's tensors: by diffusers inside of it, by peft in another."""
    from generators.checkpoint import metadata

    found, place = None, path
    try:
        if METADATA in (stored := metadata(path)):
            found = json.loads(stored[METADATA])
            own = {name: value for name, value in found.items() if not TEXT_ENCODER.match(name)}
            found = {name.partition(".")[2] or name: value for name, value in own.items()}
        elif config := config_of(path):
            place, found = config, json.loads(config.read_text(encoding="utf-8"))
        if found is None:
            return None
        if found.get("use_dora"):
            raise GeneratorError(f"{place}: use_dora: only plain LoRA can be merged here")
        alpha, rooted = float(found["lora_alpha"]), bool(found.get("use_rslora"))
        others = {name: float(value) for name, value in (found.get("alpha_pattern") or {}).items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise GeneratorError(f"{place} does not tell the LoRA's alpha ({error!r}); copy it again") from error

    def share(layers: Sequence[str], rank: int) -> float:
        is_meant = (any(re.search(rf"(^|\.)({name})$", each) for each in layers) for name in others)
        own = next((a for a, is_own in zip(others.values(), is_meant, strict=True) if is_own), alpha)
        return own / (math.sqrt(rank) if rooted else rank)

    return share
