"""OpenVINO's compiled graphs on disk: found only for the same, made again when damaged, never in the way."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_onnx_engines import SPEC, A, B, write_graph

import engines.backends.openvino_backend as cache
from engines.artifact import Label, writing
from engines.backends.openvino_backend import OpenVinoEngine
from engines.errors import EngineError
from engines.spec import Cadence, ComponentSpec, DimRange, TensorSpec

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def artifact(tmp_path):
    """The artifact of a graph with a difference and a sum."""
    with writing(tmp_path / "built", Label("mix", "fp32", ".onnx"), {}) as draft:
        write_graph(draft.path)
    return draft.artifact


@pytest.fixture
def compiles(monkeypatch):
    """What was compiled rather than read from a file, one entry each."""
    import engines.backends.openvino_backend as engine

    core, seen = engine._core(), []

    class Counting:
        def __getattr__(self, name):
            return getattr(core, name)

        def compile_model(self, *arguments):
            seen.append(arguments)
            return core.compile_model(*arguments)

    monkeypatch.setattr(engine, "_core", Counting)
    return seen


def start(artifact, precision="fp32"):
    engine = OpenVinoEngine(SPEC, artifact.path, precision, artifact)
    np.testing.assert_array_equal(engine(a=A, b=B)["sum"], A + B)
    np.testing.assert_array_equal(engine(a=A[:1], b=B[:1])["difference"], (A - B)[:1])


def kept(artifact):
    return sorted(artifact.path.parent.glob("*.openvino"))


def test_the_second_start_compiles_nothing(artifact, compiles):
    start(artifact)
    assert len(compiles) == 1 and len(kept(artifact)) == 1
    start(artifact)
    assert len(compiles) == 1
    files = {path.name for path in artifact.path.parent.iterdir()}
    assert files == {artifact.path.name, f"{artifact.path.name}.json", kept(artifact)[0].name}


def test_each_setting_has_a_file_of_its_own(artifact, compiles):
    import engines.backends.openvino_backend as engine

    for compute in ("f32", "bf16", "f32", "bf16"):
        cache.load_or_compile(engine._core(), artifact, {"INFERENCE_PRECISION_HINT": compute})
    assert len(compiles) == 2 and len(kept(artifact)) == 2


def other_graph(artifact, monkeypatch):
    artifact.manifest["files"][artifact.path.name] = "0" * 64


def other_version(artifact, monkeypatch):
    monkeypatch.setattr("openvino.__version__", "1.0")


def other_processor(artifact, monkeypatch):
    monkeypatch.setattr(cache, "_instructions", lambda: "flags: fpu")


@pytest.mark.parametrize("change", [other_graph, other_version, other_processor])
def test_what_was_compiled_from_or_for_another_is_not_used(artifact, compiles, monkeypatch, change):
    start(artifact)
    change(artifact, monkeypatch)
    start(artifact)
    assert len(compiles) == 2 and len(kept(artifact)) == 2


def cut(content):
    return content[:-100]


def flip(content):
    return content[:200] + bytes([content[200] ^ 1]) + content[201:]


def empty(content):
    return b""


@pytest.mark.parametrize("damage", [cut, flip, empty])
def test_a_damaged_file_is_made_again_and_not_given_to_openvino(artifact, compiles, monkeypatch, damage):
    start(artifact)
    (path,) = kept(artifact)
    good = path.read_bytes()
    path.write_bytes(damage(good))
    start(artifact)
    assert len(compiles) == 2 and cache._read(path) is not None
    start(artifact)
    assert len(compiles) == 2


def test_a_whole_file_that_openvino_refuses_is_made_again(artifact, compiles):
    start(artifact)
    (path,) = kept(artifact)
    cache._write(path, b"not a compiled graph")
    start(artifact)
    assert len(compiles) == 2 and len(path.read_bytes()) > 1000


def test_a_folder_that_cannot_be_written_is_no_hindrance_and_nothing_is_left_half_done(
    artifact, compiles, monkeypatch
):
    def refuse(*arguments):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuse)
    start(artifact)
    start(artifact)
    assert len(compiles) == 2 and kept(artifact) == []
    assert {path.suffix for path in artifact.path.parent.iterdir()} == {".onnx", ".json"}


def test_a_read_only_folder_is_no_hindrance(artifact, compiles, monkeypatch):
    def refuse(**options):
        assert Path(options["dir"]) == artifact.path.parent
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    start(artifact)
    assert len(compiles) == 1 and kept(artifact) == []


def test_a_graph_of_another_component_is_refused_from_its_file_too(artifact):
    from dataclasses import replace

    start(artifact)
    other = replace(SPEC, outputs=SPEC.outputs[:1])
    for _ in range(2):
        with pytest.raises(EngineError, match="is not a mix: its outputs are"):
            OpenVinoEngine(other, artifact.path, "fp32", artifact)


@pytest.mark.parametrize("again", [False, True])
def test_names_of_tensors_that_compiling_did_away_with_are_not_taken_for_the_graph_s(tmp_path, again):
    """The sum of x and 0 becomes x itself, which then has both names; likewise at the other end."""
    zero = numpy_helper.from_array(np.zeros(1, np.float32), "zero")
    kinds = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("x", "y")]
    nodes = [helper.make_node("Add", [a, "zero"], [b]) for a, b in (("x", "a"), ("b", "c"), ("c", "y"))]
    nodes.insert(1, helper.make_node("Neg", ["a"], ["b"]))
    model = helper.make_model(helper.make_graph(nodes, "negate", kinds[:1], kinds[1:], [zero]), ir_version=10,
                              opset_imports=[helper.make_opsetid("", 20)])
    spec = ComponentSpec("negate", Cadence.STEP, (TensorSpec("x", ("n", 2)),), (TensorSpec("y", ("n", 2)),),
                         {"n": DimRange(1, 2, 4)})
    with writing(tmp_path, Label("negate", "fp32", ".onnx"), {}) as draft:
        onnx.save(model, draft.path)
    for _ in range(1 + again):
        engine = OpenVinoEngine(spec, draft.artifact.path, "fp32", draft.artifact)
        np.testing.assert_array_equal(engine(x=A)["y"], -A)


def test_without_an_artifact_nothing_is_kept(artifact):
    OpenVinoEngine(SPEC, artifact.path)
    assert kept(artifact) == []


def test_openvino_is_imported_without_its_converter_which_sends_word_of_it(tmp_path):
    program = """if True:
        import sys
        from engines.backends.openvino_backend import _core, why_not
        assert why_not("cpu") is None and _core()
        print(*(name for name in sys.modules if "telemetry" in name or "tools.ovc." in name))
    """
    environment = {**os.environ, "HOME": str(tmp_path)}
    command = [sys.executable, "-c", program]
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (answer.returncode, answer.stdout.split(), list(tmp_path.iterdir())) == (0, [], [])


def test_empty_outputs_of_a_graph_are_out_of_memory_not_a_result(artifact, monkeypatch):
    """OpenVINO 2026.4 answers so, without an error, when memory is short."""
    engine = OpenVinoEngine(SPEC, artifact.path)
    empty = SimpleNamespace(data=np.zeros((0, 2), np.float32))
    request = SimpleNamespace(infer=lambda inputs: None, get_tensor=lambda name: empty)
    monkeypatch.setattr(engine, "_request", request)
    with pytest.raises(MemoryError, match=r"came empty, \(0, 2\): no memory for"):
        engine(a=A, b=B)
