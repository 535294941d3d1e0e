"""Memory that one library keeps is given back where another runs out of it, once, and not while recording."""

import sys
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engines import spare_memory
from engines.backends.torch_backend import TorchEngine
from engines.cuda.context import GpuContext
from engines.device_arrays import CupyPlace
from engines.spare_memory import release, with_release
from generators.contract import Generator
from pipeline.oom_retry import OomRetry
from tests.engines.test_torch_engine import SPEC, A, B, Mix
from tests.fake_driver import FakeDriver, Faults


@pytest.fixture
def log(monkeypatch):
    """What was done; a release adds to it."""
    log = []
    monkeypatch.setattr(spare_memory, "release", lambda: log.append("release"))
    return log


@pytest.mark.parametrize("on_gpu", [True, False])
def test_torch_and_cupy_give_back_what_they_keep_where_they_are_on_a_gpu(monkeypatch, on_gpu):
    log = []
    pool = SimpleNamespace(free_all_blocks=lambda: log.append("cupy"))
    cuda = SimpleNamespace(is_initialized=lambda: on_gpu, empty_cache=lambda: log.append("torch"))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(
        cuda=SimpleNamespace(is_available=lambda: on_gpu), get_default_memory_pool=lambda: pool))
    release()
    assert log == (["torch", "cupy"] if on_gpu else [])
    for package in ("torch", "cupy"):
        monkeypatch.setitem(sys.modules, package, None)
    release()


def test_the_second_try_begins_when_the_first_ones_memory_is_free(monkeypatch):
    class Large:
        pass
    held, free = [], []
    monkeypatch.setattr(spare_memory, "release", lambda: free.append(held[0]() is None))

    def make():
        large = Large()
        held.append(weakref.ref(large))
        if len(held) == 1:
            raise MemoryError("no memory")
        return large
    assert isinstance(with_release(make), Large) and free == [True] and len(held) == 2


def test_there_is_one_second_try(log):
    def make():
        log.append("make")
        raise MemoryError("no memory")
    with pytest.raises(MemoryError, match="no memory"):
        with_release(make)
    assert log == ["make", "release", "make"]


def test_memory_of_tensorrts_engines_is_tried_for_again(log):
    driver = FakeDriver(Faults())
    context = GpuContext(driver)
    context.open()
    driver.faults.at = len(driver.faults.calls) + 1
    with context:
        context.reserve(5000)
    assert driver.faults.calls[-3:] == ["allocate", "synchronize", "allocate"] and log == ["release"]
    assert context.activations.size == 5000


class Full(SimpleNamespace):
    """A CuPy whose memory is full until something is given back."""

    def __init__(self, log):
        def make(*given, **options):
            log.append("make")
            if "release" not in log:
                raise MemoryError("Out of memory allocating 512 bytes")
            return "made"
        super().__init__(empty=make, asarray=make)


@pytest.mark.parametrize("make", [lambda place: place.empty((2,), "float32"),
                                  lambda place: place.asarray(np.zeros(2))])
def test_arrays_of_cupy_are_tried_for_again_but_not_in_a_graph(log, make):
    place = CupyPlace.__new__(CupyPlace)
    place._cupy, place.capturing = Full(log), True
    with pytest.raises(MemoryError):
        make(place)
    assert log == ["make"]
    place.capturing = False
    assert make(place) == "made" and log == ["make", "make", "release", "make"]


class Crowded(Mix):
    """A module that has no memory until something is given back."""

    def __init__(self, log):
        super().__init__()
        self.log = log

    def forward(self, a, b):
        self.log.append("run")
        if "release" not in self.log:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return super().forward(a, b)


def test_a_call_of_torch_on_a_gpu_is_tried_again_but_not_in_a_graph(log):
    engine = TorchEngine(SPEC, Crowded(log))
    engine._given = torch.from_numpy
    for device, place in (("cpu", None), ("cuda", SimpleNamespace(capturing=True))):
        engine.device, engine.place = device, place
        with pytest.raises(MemoryError):
            engine(a=A, b=B)
    assert log == ["run", "run"]
    engine.place = None
    assert engine(a=A, b=B)["sum"].tolist() == [6, 9] and log == ["run", "run", "run", "release", "run"]


def test_what_is_kept_for_larger_chunks_is_given_back_before_smaller_ones(monkeypatch):
    log = []

    class Chunked(Generator):
        chunk = 4

        def __init__(self):
            pass

        def decode(self, engines, latents):
            log.append(self.chunk)
            if self.chunk == 4:
                raise MemoryError
            yield latents
    monkeypatch.setattr("pipeline.oom_retry.release", lambda: log.append("release"))
    assert list(OomRetry(Chunked()).decode({}, np.zeros(1))) == [np.zeros(1)]
    assert log == [4, "release", 2]
