"""Tests that need a GPU: they are skipped without one, and say why. None needs ffmpeg."""

from contextlib import ExitStack, nullcontext

import numpy as np
import pytest

from engines.backends.torch_backend import why_not
from engines.device_arrays import place_of
from engines.errors import EngineError
from generators.contract import load_generator
from pipeline.sampler import generate


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
        from lab.gpu.frames import SAMPLE, first_requests, opening  # tests of memory do without diffusers

        self.generator = load_generator("presenter")
        self.clips = [opening(request, self.generator) for request in first_requests(SAMPLE, 2)]
        self.closing, self._engines = ExitStack(), {}

    def engines(self, variant, device="cuda"):
        """Skips the test, with the backend's reason, if it cannot run here."""
        from lab.gpu.frames import start

        if (variant, device) not in self._engines:
            try:
                self._engines[variant, device] = start(self.generator, variant, device, self.closing)
            except EngineError as refusal:
                pytest.skip(" ".join(str(refusal).split())[:300])
        return self._engines[variant, device]

    def frames(self, variant, request=0, device="cuda"):
        """(F, H, W, 3) as float32."""
        clip, engines = self.clips[request], self.engines(variant, device)
        place = place_of(engines)
        with place.running() if place else nullcontext():
            made = generate(self.generator, engines, clip.skeletons, clip.image, clip.seed)
        return made.astype(np.float32)

    def base(self, request=0):
        """What torch makes on the processor in fp32."""
        return self.frames("torch:fp32", request, "cpu")


@pytest.fixture(scope="session")
def stage(cuda):
    """Of all these tests, so that each engine starts once."""
    made = Stage()
    yield made
    made.closing.close()
