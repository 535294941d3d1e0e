"""What a technique is: a published way to sample faster, which a recipe names with its settings."""

from __future__ import annotations

import copy
import importlib
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engines.errors import UsageError, unknown
from generators.contract import Constants, Engines, Generator

if TYPE_CHECKING:
    import numpy as np

    from pipeline.window_denoiser import OpenDenoiser, WindowDenoiser

# Name and module, which is imported when a recipe names the technique. A new one is a file and a line here.
TECHNIQUES = {
    "fewer-steps": "pipeline.caches.fewer_steps",
    "uniform-skip": "pipeline.caches.uniform_skip",
    "guidance-interval": "pipeline.caches.guidance_interval",
    "teacache": "pipeline.caches.teacache",
    "first-block-cache": "pipeline.caches.first_block_cache",
    "magcache": "pipeline.caches.magcache",
    "seacache": "pipeline.caches.seacache",
    "taylorseer": "pipeline.caches.taylorseer",
    "pyramid-attention": "pipeline.caches.pyramid_attention",
    "fastercache": "pipeline.caches.fastercache",
    "cache-dit": "pipeline.caches.cache_dit_blocks",
}
INSIDE_BACKEND = "torch"  # the only one that runs a network with a package's hooks in it
Number = int | float
Values = tuple[Number, ...]
SearchSpace = Mapping[str, Values]


class TechniqueError(UsageError):
    """A technique cannot be used so; the text begins with the setting, and says what would be right."""


class Adapted(Generator, Protocol):
    """A generator with a technique. technique_files: decide what it makes, beside its fingerprint_files."""

    open_denoiser: OpenDenoiser
    technique_files: tuple[Path, ...]


@dataclass(frozen=True)
class Technique:
    """One published technique.

    source: the paper or package that it is from, with its licence. settings: by name, the values that a
    search tries, from gentle to aggressive, or a function that gives them for a generator. The first value of
    each changes nothing that can be seen, and is what a setting left out has; there are at most two settings,
    of which the first is the coarse one. apply: takes a copy of a generator, which it may change, and the
    settings by keyword, and gives what evaluates the copy's windows. inside: it hooks into the network.
    calibrated: apply takes what was measured of the generator's base runs too, as `calibration`. keeps: what
    it keeps of a window is used at later steps, so that one process must evaluate them all. check: raises
    TechniqueError for a generator that it cannot be used with, before a calibration is asked for.
    """

    name: str
    source: str
    settings: Mapping[str, Values | Callable[[Generator], Values]]
    apply: Callable[..., OpenDenoiser]
    inside: bool = False
    calibrated: bool = False
    keeps: bool = True
    check: Callable[[Generator], None] = lambda generator: None

    @property
    def module(self) -> str:
        """The full name of the file that the technique is in."""
        return TECHNIQUES[self.name]

    def search_space(self, generator: Generator) -> SearchSpace:
        """The values that a search tries for a generator, by setting."""
        return {
            name: values(generator) if callable(values) else values for name, values in self.settings.items()
        }

    def adapt(self, generator: Generator, settings: Mapping[str, Number]) -> Adapted:
        """A copy of the generator for open_technique, with the technique's hooks and its own schedule.

        TechniqueError: a value is out of range, or the two do not go together. EngineError: there is no
        calibration of the generator, or another one's.
        """
        if self.keeps and hasattr(generator.windows, "at"):
            raise TechniqueError(
                f"name: {self.name} keeps what it predicts of a window for later steps, and the windows of "
                f"{generator.name} change by step; use a step plan"
            )
        self.check(generator)
        adapted, chosen = copy.copy(generator), {}
        for name, values in self.search_space(generator).items():
            chosen[name] = settings.get(name, values[0])
            check_value(name, chosen[name], values)
        files = [Path(sys.modules[self.module].__file__)]
        if self.calibrated:
            from pipeline.caches.calibration import find_calibration, load_calibration

            files.append(find_calibration(generator))
            chosen["calibration"] = load_calibration(files[-1], generator.scheduler.steps)
        adapted.technique_files = tuple(files)
        adapted.open_denoiser = self.apply(adapted, **chosen)
        return adapted

    def check_backend(self, backend: str) -> None:
        """TechniqueError if it cannot run on that backend."""
        if self.inside and backend != INSIDE_BACKEND:
            raise TechniqueError(
                f"name: {self.name} hooks into the network, which no backend but {INSIDE_BACKEND!r} runs as "
                f"it is, and this is {backend!r}; choose {INSIDE_BACKEND}, or a technique that runs on any"
            )


@dataclass(frozen=True)
class TechniqueChoice:
    """A technique with its settings, as a recipe names it; TechniqueError: there is none such.

    Whether the values suit a generator is known only when a recipe adapts it.
    """

    name: str
    settings: Mapping[str, Number] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        known = load_technique(self.name).settings
        for name, value in self.settings.items():
            if name not in known:
                raise TechniqueError(f"{name}: {unknown('setting', name, known)}")
            if type(value) not in (int, float) or not math.isfinite(value):
                raise TechniqueError(f"{name}: must be a number, is {value!r}")


def load_technique(name: str) -> Technique:
    """The technique of that name; TechniqueError names the nearest one."""
    if name not in TECHNIQUES:
        raise TechniqueError(f"name: {unknown('technique', str(name), TECHNIQUES)}")
    return importlib.import_module(TECHNIQUES[name]).TECHNIQUE


def open_technique(
    generator: Adapted, engines: Engines, constants: Constants, condition_indices: np.ndarray
) -> WindowDenoiser:
    """Open what evaluates a clip's windows with the generator's technique; an OpenDenoiser."""
    return generator.open_denoiser(generator, engines, constants, condition_indices)


def check_value(name: str, value: Number, values: Values) -> None:
    """Raise TechniqueError for a value of another kind than those of the search space, or far below them."""
    whole, least = all(type(each) is int for each in values), min(values)
    if whole and (type(value) is not int or value < least):
        raise TechniqueError(f"{name}: must be a whole number, {least} or more, is {value!r}")
    if not whole and value < min(least, 0):
        raise TechniqueError(f"{name}: must be {min(least, 0):g} or more, is {value!r}")


def up_to_steps(most: int) -> Callable[[Generator], Values]:
    """Values 1, 2, 3 and so on for a setting that counts steps, up to `most` or the generator's number."""
    return lambda generator: tuple(range(1, min(generator.scheduler.steps, most) + 1))
