"""The files of TensorRT engines: which of a folder runs, why none does, and how a plan is read."""

from types import SimpleNamespace

import numpy as np
import pytest

from engines.artifact import Label, fingerprint, writing
from engines.backends import tensorrt_backend as tensorrt_engine
from engines.backends.tensorrt_backend import why_not
from engines.cuda.context import GpuContext
from engines.cuda.driver import Gpu
from engines.errors import EngineError
from engines.spec import Cadence, ComponentSpec, TensorSpec
from engines.tensorrt.api import TensorRT
from engines.tensorrt.artifact import BUILDER, system, target_of, toolchain
from engines.tensorrt.network import shapes_of
from tests.fake_driver import FakeDriver
from tests.fake_tensorrt import SPEC, FakeTensorRT, VideoRunner, check, inputs, mix

FLOATS = ComponentSpec("halve", Cadence.STEP, (TensorSpec("a", (3,)),), (TensorSpec("half", (3,)),))



MODEL = SimpleNamespace(components={"mix": SPEC}, fingerprint_files=())


@pytest.fixture
def make(tmp_path):
    """A function that starts an engine on a fake GPU."""
    return VideoRunner(tmp_path)


@pytest.fixture
def here(monkeypatch):
    """A fake GPU with classic TensorRT and TensorRT-RTX: the driver, and both by flavour."""
    driver = FakeDriver()
    apis = {rtx: TensorRT(FakeTensorRT(driver, SPEC, mix, rtx)) for rtx in (False, True)}
    context = GpuContext(driver)
    monkeypatch.setattr(tensorrt_engine, "context_of", lambda device: context)
    monkeypatch.setattr(tensorrt_engine, "installed", lambda: list(apis.values()))
    return SimpleNamespace(driver=driver, classic=apis[False], rtx=apis[True])


def write_engine(folder, api, gpu, **changed):
    built_from = {"component": "mix", "precision": "fp16", "spec": SPEC.described(), "os": system(),
                  "weights": fingerprint(()), "shapes": shapes_of(SPEC, False), "toolchain": toolchain(api),
                  "targets": target_of(api, gpu), "builder": BUILDER, **changed}
    with writing(folder, Label("mix", "fp16", ".engine"), built_from) as draft:
        draft.path.write_bytes(b"plan" * 32)


def test_the_first_flavour_with_a_file_that_fits_runs(here, tmp_path):
    write_engine(tmp_path, here.rtx, here.driver.gpu)
    engine = tensorrt_engine.start(MODEL, "mix", "fp16", "cuda", tmp_path)
    assert engine._api is here.rtx and engine.path.suffix == ".engine"
    engine.close()
    write_engine(tmp_path, here.classic, here.driver.gpu)
    engine = tensorrt_engine.start(MODEL, "mix", "fp16", "cuda", tmp_path)
    assert engine._api is here.classic
    np.testing.assert_array_equal(engine(**inputs(2))["sum"], mix(**inputs(2))["sum"])
    engine.close()
    assert not here.driver.alive


def test_without_a_file_that_fits_the_error_is_of_the_flavour_asked_first(here, tmp_path):
    with pytest.raises(EngineError, match="no mix-fp16.engine in .*; run: python build_trt.py"):
        tensorrt_engine.start(MODEL, "mix", "fp16", "cuda", tmp_path)
    write_engine(tmp_path, here.classic, here.driver.gpu, os="Windows-AMD64")
    with pytest.raises(EngineError, match='does not fit: os was "Windows-AMD64" when it was built'):
        tensorrt_engine.start(MODEL, "mix", "fp16", "cuda", tmp_path)
    write_engine(tmp_path, here.classic, here.driver.gpu, builder={"level": 3})
    with pytest.raises(EngineError, match='builder.activations was null when it was built, is "resized"'):
        tensorrt_engine.start(MODEL, "mix", "fp16", "cuda", tmp_path)
    assert not here.driver.alive


def test_why_tensorrt_cannot_run_here_is_one_line_that_says_what_to_do(here, monkeypatch):
    assert why_not("cuda") is None
    assert why_not("cpu") == "tensorrt runs on cuda, not on cpu; run with --device cuda"
    here.driver.gpu = Gpu("NVIDIA H200", (9, 0), 13000)
    assert why_not("cuda") is None  # with classic TensorRT
    monkeypatch.setattr(tensorrt_engine, "installed", lambda: [here.rtx])
    assert "1.7.0 does not run on NVIDIA H200 (sm_90); run: pip install tensorrt" in why_not("cuda")

    def no_driver(device):
        raise EngineError("cuda cannot be used\npycuda: not there")
    monkeypatch.setattr(tensorrt_engine, "context_of", no_driver)
    assert why_not("cuda") == "cuda cannot be used; pycuda: not there"
    monkeypatch.setattr(tensorrt_engine, "installed", list)
    assert why_not("cuda").startswith("TensorRT is not installed; run: pip install -r requirements-gpu.txt")


def test_a_plan_is_read_in_blocks_while_it_is_deserialised(make, monkeypatch):
    monkeypatch.setattr("engines.tensorrt.plan_reader.BLOCK", 40)
    for rtx in (False, True):
        engine = make(rtx=rtx)
        assert engine.trt.plan == engine.file.read_bytes() and engine.trt.reader.asked == [32, 40, 40, 16]
        check(engine, 2)


def test_a_plan_that_cannot_be_read_to_its_end_is_no_engine(make):
    make.file.write_bytes(b"plan" * 20)
    with pytest.raises(EngineError, match="cannot be loaded; build it again with build_trt.py"):
        make()
    assert not make.driver.alive
