"""Buffers in float32 of a network that is exported in half precision: named where they do not go together."""

import copy

import numpy as np
import pytest
import torch

from engines.backends.onnxruntime_backend import OnnxRuntimeEngine
from engines.backends.torch_backend import TorchEngine
from engines.onnx.export import OPSET, ExportError, Target
from engines.onnx.export_streamed import export_streamed
from engines.onnx.parity import draw
from engines.spec import Cadence, ComponentSpec, TensorSpec
from tests.engines.test_streamed import Small

SPEC = ComponentSpec("denoise", Cadence.STEP, (TensorSpec("x", (2, 128)),), (TensorSpec("y", (2, 128)),))


class Placed(torch.nn.Module):
    """A layer, places in a buffer, and another layer."""

    def __init__(self, as_used=lambda places, x: places):
        super().__init__()
        self.first, self.last, self._as_used = torch.nn.Linear(128, 128), torch.nn.Linear(128, 128), as_used
        self.register_buffer("places", torch.randn(1, 128))
        self.register_buffer("order", torch.arange(128))

    def forward(self, x):
        x = self.first(x.to(self.first.weight.dtype))
        return self.last(x + self._as_used(self.places, x)[:, self.order]).float()


def export(module, folder, precision):
    torch.manual_seed(0)
    target = Target(folder, lambda text: None)
    return export_streamed(Small(module.eval()), "denoise", precision, target, OPSET)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_float32_buffer_that_meets_half_weights_is_named_with_what_to_do(tmp_path, precision):
    with pytest.raises(ExportError) as error:
        export(Placed(), tmp_path, precision)
    said = str(error.value)
    assert "inconsistent type" in said and "these buffers stay in float32" in said
    assert "as they are stored: places; cast each where it is used, as self.pos.to(x.dtype)" in said
    assert "order" not in said.partition("these buffers")[2] and list(tmp_path.iterdir()) == []
    assert export(Placed(), tmp_path, "fp32").manifest["facts"]["parity"]["y"]["cosine"] > 0.999999


def test_a_module_that_stays_in_float32_is_not_blamed(tmp_path):
    class Kept(Placed):
        _keep_in_fp32_modules = ["places"]

    with pytest.raises(ExportError) as error:
        export(Kept(), tmp_path, "fp16")
    assert "these buffers" not in str(error.value)


@pytest.mark.parametrize("way", ["cast", "half"])
def test_done_as_the_error_says_it_agrees_with_torch_in_that_precision(tmp_path, way):
    module = Placed((lambda places, x: places.to(x.dtype)) if way == "cast" else lambda places, x: places)
    if way == "half":
        module.places = module.places.half()
    artifact = export(module, tmp_path, "fp16")
    assert artifact.manifest["facts"]["parity"]["y"]["cosine"] > 0.9999
    inputs = draw(SPEC, {}, seed=3)
    made = OnnxRuntimeEngine(SPEC, artifact.path)(**inputs)["y"]
    wanted = TorchEngine(SPEC, copy.deepcopy(module))(**inputs)["y"]
    np.testing.assert_allclose(made, wanted, atol=5e-3)
    assert export(module, tmp_path, "bf16").path.is_file()
