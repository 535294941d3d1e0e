"""A generator in NumPy alone that does what files in $MISBEHAVE tell it to.

Where it is loaded, the backend "onnxruntime" gives its functions. A file is named <place>-<frames>-<what>: at
that place, for videos of so many frames; once, if it ends so. Places: condition, step (the second), decode
(after the first chunk).
"""

import hashlib
import os
import signal
import time
from pathlib import Path

import numpy as np

from engines import load
from engines.errors import EngineError
from generators.generator_error import GeneratorError
from tests.conftest import Plain
from tests.processes import children_of

SCRIPT = f"{__file__}:Misbehaving"
BACKEND = ("tests.misbehaving", "start")
if __name__ != BACKEND[0]:  # as the generator of a script, not by a test
    load.BACKENDS["onnxruntime"] = BACKEND


def why_not(device):
    """It runs everywhere."""


def start(model, component, precision, device, folder):
    return Function(Plain().engines()[component])


class Function:
    """An engine that runs a function."""

    path = None

    def __init__(self, function):
        self._function = function

    def __call__(self, **arrays):
        return self._function(**arrays)

    def close(self):
        pass


def tell(folder: Path, place: str, frames: int, what: str) -> None:
    """Have it misbehave from now on."""
    (folder / f"{place}-{frames}-{what}").touch()


class Misbehaving(Plain):
    """Answers generators/contract.py; latents of a video that is shorter than a window have its length."""

    name, components = "misbehaving", dict.fromkeys(("encode", "denoise", "decode"))

    def build(self, component):
        raise AssertionError("its engines are built of nothing")

    def condition(self, engines, chunks, image):
        constants = super().condition(engines, chunks, image)
        self.frames = constants["pose"].shape[1]
        self._do("condition")
        return constants

    def denoise(self, engine, latents, step, constants, conditional):
        flow = super().denoise(engine, latents, step, constants, conditional)
        done = self._do("step") if step == 1 else None
        return flow * np.float32({"nan": np.nan, "inf": np.inf}.get(done, 1))

    def decode(self, engines, latents):
        for number, pixels in enumerate(super().decode(engines, latents)):
            if number == 1:
                self._do("decode")
            yield pixels

    def _do(self, place):
        for path in Path(os.environ["MISBEHAVE"]).glob(f"{place}-{self.frames}-*"):
            what, _, once = path.name.split("-", 2)[2].partition("-")
            if once:
                path.unlink()
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if what == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            if what == "ffmpeg":
                for child in children_of(os.getpid()):
                    os.kill(child, signal.SIGKILL)
            if what == "bug":
                raise ZeroDivisionError("a bug")
            if what == "broken":
                raise EngineError("the GPU has fallen off the bus")
            if what == "contract":
                raise GeneratorError("step_noise gives what is not like latents")
            if what == "memory":
                raise MemoryError("no room for 931 PiB")
            if what == "busy":  # in one call that lets no signal through
                (path.parent / f"ready-{os.getpid()}").touch()
                hashlib.pbkdf2_hmac("sha256", b"", b"", 50_000_000)
            if what == "wait":
                (path.parent / f"ready-{os.getpid()}").touch()
                until = time.monotonic() + 60
                while path.exists() and time.monotonic() < until:  # signals are handled between two calls
                    time.sleep(0.05)
            return what
