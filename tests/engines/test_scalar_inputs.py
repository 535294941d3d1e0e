"""A number without dims, as a time in diffusers, reaches every engine so, and a recording of calls."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from engines.backends.onnxruntime_backend import OnnxRuntimeEngine
from engines.backends.openvino_backend import OpenVinoEngine
from engines.backends.torch_backend import TorchEngine
from engines.device_arrays import contiguous
from engines.spec import Cadence, ComponentSpec, TensorSpec
from optimize.calibration import Recorder

SPEC = ComponentSpec("scale", Cadence.STEP, (TensorSpec("x", (1, 2)), TensorSpec("time", ())),
                     (TensorSpec("y", (1, 2)),))
X, TIME = np.array([[1, 2]], np.float32), np.array(0.5, np.float32)


class Scale(torch.nn.Module):
    def forward(self, x, time):
        assert time.shape == ()
        return x * torch.stack([time, 2 * time])


def graph_engine(kind):
    def start(folder):
        shapes = {"x": [1, 2], "time": [], "y": [1, 2]}
        x, time, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                      for name, shape in shapes.items())
        twice = helper.make_tensor("twice", TensorProto.FLOAT, [2], [1, 2])
        nodes = [helper.make_node("Mul", ["time", "twice"], ["scale"]),
                 helper.make_node("Mul", ["x", "scale"], ["y"])]
        graph = helper.make_graph(nodes, "scale", [x, time], [y], [twice])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.save(model, folder / "scale.onnx")
        return kind(SPEC, folder / "scale.onnx")
    return start


@pytest.mark.parametrize("start", [
    lambda folder: TorchEngine(SPEC, Scale()), graph_engine(OnnxRuntimeEngine), graph_engine(OpenVinoEngine)],
    ids=["torch", "onnxruntime", "openvino"])
def test_a_number_has_no_dims_in_the_engine_either(start, tmp_path):
    assert start(tmp_path)(x=X, time=TIME)["y"].tolist() == [[0.5, 2]]


def test_a_recorded_number_fits_the_spec_and_is_one_array_at_every_call():
    def engine(**arrays):
        return {}
    engine.spec = SPEC
    recorder = Recorder(engine, {})
    for _ in range(2):
        recorder(x=X, time=TIME)
    first, second = recorder.inputs
    SPEC.check(first)
    assert first["time"].shape == () and first["time"] is second["time"]


def test_other_layouts_are_put_in_order():
    for array in (np.asfortranarray(np.arange(6).reshape(2, 3)), np.arange(8)[::2], TIME):
        found = contiguous(array)
        assert found.flags.c_contiguous and found.shape == array.shape and np.array_equal(found, array)
    assert contiguous(X) is X
