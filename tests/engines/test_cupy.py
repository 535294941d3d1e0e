"""Our calls of CuPy: held against the real one where it is installed, and in order on one that is none."""

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from engines.device_arrays import CupyPlace, place_for


class CompileException(Exception):
    """As CuPy's, which is no RuntimeError."""


class Stream:
    """A stream of FakeCupy, which is current while its block runs."""

    def __init__(self, cupy):
        self.cupy, self.ptr = cupy, 7

    def __enter__(self):
        self.cupy.log.append("stream")

    def __exit__(self, *error):
        self.cupy.log.append("stream left")


class FakeCupy(SimpleNamespace):
    """A CuPy whose kernels raise `error`, if that is one; log: what was done."""

    def __init__(self, error=None):
        self.log = []

        def zeros(count):
            if error:
                raise error
            self.log.append("kernel")
            return Sum(self.log)
        cuda = SimpleNamespace(Device=lambda index: nullcontext(), Stream=lambda non_blocking: Stream(self),
                               compiler=SimpleNamespace(CompileException=CompileException))
        super().__init__(log=self.log, zeros=zeros, cuda=cuda)


class Sum:
    """An array whose sums are waited for."""

    def __init__(self, log):
        self.log = log

    def __add__(self, number):
        return self

    def get(self):
        self.log.append("get")


@pytest.fixture
def real():
    """The installed CuPy on a machine without a GPU, where all that reaches CUDA is refused by it."""
    cupy = pytest.importorskip("cupy")
    if cupy.cuda.is_available():
        pytest.skip("there is a GPU: tests/gpu runs on it")
    place = CupyPlace.__new__(CupyPlace)
    place._cupy, place._stream = cupy, cupy.cuda.Stream.null
    return place


def test_cupy_takes_the_arrays_that_a_place_gives_it(real):
    for call in (lambda: real.asarray(np.zeros(3)), lambda: real.asarray(np.zeros((2, 3)).T),
                 lambda: real.empty((2, 3), "float32"), lambda: real.copy(1, 2, 3), real.wait,
                 lambda: CupyPlace("cuda")):
        with pytest.raises(RuntimeError, match="cuda") as refused:
            call()
        assert type(refused.value).__name__ == "CUDARuntimeError"


def test_without_a_gpu_an_installed_cupy_is_refused_with_what_to_do(real):
    said = []
    assert place_for({}, "cuda", said.append) is None
    assert "CuPy does not run (cuda" in said[0] and 'pip install "cupy-cuda13x[ctk]"' in said[0]


def test_a_kernel_runs_before_cupy_is_relied_on(monkeypatch):
    cupy = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    CupyPlace("cuda:1")
    assert cupy.log == ["stream", "kernel", "get", "stream left"]


@pytest.mark.parametrize("error", [RuntimeError("CuPy failed to load libnvrtc.so.13: OSError\nmore"),
                                   CompileException('cannot open source file "cuda_fp16.h"\nmore')])
def test_a_cupy_that_cannot_compile_has_arrays_pass_through_the_host(monkeypatch, error):
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy(error))
    said, engine = [], SimpleNamespace(place=None)
    assert place_for({"denoise": engine}, "cuda", said.append) is None and engine.place is None
    assert str(error).partition("\n")[0] in said[0] and "cupy-cuda13x[ctk]" in said[0]
    assert said[0].startswith("arrays pass through the host at every call, as CuPy does not run (")
