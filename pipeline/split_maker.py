"""A maker whose denoiser is split over processes: one on each device given, or on a share of the cores."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from engines.load import start_engines
from engines.spec import Engine, EngineError
from generators.contract import Generator
from pipeline.cores import keep_to, shares_of_cores
from pipeline.maker import Maker, Settings, start_maker
from pipeline.split import SplitEngine


@dataclass(frozen=True)
class OpenDenoiser:
    """Opens a generator and the engine of its denoiser. cores: those to keep to; empty: all."""

    settings: Settings
    cores: Sequence[int] = ()

    def __call__(self) -> tuple[Generator, Engine]:
        """EngineError, and what Settings' functions raise."""
        keep_to(self.cores)
        generator = self.settings.load()
        alone = copy.copy(generator)
        alone.components = {"denoise": generator.components["denoise"]}
        _, engines = start_engines(alone, self.settings.choice(generator), lambda text: None)
        return generator, engines["denoise"]


def start_split_maker(
    settings: Settings, devices: Sequence[str], count: int, say: Callable[[str], None]
) -> Maker:
    """As start_maker, with each video's evaluations split over count processes, this one among them.

    Processes take the devices in turn; on processors each keeps to its share of the cores.
    """
    if settings.recipe.steps is not None and settings.recipe.steps.shallow:
        raise EngineError("a plan with the action H cannot be split over processes yet; leave --split out")
    cores = shares_of_cores(count) if set(devices) == {"cpu"} else [()] * count
    keep_to(cores[0])
    maker = start_maker(replace(settings, device=devices[0]), say)
    recipe = replace(settings.recipe, backend=maker.identity["backend"])  # that "auto" has led to
    others = [
        OpenDenoiser(replace(settings, recipe=recipe, device=devices[number % len(devices)]), cores[number])
        for number in range(1, count)
    ]
    denoise = SplitEngine(maker.generator, maker.engines["denoise"], others, say)
    maker.engines = {**maker.engines, "denoise": denoise}
    return maker
