"""A runner that evaluates windows in several processes: one on each device, or on a share of the cores."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from engines.errors import EngineError
from engines.load import start_engines
from engines.spec import Engine
from generators.contract import Generator
from pipeline.parallel.cpu_affinity import keep_to, shares_of_cores
from pipeline.parallel.window_parallel import WindowWorkers
from pipeline.runner import Settings, VideoRunner, start_runner
from pipeline.window_denoiser import SerialDenoiser


@dataclass(frozen=True)
class StartDenoiser:
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


def start_parallel_runner(
    settings: Settings, devices: Sequence[str], count: int, say: Callable[[str], None]
) -> VideoRunner:
    """As start_runner, with each video's evaluations split over count processes, this one among them.

    Processes take the devices in turn; on processors each keeps to its share of the cores.
    """
    if settings.recipe.open_denoiser is not SerialDenoiser:
        raise EngineError(
            "a recipe with a technique or the action H cannot be split over processes: what one window keeps "
            "stays in one process; leave --split out"
        )
    cores = shares_of_cores(count) if set(devices) == {"cpu"} else [()] * count
    keep_to(cores[0])
    runner = start_runner(replace(settings, device=devices[0]), say)
    recipe = replace(settings.recipe, backend=runner.identity["backend"])  # that "auto" has led to
    others = [
        StartDenoiser(replace(settings, recipe=recipe, device=devices[number % len(devices)]), cores[number])
        for number in range(1, count)
    ]
    runner.options = replace(runner.options, open_denoiser=WindowWorkers(others, say).open)
    return runner
