"""ONNX files as users bring them, for tests."""

import onnx
from onnx import TensorProto, helper

FLOAT = TensorProto.FLOAT


def save(path, nodes, outputs, side=(24, 32)):
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", *side, 3])
    graph = helper.make_graph(nodes, "own", [pixels], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path


def brightness(path, name="score"):
    """Scores a picture by its mean."""
    axes = helper.make_node("Constant", [], ["axes"], value_ints=[1, 2, 3])
    cast = helper.make_node("Cast", ["pixels"], ["float"], to=FLOAT)
    mean = helper.make_node("ReduceMean", ["float", "axes"], [name], keepdims=0)
    return save(path, [axes, cast, mean], [helper.make_tensor_value_info(name, FLOAT, ["n"])])


def always(path, name, values, shape):
    """Gives the same numbers for every picture."""
    value = helper.make_tensor("value", FLOAT, shape, values)
    node = helper.make_node("Constant", [], [name], value=value)
    return save(path, [node], [helper.make_tensor_value_info(name, FLOAT, shape)])
