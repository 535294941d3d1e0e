"""Tests that need a GPU: they are skipped without one, and say why."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from bench.backends import BASE, Way
from bench.gpu.recipes import start_way
from engines.spec import EngineError
from engines.torch_engine import why_not
from generators.contract import load_generator
from pipeline.data import first_requests
from pipeline.request import read_opening
from pipeline.sample import generate

SAMPLE = Path(__file__).parents[2] / "data" / "sample"
FRAMES = 16


@pytest.fixture(scope="session", autouse=True)
def cuda():
    """The GPU that all of these run on."""
    reason = why_not("cuda")
    if reason:
        pytest.skip(reason)
    return "cuda"


class Stage:
    """The bundled generator on the opening of a sample clip, by any backend; engines stay until the end."""

    def __init__(self):
        self.generator = load_generator("presenter")
        self.openings = [(*read_opening(request, self.generator, FRAMES), request.seed)
                         for request in first_requests(SAMPLE, 2)]
        self.closing, self._engines = ExitStack(), {}

    def engines(self, way, device="cuda"):
        """Skips the test, with the backend's reason, if it cannot run here."""
        if (way, device) not in self._engines:
            try:
                self._engines[way, device] = start_way(self.generator, Way.parse(way), device, self.closing)
            except EngineError as refusal:
                pytest.skip(" ".join(str(refusal).split())[:300])
        return self._engines[way, device]

    def frames(self, way, request=0, device="cuda"):
        """(F, H, W, 3) as float32."""
        return generate(self.generator, self.engines(way, device), *self.openings[request]).astype(np.float32)

    def base(self, request=0):
        """What torch makes on the processor in fp32."""
        return self.frames(str(BASE), request, "cpu")


@pytest.fixture(scope="session")
def stage(cuda):
    """Of all these tests, so that each engine starts once."""
    made = Stage()
    yield made
    made.closing.close()
