"""Choosing a backend and a precision for each component, and the doctor."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from engines import load
from engines.errors import EngineError
from engines.load import AUTOMATIC, BACKENDS, Choice, precisions_on, start_engines
from engines.precision import PRECISIONS, PrecisionError, choose_precisions
from engines.spec import Cadence, ComponentSpec, DimRange, TensorSpec
from lab.null_engine import NullEngine

ROOT = Path(__file__).resolve().parents[2]
COMPONENTS = ("encode", "denoise", "decode")
SPEC = ComponentSpec("grow", Cadence.STEP, (TensorSpec("x", ("n", 2)),),
                     (TensorSpec("y", ("n", "m", 3), "uint8"),), {"n": DimRange(1, 2, 4)})
MODEL = SimpleNamespace(name="model", components={"a": SPEC, "b": SPEC}, fingerprint_files=(), build=None)


@pytest.mark.parametrize(("text", "expected"), [
    ("fp32", ["fp32", "fp32", "fp32"]),
    ("fp16,denoise=int8", ["fp16", "int8", "fp16"]),
    ("encode=fp32, denoise=fp8, decode=bf16", ["fp32", "fp8", "bf16"]),
    ("denoise=int8,fp16", ["fp16", "fp16", "fp16"]),  # read from left to right
])
def test_a_precision_for_all_then_exceptions(text, expected):
    assert list(choose_precisions(text, COMPONENTS).values()) == expected


@pytest.mark.parametrize(("text", "message"), [
    ("fp17", "unknown precision 'fp17'; did you mean 'fp16'?"),
    ("zzz", f"unknown precision 'zzz'; known: {', '.join(PRECISIONS)}, native"),
    ("", "unknown precision ''"),
    ("fp16,denoiser=int8", "unknown component 'denoiser'; did you mean 'denoise'?"),
    ("denoise=int8", "gives encode, decode none; begin with one for all"),
])
def test_an_unknown_name_is_an_error_that_names_the_nearest(text, message):
    with pytest.raises(PrecisionError, match=message.replace("?", r"\?")):
        choose_precisions(text, COMPONENTS)


def test_the_null_engine_gives_zeros_of_the_right_shapes_and_counts():
    engine = NullEngine(SPEC, sizes={"m": 5})
    y = engine(x=np.ones((3, 2), np.float32))["y"]
    assert y.shape == (3, 5, 3) and y.dtype == np.uint8 and not y.any() and engine.calls == 1
    with pytest.raises(ValueError, match="n of x must lie in 1..4, got 9"):
        engine(x=np.ones((9, 2), np.float32))
    assert engine.calls == 1
    engine.close()
    with pytest.raises(ValueError, match="grow: this engine is closed"):
        engine(x=np.ones((3, 2), np.float32))


def backend(reason=None, fails_at=None):
    """A backend module in which every engine is a NullEngine, kept in `started`."""
    started = []

    def start(model, component, precision, device, folder):
        if component == fails_at:
            raise EngineError(f"no {component}-{precision} in {folder}; run: something")
        started.append(NullEngine(model.components[component]))
        return started[-1]

    return SimpleNamespace(why_not=lambda device: reason, start=start, started=started)


def choose(monkeypatch, modules, name):
    monkeypatch.setattr(load, "backend_module", lambda name: modules[name])
    said = []
    choice = Choice(name, {"a": "fp16", "b": "fp32"}, "cpu", Path("built"))
    return said, *start_engines(MODEL, choice, said.append)


def test_auto_takes_the_first_backend_that_has_everything_and_says_why(monkeypatch):
    modules = {"tensorrt": backend("no GPU"), "openvino": backend(fails_at="b"), "onnxruntime": backend(),
               "torch": backend()}
    said, name, engines = choose(monkeypatch, modules, "auto")
    assert list(engines.values()) == modules["onnxruntime"].started and list(engines) == ["a", "b"]
    assert said == ["not tensorrt: no GPU\nnot openvino: no b-fp32 in built; run: something\n"
                    "backend: onnxruntime"]
    assert name == "onnxruntime"
    assert [engine.closed for engine in modules["openvino"].started] == [True]


def test_when_no_backend_can_run_every_reason_is_given(monkeypatch):
    modules = {name: backend(f"{name} is missing") for name in BACKENDS}
    with pytest.raises(EngineError) as error:
        choose(monkeypatch, modules, "auto")
    assert str(error.value).count("is missing") == len(AUTOMATIC)


def test_a_backend_asked_for_by_name_never_falls_back(monkeypatch):
    modules = {"tensorrt": backend("no GPU"), "torch": backend()}
    with pytest.raises(EngineError, match="^no GPU$"):
        choose(monkeypatch, modules, "tensorrt")
    assert modules["torch"].started == []


@pytest.mark.parametrize(("has_bf16", "expected"), [
    (lambda device: device == "cpu", "bf16"), (lambda device: device != "cpu", "fp32"), (None, "fp32"),
])
def test_native_is_bf16_where_the_backend_has_it_and_fp32_elsewhere(monkeypatch, has_bf16, expected):
    asked = []
    module = backend()
    module.start = lambda model, component, precision, device, folder: (
        asked.append(precision) or NullEngine(model.components[component])
    )
    if has_bf16:
        module.has_bf16 = has_bf16
    monkeypatch.setattr(load, "backend_module", lambda name: module)
    choice = Choice("openvino", {"a": "native", "b": "fp16"}, "cpu", Path("built"))
    start_engines(MODEL, choice, print)
    assert asked == [expected, "fp16"]
    assert precisions_on("openvino", choice) == {"a": expected, "b": "fp16"}


def test_native_is_for_runs_and_never_the_precision_of_a_file():
    assert choose_precisions("native", ["denoise"]) == {"denoise": "native"}
    with pytest.raises(PrecisionError, match="unknown precision 'native'"):
        choose_precisions("native", ["denoise"], to_run=False)


def doctor(*arguments):
    command = [sys.executable, "-m", "engines", "doctor", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_doctor_has_a_line_for_each_backend_and_device():
    lines = doctor().splitlines()
    rows = lines[2 : lines.index("")]
    assert [line.split()[:2] for line in rows] == [[d, b] for d in ("cpu", "cuda") for b in BACKENDS]
    assert any(line.split() == ["cpu", "torch", "works"] for line in lines)


def test_the_doctor_gives_the_same_as_json():
    found = json.loads(doctor("--json"))
    assert set(found["backends"]) == set(BACKENDS) and found["backends"]["torch"]["cpu"] is None
    assert found["packages"]["numpy"] == np.__version__
