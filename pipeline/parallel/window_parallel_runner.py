"""Start a runner that evaluates windows in several processes, each on a device or a share of the cores."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from engines.errors import UsageError
from engines.load import start_engines
from engines.spec import Engine
from generators.contract import Generator
from pipeline.parallel.cpu_affinity import pin_to, shares_of_cores
from pipeline.parallel.window_parallel import WindowWorkers
from pipeline.runner import Settings, VideoRunner, start_runner
from pipeline.window_denoiser import SerialDenoiser


@dataclass(frozen=True)
class StartDenoiser:
    """A picklable function that opens a generator and its engine of `denoise`.

    cores: those to pin the process to; empty: all.
    """

    settings: Settings
    cores: Sequence[int] = ()

    def __call__(self) -> tuple[Generator, Engine]:
        """Return the generator and its engine of `denoise`. EngineError, and errors of Settings."""
        pin_to(self.cores)
        generator = self.settings.load()
        alone = copy.copy(generator)
        alone.components = {"denoise": generator.components["denoise"]}
        choice = self.settings.recipe.choice(generator, self.settings.device)
        _, engines = start_engines(alone, choice, lambda text: None)
        return generator, engines["denoise"]


def start_parallel_runner(
    settings: Settings, devices: Sequence[str], count: int, say: Callable[[str], None]
) -> VideoRunner:
    """Return a runner as start_runner does, whose windows are split over count processes including this one.

    Processes take the devices in turn; on a CPU each is pinned to its share of the cores. UsageError: the
    recipe needs all windows in one process.
    """
    if settings.recipe.open_denoiser is not SerialDenoiser:
        raise UsageError(
            "a recipe with a technique, the action H or branches together cannot be split over processes: "
            "what one window keeps stays in one process; leave --split out"
        )
    cores = shares_of_cores(count) if set(devices) == {"cpu"} else [()] * count
    pin_to(cores[0])
    runner = start_runner(replace(settings, device=devices[0]), say, resident=False)
    recipe = replace(settings.recipe, backend=runner.identity["backend"])  # the one that "auto" selected
    others = [
        StartDenoiser(replace(settings, recipe=recipe, device=devices[number % len(devices)]), cores[number])
        for number in range(1, count)
    ]
    runner.options = replace(runner.options, open_denoiser=WindowWorkers(others, say).open)
    return runner
