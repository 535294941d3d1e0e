"""A flag's copy is queued behind its own step, and waited for when the next step is queued."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from engines.deferred_arrays import DeferringPlace
from engines.late_flag import CopiedFlag, read_later
from generators.samplers import FlowMatchEuler
from lab.gpu.fake_arrays import FakePlace
from pipeline.sampler import denoise_loop
from pipeline.step_plan import StepPlan

SHAPE = (1, 2, 6, 4, 4)


class Watched(FakePlace):
    """A place that notes in `log` when a flag's copy is queued, and when it is waited for."""

    def __init__(self, log):
        super().__init__()
        self.log, self.flags = log, 0

    def read_later(self, flag):
        number, found = self.flags, super().read_later(flag)
        self.flags += 1
        self.log.append(f"copy {number}")
        return lambda: self.log.append(f"read {number}") or found()


class Steps:
    """A clip's denoiser that notes its steps; `broken` gives no number."""

    guidance = 1.0

    def __init__(self, log, broken=None):
        self.log, self.broken = log, broken

    def __call__(self, latents, step, action):
        if action == "S":
            return ()
        self.log.append(f"step {step}")
        return (latents * np.float32(np.nan if step == self.broken else 0.5),)


def sampled(deferred, actions="FFFF", broken=None, finite=True):
    """What was done, in order, while a clip was sampled on a place."""
    log = []
    place = Watched(log)
    place = DeferringPlace(place, pytest.fail) if deferred else place
    scheduler = FlowMatchEuler(len(actions), 3.0)
    noise = place.asarray(np.ones(SHAPE, np.float32))
    try:
        for _ in denoise_loop(Steps(log, broken), scheduler, noise, StepPlan(actions), finite=finite):
            pass
    except FloatingPointError as error:
        log.append(str(error).partition(" gave")[0])
    return log


@pytest.mark.parametrize("deferred", [False, True])
def test_a_flag_is_read_when_the_next_step_and_its_flag_are_queued(deferred):
    assert sampled(deferred) == [
        "step 0", "copy 0", "step 1", "copy 1", "read 0", "step 2", "copy 2", "read 1",
        "step 3", "copy 3", "read 2", "read 3"]
    assert sampled(deferred, "FFS") == ["step 0", "copy 0", "step 1", "copy 1", "read 0", "read 1"]
    assert sampled(deferred, broken=1)[-4:] == ["step 2", "copy 2", "read 1", "step 2 of 4"]
    assert sampled(deferred, "FF", finite=False) == ["step 0", "step 1"]


def test_a_flag_on_the_host_is_told_as_it_is():
    assert read_later(np.array([1.0, 2.0]).all())() is True and read_later(np.isfinite(np.nan))() is False


class Flag:
    """A flag of CuPy's that comes to the host when its event is waited for."""

    shape, dtype, nbytes, device = (), np.dtype(bool), 1, SimpleNamespace()
    __array_function__ = None

    def __init__(self, value, log):
        self.value, self.log = value, log

    def get(self, out, blocking):
        assert not blocking
        self.log.append("copy")
        self.out = out


@pytest.mark.parametrize("value", [True, False])
def test_cupys_flag_goes_to_pinned_memory_and_its_event_alone_is_waited_for(monkeypatch, value):
    log = []
    flag = Flag(value, log)

    def arrive():
        log.append("wait")
        flag.out[...] = flag.value

    def record(event):
        log.append("record")
        return event
    def pinned(size):
        log.append("pin")
        return bytearray([not value] * size)
    cuda = SimpleNamespace(alloc_pinned_memory=pinned,
                           Event=lambda disable_timing: SimpleNamespace(synchronize=arrive),
                           get_current_stream=lambda: SimpleNamespace(record=record))
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))
    read = read_later(flag)
    assert isinstance(read, CopiedFlag) and log == ["pin", "copy", "record"]
    assert read() is value and log == ["pin", "copy", "record", "wait"]
    del read
    assert log[4:] == ["wait"]  # a flag that nobody reads must not be written into memory of another


def test_the_real_cupy_has_what_a_flag_asks_for():
    cupy = pytest.importorskip("cupy")
    if cupy.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "out" in cupy.ndarray.get.__doc__ and "blocking" in cupy.ndarray.get.__doc__
    for call in (lambda: cupy.cuda.alloc_pinned_memory(1),
                 lambda: cupy.cuda.get_current_stream().record(cupy.cuda.Event(disable_timing=True))):
        with pytest.raises(RuntimeError, match="cuda"):
            call()
    assert not hasattr(cupy.cuda.Device(0), "read_later")
