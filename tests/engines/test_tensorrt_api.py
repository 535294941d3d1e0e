"""Refusals of TensorRT become errors with its words; targets, settings and sizes are checked before."""

import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from engines.cuda.driver import Gpu
from engines.errors import EngineError
from engines.spec import Cadence, ComponentSpec, DimRange, TensorSpec
from engines.tensorrt import api as tensorrt_api
from engines.tensorrt import build as tensorrt_build
from engines.tensorrt import targets as tensorrt_targets
from engines.tensorrt.api import TensorRT, load
from engines.tensorrt.network import Network, Settings, check_shapes, shapes_of
from engines.tensorrt.targets import Targets, check_precision, resolve_targets
from tests.fake_tensorrt import FakeTensorRT

SPEC = ComponentSpec("mix", Cadence.STEP, (TensorSpec("a", ("n", 3)), TensorSpec("b", (4,))),
                     (TensorSpec("c", ("n",)),), {"n": DimRange(1, 2, 8)})
HOPPER, ADA = Gpu("NVIDIA H200", (9, 0), 13000), Gpu("NVIDIA Ada", (8, 9), 13000)


def level(name):
    return SimpleNamespace(name=name)


@pytest.fixture
def api():
    """A classic TensorRT that has nothing but a logger."""
    logger = type("ILogger", (), {})
    return TensorRT(SimpleNamespace(__name__="tensorrt", __version__="10.16.1.11", ILogger=logger))


@pytest.mark.parametrize("answer", [None, False, -1])
def test_what_means_failure_is_an_error_with_tensorrts_last_words(api, answer):
    api.logger.log(level("ERROR"), "first")
    api.logger.log(level("INFO"), "chatter")
    api.logger.log(level("INTERNAL_ERROR"), " the reason ")
    with pytest.raises(EngineError, match="^it failed: first; the reason$"):
        api.checked(answer, "it failed")
    with pytest.raises(EngineError, match="^it failed: tensorrt 10.16.1.11 gives no reason$"):
        api.checked(answer, "it failed")


@pytest.mark.parametrize("answer", [0, True, 1, "", [], b""])
def test_what_is_empty_or_zero_is_no_failure(api, answer):
    assert api.checked(answer, "") is answer


@pytest.mark.parametrize("words", ["Cuda Runtime (out of memory)", "OutOfMemory", "error FAILED_ALLOCATION"])
def test_running_out_of_memory_is_a_memory_error(api, words):
    api.logger.log(level("ERROR"), words)
    assert type(api.failure("it failed")) is MemoryError


def test_the_error_says_what_to_do_where_that_is_known(api):
    api.logger.log(level("ERROR"), "ElementWiseOperation SUM must have same input types.")
    assert str(api.failure("x")).endswith("which strong typing refuses; run export_onnx.py again")


def test_warnings_are_kept_apart_and_told_once(api):
    for _ in range(3):
        api.logger.log(level("WARNING"), "careful")
    assert api.take_messages() == [("WARNING", "careful")] and api.take_messages() == []


def test_a_factory_that_gives_nothing_names_the_driver(api):
    def Runtime(logger):  # noqa: N802
        raise TypeError("pybind11::init(): factory function returned nullptr")
    with pytest.raises(EngineError, match="cannot start a Runtime, as without a working NVIDIA driver"):
        api.create(Runtime)


def test_the_real_logger_hears_why_a_file_is_no_engine():
    api = load("tensorrt_rtx")
    runtime = api.create(api.trt.Runtime)
    with pytest.raises(EngineError, match="^not loaded: .{20}"):
        api.checked(runtime.deserialize_cuda_engine(b"no engine" * 20), "not loaded")


def test_bindings_without_their_libraries_count_as_not_installed(monkeypatch):
    def fail(name):
        raise OSError("libnvinfer.so.11: cannot open shared object file")
    monkeypatch.setattr(tensorrt_api.importlib, "import_module", fail)
    assert load.__wrapped__("tensorrt") is None


def test_sizes_come_from_the_spec_and_fixed_ones_are_the_best():
    assert shapes_of(SPEC, fixed=False) == {"a": [[1, 3], [2, 3], [8, 3]], "b": [[4], [4], [4]]}
    assert shapes_of(SPEC, fixed=True) == {"a": [[2, 3]] * 3, "b": [[4]] * 3}


@pytest.mark.parametrize(("network", "reason"), [
    ({"a": (-1, 3)}, r"the graph's inputs are \['a'\], expected \['a', 'b'\]"),
    ({"a": (-1, 3, 1), "b": (4,)}, r"a of \[1, 3\] does not fit the graph's \[-1, 3, 1\]"),
    ({"a": (2, 3), "b": (4,)}, r"a of \[1, 3\] does not fit the graph's \[2, 3\]"),
    ({"a": (-1, 3), "b": (5,)}, r"b of \[4\] does not fit .* run export_onnx.py again"),
])
def test_sizes_that_tensorrt_would_take_without_a_word_are_refused(network, reason):
    with pytest.raises(EngineError, match=reason):
        check_shapes(SPEC, shapes_of(SPEC, fixed=False), network)


@pytest.mark.parametrize(("settings", "reason"), [
    ({"level": 6}, "builder level is 0 to 5, got 6"), ({"memory": 0}, "memory limit must be above 0, got 0")])
def test_settings_out_of_range_are_refused(settings, reason):
    with pytest.raises(ValueError, match=reason):
        Settings(**settings)


def test_targets_are_any_gpu_of_an_architecture():
    targets = resolve_targets("120,80,86")
    assert targets.gpus == {"sm_120": "any GPU", "sm_80": "any GPU", "sm_86": "any GPU"}
    assert targets.capabilities == [80, 86, 120] and targets.api.flavour == "tensorrt_rtx"


@pytest.mark.parametrize("text", ["", "ada", "8.9", "80,", "8", "80 86", "gpu:", "gpu:x", "cuda:1"])
def test_what_is_no_target_is_refused(text):
    with pytest.raises(ValueError, match="--target takes gpu, gpu:1 .*or compute capabilities as 80,"):
        resolve_targets(text)


def test_a_target_that_tensorrt_rtx_lacks_names_those_it_has_and_who_has_it():
    with pytest.raises(EngineError, match="does not build for sm_90, only for 75, 80, .*Hopper .* classic"):
        resolve_targets("80,90")


def test_the_gpu_here_needs_one_and_the_error_names_the_other_way(monkeypatch):
    def no_gpu(device):
        raise EngineError("cuda cannot be used")
    monkeypatch.setattr(tensorrt_targets, "open_driver", no_gpu)
    with pytest.raises(EngineError, match="cuda cannot be used\nwithout a GPU, .*--target 80,86,89,120"):
        resolve_targets("gpu")


def test_the_gpu_here_is_built_for_by_classic_tensorrt_first(monkeypatch, api):
    drivers = {f"cuda:{n}": SimpleNamespace(gpu=each, current=n) for n, each in enumerate((HOPPER, ADA))}
    monkeypatch.setattr(tensorrt_targets, "open_driver", drivers.__getitem__)
    monkeypatch.setattr(tensorrt_targets, "installed", lambda: [api, load("tensorrt_rtx")])
    targets = resolve_targets("gpu")
    assert targets.api is api and targets.gpus == {"sm_90": "NVIDIA H200"} and targets.here is HOPPER
    second = resolve_targets("gpu:1")
    assert second.here is ADA and second.gpus == {"sm_89": "NVIDIA Ada"} and second.current == 1
    monkeypatch.setattr(tensorrt_targets, "installed", lambda: [load("tensorrt_rtx")])
    with pytest.raises(EngineError, match="does not build for sm_90"):
        resolve_targets("gpu")


def test_the_gpu_here_is_the_current_one_while_its_engine_is_built(monkeypatch, api):
    seen = []

    @contextmanager
    def current():
        seen.append("in")
        yield

    def network(*arguments):
        seen.append("building")
        raise EngineError("no more is asked")
    targets = Targets(api, {"sm_90": "NVIDIA H200"}, HOPPER, current)
    order = SimpleNamespace(onnx=SimpleNamespace(path=Path("a.onnx")), targets=targets, spec=SPEC)
    monkeypatch.setattr(tensorrt_build, "Network", network)
    with pytest.raises(EngineError, match="no more is asked"):
        tensorrt_build.build(order, lambda share: None)
    assert seen == ["in", "building"]


def test_the_gpu_here_is_current_on_the_thread_that_builds(api):
    inside, seen = set(), []

    @contextmanager
    def current():
        inside.add(threading.get_ident())
        yield
        inside.remove(threading.get_ident())

    def build_serialized_network(network, config):
        seen.append((threading.get_ident() == threading.main_thread().ident, threading.get_ident() in inside))
        return b"plan"
    api.trt.IProgressMonitor, api.is_rtx = object, True  # which reads no cache of timings
    targets = Targets(api, {}, HOPPER, current)
    builder = SimpleNamespace(build_serialized_network=build_serialized_network)
    network = SimpleNamespace(config=SimpleNamespace(), builder=builder, network=None)
    order = SimpleNamespace(targets=targets, label="mix-fp16.engine")
    assert tensorrt_build._compile(network, order, lambda share: None) == b"plan"
    assert seen == [(False, True)] and not inside  # another thread, with the GPU current on it


def test_memory_within_kernels_is_sized_for_shapes_where_there_is_a_profile(api):
    api.trt.PreviewFeature, api.trt.BuilderFlag = FakeTensorRT.PreviewFeature, SimpleNamespace(TF32="TF32")
    asked, cleared = [], []
    network = Network.__new__(Network)
    network.api, network.profile = api, None
    network.config = SimpleNamespace(set_preview_feature=lambda *given: asked.append(given),
                                     clear_flag=cleared.append)
    network.configure(Settings())
    assert not asked and cleared == ["TF32"]
    network.profile = object()
    network.configure(Settings())
    assert asked == [(FakeTensorRT.PreviewFeature.RUNTIME_ACTIVATION_RESIZE_10_10, True)]
    del api.trt.PreviewFeature  # of a TensorRT before 10.10
    network.configure(Settings())
    assert len(asked) == 1


def test_fp8_is_refused_for_targets_without_it(api):
    targets = Targets(api, dict.fromkeys(["sm_120", "sm_86", "sm_80"], "any GPU"))
    with pytest.raises(EngineError, match="fp8 needs compute capability 8.9 .*; leave sm_80, sm_86 out of"):
        check_precision(targets, "fp8")
    check_precision(targets, "int8")
    check_precision(Targets(api, {"sm_89": "any GPU", "sm_120": "any GPU"}), "fp8")
