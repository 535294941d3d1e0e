"""ONNX Runtime for a GPU, without one: libraries that it loads, versions that it refuses, what it prints."""

import importlib.metadata
import re
import sys
from types import SimpleNamespace

import pytest

from engines.backends import onnxruntime_backend
from engines.backends.onnxruntime_backend import OnnxRuntimeEngine
from engines.errors import EngineError
from engines.spec import Cadence, ComponentSpec, DimRange, TensorSpec
from tests.engines.test_onnx_engines import SPEC, write_graph


def test_cudas_libraries_are_loaded_first_and_what_is_said_of_them_is_not_among_data(
    tmp_path, monkeypatch, capsys
):
    import onnxruntime
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcudart.so.13"))
    with pytest.raises(EngineError, match="onnxruntime could not start CUDAExecutionProvider"):
        OnnxRuntimeEngine(SPEC, write_graph(tmp_path / "mix.onnx"), "cuda")
    said = capsys.readouterr()
    assert "libcudart.so.13" in said.err and not said.out


def test_what_a_session_prints_of_a_provider_that_fails_is_not_among_data(tmp_path, monkeypatch, capsys):
    import onnxruntime
    session = onnxruntime.InferenceSession

    def failing(*given, **options):
        print("*************** EP Error ***************")
        return session(*given, **options)
    monkeypatch.setattr(onnxruntime, "InferenceSession", failing)
    OnnxRuntimeEngine(SPEC, write_graph(tmp_path / "mix.onnx"))
    said = capsys.readouterr()
    assert "EP Error" in said.err and not said.out


def test_onnx_runtime_on_cuda_is_refused_before_its_kernels_for_attention_and_bf16(monkeypatch):
    import onnxruntime
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    refused = ("onnxruntime 1.24.4 has no CUDA kernels for attention and for bf16; run: "
               "pip install -r requirements-gpu.txt")
    for version, reason in (("1.24.4", refused), ("1.25.0", None), ("2.0.1", None)):
        monkeypatch.setattr(onnxruntime, "__version__", version)
        assert onnxruntime_backend.why_not("cuda") == reason and onnxruntime_backend.why_not("cpu") is None


def test_its_tensorrt_is_told_all_sizes_and_its_library_is_loaded_by_its_package(monkeypatch, tmp_path):
    import onnxruntime
    (tmp_path / "tensorrt.py").write_text("here = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.delitem(sys.modules, "tensorrt")  # and put back what was there at the end
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    with pytest.raises(EngineError, match="could not start TensorrtExecutionProvider"):
        OnnxRuntimeEngine(SPEC, write_graph(tmp_path / "mix.onnx"), "cuda:1", tensorrt_cache=tmp_path)
    assert sys.modules["tensorrt"].here
    ranged = ComponentSpec("r", Cadence.STEP, (TensorSpec("x", ("n", 3)), TensorSpec("y", (2, "n"))),
                           (TensorSpec("z", ("n",)),), {"n": DimRange(1, 4, 8)})
    (name, options), *_ = onnxruntime_backend._providers("cuda:1", ranged, tmp_path)
    assert name == "TensorrtExecutionProvider" and options["device_id"] == "1"
    assert [options[f"trt_profile_{size}_shapes"] for size in ("min", "opt", "max")] == [
        "x:1x3,y:2x1", "x:4x3,y:2x4", "x:8x3,y:2x8"]


@pytest.mark.parametrize(("version", "reason"), [
    ("11.4.0.106", 'needs TensorRT 10, and tensorrt 11.4.0.106 is installed; run: pip install "tensorrt<11"'),
    ("10.16.1.11", "no mix-fp32.onnx in"), (None, "no mix-fp32.onnx in")])
def test_a_tensorrt_that_the_provider_is_not_linked_to_is_refused(monkeypatch, tmp_path, version, reason):
    def installed(package):
        if version is None or package != "tensorrt":
            raise importlib.metadata.PackageNotFoundError(package)
        return version
    monkeypatch.setattr(importlib.metadata, "version", installed)
    model = SimpleNamespace(components={"mix": SPEC}, fingerprint_files=())
    with pytest.raises(EngineError, match=re.escape(reason)):
        onnxruntime_backend.start_tensorrt(model, "mix", "fp32", "cuda", tmp_path)
