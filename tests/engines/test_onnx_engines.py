"""ONNX Runtime and OpenVINO answer like the torch engine: same names, same checks, same numbers."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines.backends.onnxruntime_backend import OnnxRuntimeEngine
from engines.backends.openvino_backend import OpenVinoEngine
from engines.errors import EngineError
from engines.load import allowed_threads
from engines.spec import Cadence, ComponentSpec, DimRange, TensorSpec
from lab.gpu.fake_arrays import FakePlace

ROOT = Path(__file__).resolve().parents[2]
ENGINES = [OnnxRuntimeEngine, OpenVinoEngine]
SPEC = ComponentSpec("mix", Cadence.STEP, (TensorSpec("a", ("n", 2)), TensorSpec("b", ("n", 2))),
                     (TensorSpec("difference", ("n", 2)), TensorSpec("sum", ("n", 2))),
                      {"n": DimRange(1, 2, 4)})
A, B = np.array([[5, 7], [1, 2]], np.float32), np.array([[1, 2], [3, 4]], np.float32)


def write_graph(path, names=("a", "b", "difference", "sum"), kind=TensorProto.FLOAT):
    a, b, difference, total = names
    tensors = [helper.make_tensor_value_info(name, kind, ["n", 2]) for name in names]
    nodes = [helper.make_node("Sub", [a, b], [difference]), helper.make_node("Add", [a, b], [total])]
    graph = helper.make_graph(nodes, "mix", tensors[:2], tensors[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path


@pytest.fixture
def path(tmp_path):
    return write_graph(tmp_path / "mix.onnx")


@pytest.mark.parametrize("engine", ENGINES)
def test_inputs_and_outputs_go_by_name_at_every_size(engine, path):
    run = engine(SPEC, path)
    for rows in (1, 2):
        outputs = run(b=B[:rows], a=A[:rows])
        assert list(outputs) == ["difference", "sum"]
        np.testing.assert_array_equal(outputs["difference"], (A - B)[:rows])
        np.testing.assert_array_equal(outputs["sum"], (A + B)[:rows])


@pytest.mark.parametrize("engine", ENGINES)
def test_an_output_is_not_overwritten_by_the_next_call(engine, path):
    run = engine(SPEC, path)
    first = run(a=A, b=B)["sum"]
    run(a=A * 10, b=B)
    np.testing.assert_array_equal(first, A + B)


def test_arrays_of_a_place_are_bound_where_they_lie(path, monkeypatch):
    monkeypatch.setattr(OnnxRuntimeEngine, "_memory", ("cpu", 0))  # as the fake place's arrays are
    run, place = OnnxRuntimeEngine(SPEC, path), FakePlace()
    run.place = place
    a = place.asarray(np.asfortranarray(A))
    for rows in (2, 1):
        outputs = run(b=B[:rows], a=a[:rows])
        assert list(outputs) == ["difference", "sum"]
        np.testing.assert_array_equal(outputs["difference"].get(), (A - B)[:rows])
        twice = run(a=outputs["sum"], b=outputs["sum"])["sum"]
        np.testing.assert_array_equal(twice.get(), 2 * (A + B)[:rows])
    assert place.up["float32"] == 16 + 16 + 8


@pytest.mark.parametrize("engine", ENGINES)
def test_strided_inputs_are_read_as_they_look(engine, path):
    outputs = engine(SPEC, path)(a=A[::-1], b=B.T.copy().T)
    np.testing.assert_array_equal(outputs["sum"], A[::-1] + B)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_spec_is_checked_before_the_graph_runs(engine, path):
    run = engine(SPEC, path)
    with pytest.raises(ValueError, match=r"mix takes \['a', 'b'\], got \['a'\]"):
        run(a=A)
    with pytest.raises(ValueError, match=r"n of a must lie in 1..4, got 5"):
        run(a=np.zeros((5, 2), np.float32), b=np.zeros((5, 2), np.float32))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_closed_engine_refuses_to_run(engine, path):
    run = engine(SPEC, path)
    run.close()
    with pytest.raises(ValueError, match="mix: this engine is closed; build another"):
        run(a=A, b=B)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("content", [b"", b"hello", None])
def test_a_corrupt_or_missing_file_is_an_engine_error_that_names_it(engine, tmp_path, content):
    path = tmp_path / "allocations" / "bad.onnx"  # whose name says nothing of memory
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError, match=f"cannot load {path}: .{{8}}"):
        engine(SPEC, path)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_truncated_graph_is_an_engine_error(engine, path):
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(EngineError, match="mix.onnx"):
        engine(SPEC, path)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("change", "text"), [
    ({"names": ("a", "c", "difference", "sum")}, r"its inputs are .*'c'.* expected .*'b'"),
    ({"names": ("a", "b", "sum", "product")}, r"its outputs are .*'product'.* expected .*'difference'"),
    ({"kind": TensorProto.DOUBLE}, r"its inputs are .*float64.* expected .*float32"),
])
def test_a_graph_of_another_component_is_refused_with_what_differs(engine, tmp_path, change, text):
    with pytest.raises(EngineError, match=f"is not a mix: {text}"):
        engine(SPEC, write_graph(tmp_path / "other.onnx", **change))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_without_the_package_the_reason_says_what_to_install(engine, monkeypatch):
    from engines.load import backend_module
    monkeypatch.setitem(sys.modules, engine, None)
    assert f"{engine} is not installed; run: pip install {engine}" in backend_module(engine).why_not("cpu")


@pytest.mark.parametrize(("engine", "device"), [("onnxruntime", "meta"), ("openvino", "cuda")])
def test_a_device_that_the_backend_lacks_is_named(engine, device):
    from engines.load import backend_module
    assert f"not on {device}" in backend_module(engine).why_not(device)


def test_a_kernel_that_is_missing_names_the_way_out(tmp_path):
    tensor = helper.make_tensor_value_info("a", TensorProto.BFLOAT16, [2])
    graph = helper.make_graph([helper.make_node("Exp", ["a"], ["b"])], "exp", [tensor],
                              [helper.make_tensor_value_info("b", TensorProto.BFLOAT16, [2])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
              tmp_path / "exp.onnx")
    with pytest.raises(EngineError, match="NOT_IMPLEMENTED.*; choose another --precision, as fp16"):
        OnnxRuntimeEngine(SPEC, tmp_path / "exp.onnx")


@pytest.mark.parametrize(
    "name", ["engines.backends.onnxruntime_backend", "engines.backends.openvino_backend", "engines.load"])
def test_importing_a_backend_imports_no_framework(name):
    code = f"import sys, {name}; print(sorted({{'torch', 'onnxruntime', 'openvino'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_openvinos_bfloat16_rounds_and_its_fp32_does_not(tmp_path):
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 64]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "product", tensors[:1],
                              tensors[1:], [onnx.numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
              tmp_path / "product.onnx")
    spec = ComponentSpec("product", Cadence.STEP, (TensorSpec("x", (4, 64)),), (TensorSpec("y", (4, 64)),))
    x = np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)

    def error(precision):
        try:
            y = OpenVinoEngine(spec, tmp_path / "product.onnx", precision)(x=x)["y"]
        except EngineError as refusal:
            assert "this processor has no bfloat16" in str(refusal)
            pytest.skip(str(refusal))
        return np.abs(y - x.astype(np.float64) @ weight).max()

    assert error("fp32") < 1e-4 < 1e-2 < error("bf16") < 0.5


def test_a_signal_after_openvino_engines_were_freed_is_handled(path):
    code = f"""
import gc, os, signal
from engines.backends.openvino_backend import OpenVinoEngine
from tests.engines.test_onnx_engines import SPEC
engines = [OpenVinoEngine(SPEC, {str(path)!r}) for _ in range(2)]
while engines:
    engines.pop(0).close()
    gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGTERM)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stdout) == (0, "handled\n"), result.stderr


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3})
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


ASKED = [("", 0), ("1", 1), ("2", 2), ("2,1", 2), ("9", 0), ("0", 0), ("x", 0)]


@pytest.mark.parametrize("asked, allowed", ASKED)
def test_threads_are_no_more_than_asked_for(four_cores, monkeypatch, asked, allowed):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert allowed_threads() == allowed


def test_threads_are_no_more_than_the_process_has_cores(four_cores, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2})
    assert allowed_threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert allowed_threads() == 1


def test_both_runtimes_take_the_threads_they_are_allowed(four_cores, path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    compiled = OpenVinoEngine(SPEC, path)._request.get_compiled_model()
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert not compiled.get_property("ENABLE_CPU_PINNING")
    assert OnnxRuntimeEngine(SPEC, path)._session.get_session_options().intra_op_num_threads == 1


def test_onnxruntime_leaves_nothing_at_home_and_sends_nothing(path, tmp_path):
    """From 1.31 on it keeps an id in HOME and what it is going to send to Microsoft, and a file in TMPDIR."""
    program = f"""if True:
        from tests.engines.test_onnx_engines import A, B, SPEC, OnnxRuntimeEngine
        OnnxRuntimeEngine(SPEC, {str(path)!r})(a=A, b=B)
    """
    places = {"HOME": tmp_path / "home", "TMPDIR": tmp_path / "tmp"}
    for folder in places.values():
        folder.mkdir()
    environment = {**os.environ, **{name: str(folder) for name, folder in places.items()}}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    command = [sys.executable, "-c", program]
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert [*places["HOME"].rglob("*"), *places["TMPDIR"].rglob("*")] == []
