"""Adapters in a generator's name, as mimicmotion=FOLDER,lora=FILE:0.8: which they are, and who takes them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.cli import LORA
from engines.errors import UsageError
from generators.weight_files import SAFETENSORS, TORCH, expected_files

MARK = LORA
CONFIG, NAMED = "adapter_config.json", "adapter_model"  # peft's names, of its settings and of its weights


@dataclass(frozen=True)
class Lora:
    """A file of adapters and the factor that their change is multiplied with."""

    path: Path
    scale: float = 1.0

    def __str__(self) -> str:
        return f"{self.path.name}:{self.scale:g}"


def split_name(name: str) -> tuple[str, tuple[Lora, ...]]:
    """Split a generator's name into that of its base model and the adapters; UsageError."""
    base, *texts = name.split(MARK)
    return base, tuple(map(parse, texts))


def parse(text: str) -> Lora:
    """Read FILE or FILE:SCALE. UsageError: no file is named, or the scale is not finite or 0."""
    path, colon, end = text.rpartition(":")
    try:
        scale = float(end) if colon else 1.0
    except ValueError:
        path, scale = text, 1.0
    path = path if colon else text
    if not path.strip() or not math.isfinite(scale) or not scale:
        raise UsageError(f"--lora {text!r}: give FILE or FILE:SCALE, a scale being a number other than 0")
    return Lora(Path(path), scale)


def taken(made: type, loras: Sequence[Lora]) -> dict[str, Sequence[Lora]]:
    """Make the argument by which a generator's class gets adapters. UsageError: it takes none."""
    if loras and "loras" not in inspect.signature(made).parameters:
        raise UsageError(
            f"{made.__name__} takes no LoRA: give its __init__ a parameter loras=(), to merge where it loads "
            "weights, by generators.lora.merge_all and generators.adapters.take_on"
        )
    return {"loras": loras} if loras else {}


def take_on(generator: object, loras: Sequence[Lora], changed: Iterable[str]) -> None:
    """Make adapters part of what a generator of ours is built from: they go into the components `changed`."""
    if not loras:
        return
    own, changed = tuple(generator.fingerprint_files), set(changed)
    rest = {name: own for name in generator.components if name not in changed}
    generator.component_files = {**rest, **getattr(generator, "component_files", {})}
    generator.lora_files = [file for lora in loras for file in files_of(lora)]
    generator.fingerprint_files = (*own, *generator.lora_files)
    generator.loras = {name: [*map(str, loras)] for name in generator.components if name in changed}


def files_of(lora: Lora) -> tuple[Path, ...]:
    """List the files that decide what an adapter changes: its weights, and the settings that are theirs."""
    config = config_of(lora.path)
    return (*expected_files(lora.path), *[config] * (config is not None))


def config_of(path: Path) -> Path | None:
    """Find peft's settings of an adapter in its folder; None: there are none, or they are another's.

    They are those of the weights that have peft's name, or of the only ones in the folder.
    """
    folder = path if path.is_dir() else path.parent
    if not (folder / CONFIG).is_file():
        return None
    others = [each for each in folder.iterdir() if each.suffix in SAFETENSORS + TORCH and each != path]
    is_own = path.is_dir() or path.name.startswith((f"{NAMED}.", f"{NAMED}-")) or not others
    return folder / CONFIG if is_own else None
