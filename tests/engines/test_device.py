"""The device layer without a device: the choice of a package, and graphs on a library of our own."""

import ctypes

import pytest

from engines.cuda import context as gpu_context
from engines.cuda.context import context_of
from engines.cuda.driver import DRIVERS, Driver, Gpu, open_driver
from engines.cuda.graphs import CudaGraphs
from engines.errors import EngineError
from tests.fake_driver import FakeDriver

GRAPH, READY = 7, 9


class Library:
    """The driver's functions, each answering with a code; handles are written where pointers point."""

    def __init__(self, **codes):
        self.codes, self.calls = codes, []

    def __getattr__(self, function):
        def call(*arguments):
            self.calls.append((function, *(getattr(a, "value", None) for a in arguments)))
            code = self.codes.get(function, 0)
            handle = {"cuStreamEndCapture": GRAPH, "cuGraphInstantiateWithFlags": READY}.get(function)
            for argument in arguments:
                if handle and not code and not isinstance(argument, ctypes._SimpleCData):
                    argument._obj.value = handle
            if function == "cuGetErrorName":
                arguments[1]._obj.value = b"CUDA_ERROR_SOMETHING"
            return code
        return call


def test_a_graph_is_captured_by_its_thread_alone_and_the_recording_freed():
    library = Library()
    graphs = CudaGraphs(library)
    graphs.begin_capture(5)
    assert library.calls == [("cuStreamBeginCapture_v2", 5, 1)]
    assert graphs.end_capture(5) == READY
    assert ("cuGraphDestroy", GRAPH) in library.calls
    graphs.launch(READY, 5)
    graphs.free_graph(READY)
    assert library.calls[-2:] == [("cuGraphLaunch", READY, 5), ("cuGraphExecDestroy", READY)]


def test_a_capture_that_was_spoilt_gives_no_graph():
    assert CudaGraphs(Library(cuStreamEndCapture=901)).end_capture(5) is None
    library = Library(cuGraphInstantiateWithFlags=1)
    assert CudaGraphs(library).end_capture(5) is None
    assert ("cuGraphDestroy", GRAPH) in library.calls


def test_a_code_becomes_an_error_by_cudas_name_and_two_means_out_of_memory():
    with pytest.raises(EngineError, match="cuGraphLaunch failed: CUDA_ERROR_SOMETHING"):
        CudaGraphs(Library(cuGraphLaunch=700)).launch(READY, 5)
    with pytest.raises(MemoryError, match="cuGraphLaunch: out of GPU memory"):
        CudaGraphs(Library(cuGraphLaunch=2)).launch(READY, 5)


@pytest.mark.parametrize("device", ["cpu", "", "gpu", "cuda:", "cuda:x", "cuda:-1"])
def test_what_is_no_gpu_is_refused(device):
    with pytest.raises(EngineError, match="is no GPU; use cuda or cuda:<index>"):
        open_driver(device)


def test_without_a_gpu_each_package_says_what_is_missing(monkeypatch):
    for name in ("pycuda", "pycuda.driver"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(EngineError) as error:
        open_driver("cuda:77")
    lines = str(error.value).splitlines()
    assert lines[0] == "cuda:77 cannot be used; a driver and one of these are needed"
    assert [line.partition(":")[0] for line in lines[1:]] == list(DRIVERS)


def test_all_drivers_have_what_the_protocol_asks_for():
    from engines.cuda.driver_cuda_python import CudaPythonDriver
    from engines.cuda.driver_pycuda import PycudaDriver

    asked = {name for name in vars(Driver) if not name.startswith("_")}
    assert len(asked) > 12
    for driver in (PycudaDriver, CudaPythonDriver, FakeDriver):
        assert asked <= set(dir(driver)) | {"gpu"}, driver


def test_a_device_has_one_lane_in_the_process(monkeypatch):
    monkeypatch.setattr(gpu_context, "_CONTEXTS", {})
    monkeypatch.setattr(gpu_context, "open_driver", lambda device: FakeDriver())
    assert context_of("cuda") is context_of("cuda:0") is not context_of("cuda:1")


def test_a_gpu_is_named_by_its_architecture():
    assert Gpu("NVIDIA RTX 5090", (12, 0), 13000).sm == "sm_120"
