"""Adapters in a generator's name, as mimicmotion=FOLDER,lora=FILE:0.8: which they are, and who takes them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.cli import LORA
from engines.errors import UsageError

MARK = LORA


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
    generator.fingerprint_files = (*own, *(lora.path for lora in loras))
    generator.component_files = {name: own for name in generator.components if name not in changed}
    generator.loras = {name: [*map(str, loras)] for name in generator.components if name in changed}
