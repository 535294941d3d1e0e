"""What a rival is: a way to sample faster that someone else found, from generator to generator."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.baselines.errors import RivalError
from engines.errors import unknown

if TYPE_CHECKING:
    from bench.baselines.calibration import Calibration
    from generators.contract import Generator

# Name and file; what a rival needs is imported when it is used.
RIVALS = {
    "torch-compile": "bench.baselines.engine_alone",
    "onnxruntime": "bench.baselines.engine_alone",
    "openvino": "bench.baselines.engine_alone",
    "fewer-steps": "bench.baselines.fewer_steps",
    "uniform-skip": "bench.baselines.uniform_skip",
    "guidance-interval": "bench.baselines.guidance_interval",
    "teacache": "bench.baselines.teacache",
    "first-block-cache": "bench.baselines.first_block_cache",
    "magcache": "bench.baselines.magcache",
    "seacache": "bench.baselines.seacache",
    "taylorseer": "bench.baselines.taylorseer",
    "pyramid-attention": "bench.baselines.pyramid_attention",
    "fastercache": "bench.baselines.fastercache",
    "cache-dit": "bench.baselines.cache_dit_blocks",
}
Number = int | float
Knobs = Mapping[str, tuple[Number, ...]]
Settings = Mapping[str, Number]


@dataclass(frozen=True)
class Rival:
    """One technique of others.

    source: the paper or package that it is from, with its licence. knobs: for a generator, values of each
    knob from gentle to aggressive; the first of all change nothing that can be seen. The first knob is the
    coarse one, of the last one each step on makes it faster. wrap: the generator that samples so, by knobs;
    it begins anew at each request, when its noise is asked for. inside: it hooks into the network, so the
    denoiser must be started from the wrapped generator, by torch. calibrated: wrap takes calibration too.
    backends: on which alone it makes sense; empty: on any, or on torch if it works inside.
    """

    name: str
    source: str
    knobs: Callable[[Generator], Knobs]
    wrap: Callable[..., Generator]
    inside: bool = False
    calibrated: bool = False
    backends: tuple[str, ...] = ()

    def apply(
        self, generator: Generator, settings: Settings, calibration: Calibration | None = None
    ) -> Generator:
        """The generator with these settings; a knob left out stays gentle. RivalError."""
        knobs = self.knobs(generator)
        for name in settings:
            if name not in knobs:
                raise RivalError(f"{self.name}: {unknown('knob', name, knobs)}")
        chosen = {name: settings.get(name, values[0]) for name, values in knobs.items()}
        if not self.calibrated:
            return self.wrap(generator, **chosen)
        if calibration is None:
            raise RivalError(f"{self.name} is fitted to base runs; run: python -m bench.baselines calibrate")
        return self.wrap(generator, calibration=calibration, **chosen)

    def check_backend(self, backend: str) -> None:
        """RivalError if it cannot run on that backend."""
        allowed = self.backends or (("torch",) if self.inside else ())
        if allowed and backend not in allowed:
            raise RivalError(f"{self.name} runs on {' or '.join(allowed)}, not on {backend}")


def load_rival(name: str) -> Rival:
    """The rival of that name; RivalError names the nearest one."""
    if name not in RIVALS:
        raise RivalError(unknown("rival", name, RIVALS))
    module = importlib.import_module(RIVALS[name])
    return next(value for value in vars(module).values() if isinstance(value, Rival) and value.name == name)
