"""What was built for another GPU is refused by name, and never gives frames that are wrong."""

import dataclasses
import json

import pytest

from engines.backends.tensorrt_backend import why_not
from engines.cuda.context import context_of
from engines.errors import EngineError
from engines.onnx.export import Target, export_onnx
from engines.tensorrt.api import load
from engines.tensorrt.artifact import find_engine
from engines.tensorrt.build import build, place_orders
from engines.tensorrt.network import Settings
from engines.tensorrt.targets import resolve_targets, runs_on
from lab.gpu.networks import Small

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def rtx():
    """TensorRT-RTX, or a skip."""
    api = load("tensorrt_rtx")
    if api is None:
        pytest.skip("tensorrt-rtx is not installed")
    return api


@pytest.fixture(scope="module")
def other(rtx, tmp_path_factory):
    """A small generator, its folder with an engine for an architecture not here, and that one's name."""
    folder = tmp_path_factory.mktemp("other")
    small, here = Small(folder / "small"), context_of("cuda").driver.gpu.sm
    target = next(number for number in ("120", "89") if f"sm_{number}" != here)
    export_onnx(small, "decode", Target(folder, lambda text: None))
    (order,) = place_orders(small, {"decode": "fp32"}, folder, resolve_targets(target),
                            Settings(True, 3, None))
    build(order, lambda share: None)
    return small, folder, f"sm_{target}"


def test_an_engine_for_another_architecture_is_refused_with_both_names(rtx, other):
    small, folder, target = other
    gpu = context_of("cuda").driver.gpu
    with pytest.raises(EngineError) as refusal:
        find_engine(folder, small, "decode", "fp32", (rtx, gpu))
    assert target in str(refusal.value) and gpu.sm in str(refusal.value)
    assert "build_trt.py" in str(refusal.value)


def test_an_engine_of_another_tensorrt_is_refused_by_its_version(rtx, other):
    small, folder, target = other
    manifest = next(path for path in folder.glob("*.engine.json"))
    kept = manifest.read_text()
    changed = json.loads(kept)
    changed["built_from"]["toolchain"]["version"] = "0.9"
    manifest.write_text(json.dumps(changed))
    capability = int(target[3:-1]), int(target[-1])
    gpu = dataclasses.replace(context_of("cuda").driver.gpu, capability=capability)
    try:
        with pytest.raises(EngineError, match="0.9"):
            find_engine(folder, small, "decode", "fp32", (rtx, gpu))
    finally:
        manifest.write_text(kept)


def test_a_gpu_that_tensorrt_rtx_leaves_out_is_named_with_what_to_install(rtx):
    gpu = context_of("cuda").driver.gpu
    if runs_on(rtx, gpu) or load("tensorrt"):
        pytest.skip(f"a TensorRT for {gpu.sm} is installed")
    assert gpu.sm in why_not("cuda") and "pip install tensorrt" in why_not("cuda")
    with pytest.raises(EngineError, match=gpu.sm):
        resolve_targets("gpu")
