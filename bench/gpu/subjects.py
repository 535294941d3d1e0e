"""What is measured: networks of the contest's families at their full size, or tiny for a rehearsal."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from engines.spec import ComponentSpec

if TYPE_CHECKING:
    import torch

Build = Callable[[str, "torch.dtype"], "torch.nn.Module"]
Plain = Callable[[str, "torch.dtype"], tuple["torch.nn.Module", Mapping[str, "torch.Tensor"]]]

# By name: the file and function that make it, and the frames of a window.
SUBJECTS = {
    "wan-17": ("bench.gpu.wan", "denoiser", 17),  # what a clip of 16 frames is filled up to
    "wan-81": ("bench.gpu.wan", "denoiser", 81),
    "wan-decode": ("bench.gpu.wan", "decoder", 81),
    "mimicmotion-16": ("bench.gpu.mimicmotion", "denoiser", 16),
    "mimicmotion-72": ("bench.gpu.mimicmotion", "denoiser", 72),
    "mimicmotion-decode": ("bench.gpu.mimicmotion", "decoder", 16),
    "presenter": ("bench.gpu.presenter", "denoiser", 16),
}


@dataclass(frozen=True)
class Subject:
    """A network to measure.

    build(device, dtype): the module as this project runs it. calls: how often a clip needs it, in words.
    sizes: of the spec's named dims. plain(device, dtype): the same network as diffusers has it, which an
    upstream pipeline runs, and its inputs. same_dtype: inputs go in in the module's dtype, because it does
    not cast them itself.
    """

    spec: ComponentSpec
    build: Build
    calls: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    plain: Plain | None = None
    same_dtype: bool = False
    name: str = ""


def load_subject(name: str, tiny: bool) -> Subject:
    """By its name in SUBJECTS; ImportError if its generator is not here."""
    module, make, frames = SUBJECTS[name]
    made = getattr(importlib.import_module(module), make)("tiny" if tiny else "full", frames)
    return replace(made, name=name)
