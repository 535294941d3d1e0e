"""What check says that TensorRT refuses is what TensorRT-RTX's parser refuses, and nothing else is."""

from contextlib import closing
from types import SimpleNamespace

import onnx
import onnx_ir
import pytest
from onnx import parser

from engines.errors import EngineError
from engines.spec import TensorSpec
from engines.tensorrt.api import load
from engines.tensorrt.network import Network
from engines.tensorrt.refusals import refusal

FLOAT, BYTES = "f (float[2,4] x) => (float[2,4] y)", "f (uint8[2,4] x) => (uint8[4,2] y)"
TAKEN = {
    "bytes at the edges": f"{BYTES} {{ a = Cast<to=1>(x) b = Transpose(a) y = Cast<to=2>(b) }}",
    "float64 inside": f"{FLOAT} {{ a = Cast<to=11>(x) b = Neg(a) y = Cast<to=1>(b) }}",
    "bool": f"{FLOAT} {{ a = Greater(x, x) y = Cast<to=1>(a) }}",
    "resize": "f (float[1,1,2,4] x) => (float[1,1,4,8] y) { s = Constant<value_floats=[1.0,1.0,2.0,2.0]>()"
              " n = Constant<value_floats=[1.0]>() y = Resize<mode=\"linear\">(x, , s) }",
}
REFUSED = {
    "bytes moved": (
        f"{BYTES} {{ a = Transpose(x) b = Cast<to=1>(a) y = Cast<to=2>(b) }}", "Transpose is done with"),
    "bytes moved at the end": (
        f"{BYTES} {{ a = Cast<to=1>(x) b = Cast<to=2>(a) y = Transpose(b) }}", "with uint8"),
    "bytes in between": (f"{FLOAT} {{ a = Cast<to=2>(x) y = Cast<to=1>(a) }}", "Cast is done with uint8"),
    "int16": (f"{FLOAT} {{ a = Cast<to=5>(x) y = Cast<to=1>(a) }}", "Cast is done with int16"),
    "bits": (f"{FLOAT} {{ a = Cast<to=6>(x) b = BitwiseAnd(a, a) y = Cast<to=1>(b) }}", "it has bitwise and"),
    "unique": ("f (float[8] x) => (float[n] y) { y = Unique(x) }", "it has unique"),
    "antialias": (TAKEN["resize"].replace("4,8", "1,2").replace("2.0", "0.5").replace(
        'mode="linear"', 'mode="linear", antialias=1'), "it has antialiasing"),
}  # fmt: skip


def judged(text, tmp_path):
    """What is said of a graph, and whether TensorRT-RTX parses it."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}')
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.save(model, tmp_path / "graph.onnx")
    graph = onnx_ir.load(tmp_path / "graph.onnx").graph
    said = [why for node in graph if (why := refusal(node, {*graph.inputs, *graph.outputs}))]
    inputs, outputs = ([TensorSpec(value.name, (), value.dtype.numpy().name) for value in side]
                       for side in (graph.inputs, graph.outputs))
    spec = SimpleNamespace(name="net", inputs=inputs, outputs=outputs)
    try:
        with closing(Network(load("tensorrt_rtx"), spec, tmp_path / "graph.onnx")):
            return said, True
    except EngineError:
        return said, False


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken_has_no_refusal(name, tmp_path):
    assert judged(TAKEN[name], tmp_path) == ([], True)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_told_with_a_way_out(name, tmp_path):
    text, wrong = REFUSED[name]
    said, parsed = judged(text, tmp_path)
    assert not parsed and wrong in said[0][0] and said[0][1]
