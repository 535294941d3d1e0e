"""Layers, measured ranges, and how much each layer alone costs when it is quantised."""

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from onnx import numpy_helper, parser

from optimize.precision.convert import spread
from optimize.precision.layer_sensitivity import beyond, far_above_the_rest, measure_sensitivity
from optimize.precision.layers import find_layers, outer_layers, upstream
from optimize.precision.quantize import quantize, unfit
from optimize.precision.quantize_streamed import quantise_blocks
from optimize.precision.ranges import measure_ranges

RANDOM = np.random.default_rng(0)
WEIGHTS = {name: RANDOM.standard_normal((8, 8)).astype(np.float32) / 3 for name in ("u", "v", "w")}
X = {"x": RANDOM.standard_normal((4, 8)).astype(np.float32)}


@pytest.fixture
def model():
    """Three layers in a row, and an attention-like product of two activations."""
    model = parser.parse_model('<ir_version: 10, opset_import: ["": 20]> f (float[n,8] x) => (float[n,8] y)'
                               "{ a = MatMul(x, u) b = Tanh(a) c = MatMul(b, v) t = Transpose(c)"
                               "  p = MatMul(c, t) d = MatMul(p, c) y = MatMul(d, w) }")
    for node in model.graph.node:
        node.name = node.output[0]
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in WEIGHTS.items())
    onnx.checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model)


@pytest.fixture
def ranges(model, tmp_path):
    onnx.save(model, tmp_path / "model.onnx")
    return measure_ranges(tmp_path / "model.onnx", [{"x": X["x"] / 2}, X])


def test_products_of_activations_are_no_layers(model):
    assert [node.name for node in find_layers(model.graph)] == ["a", "c", "y"]


def test_outer_layers_are_the_first_and_the_last_on_the_way(model):
    assert outer_layers(model.graph) == {"a", "y"}


def test_upstream_ends_at_layers(model):
    assert upstream(model.graph, ["d"]) == {"p", "t"}
    assert upstream(model.graph, ["c"]) == {"b"}


def test_upstream_ends_at_layers_in_8_bits_too(model, ranges):
    eight = quantize(model, ranges, ["a", "c"], "int8")
    assert {node.name for node in find_layers(eight.graph)} == {"a", "c", "y"}
    assert upstream(eight.graph, ["d"]) == {"p", "t"}


def test_layers_whose_numbers_have_no_scale_are_named(model, ranges):
    layers = find_layers(model.graph)
    assert unfit(model, ranges, layers, "int8", in_half=True) == {}
    tiny, deep = WEIGHTS["v"].copy(), np.stack([WEIGHTS["w"]] * 4)
    tiny[:, 3] *= np.float32(1e-6)  # one column of eight
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(tiny, "v"))
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(deep, "w"))
    found = unfit(model, ranges, layers, "int8", in_half=True)
    assert found == {"c": f"a scale of {np.abs(tiny[:, 3]).max() / 127:.1g} is none in half precision",
                     "y": "its weight has 3 dims"}
    assert unfit(model, ranges, layers, "int8", in_half=False) == {"y": "its weight has 3 dims"}
    assert unfit(model, ranges, layers, "fp8", in_half=True) == {}  # one scale a tensor
    assert list(unfit(model, {"b": (-1e-6, 0.0)}, layers, "fp8", in_half=True)) == ["c"]


def test_ranges_are_the_least_and_the_largest_over_all_inputs(model, ranges):
    assert set(ranges) == {"x", *(node.output[0] for node in model.graph.node)}
    assert ranges["x"] == (X["x"].min(), X["x"].max())
    a = X["x"] @ WEIGHTS["u"]
    np.testing.assert_allclose(ranges["a"], (a.min(), a.max()), rtol=1e-5)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_layer_s_figure_shows_its_own_error_and_no_other_s(model, ranges, kind):
    """The input of c is said to stay within a range that clips it."""
    narrow = {**ranges, "b": (-0.05, 0.05)}

    def measure(ranges):
        def quantised(layers):
            return quantize(model, ranges, layers, kind)
        return measure_sensitivity(model, ["a", "c"], quantised, [X], literal=kind == "fp8")

    right, clipped = measure(ranges), measure(narrow)
    assert 0 < right["a"] < 0.2 and clipped["a"] == right["a"]
    assert clipped["c"] > 5 * right["c"] > 0


def test_a_large_model_s_scales_reach_beyond_the_largest_input_of_all_calls():
    module = torch.nn.Sequential(torch.nn.Linear(8, 8, bias=False))  # a layer named "0", as in blocks
    half = onnx_ir.TensorType(onnx_ir.DataType.FLOAT16)
    x, y, weight = (onnx_ir.Value(name=name, type=half) for name in "xyw")
    weight.const_value = onnx_ir.tensor(WEIGHTS["u"].astype(np.float16), name="w")
    weight.shape = weight.const_value.shape
    node = onnx_ir.Node("", "MatMul", [x, weight], outputs=[y], name="0/MatMul")
    graph = onnx_ir.Graph([x], [y], nodes=[node], initializers=[weight], opset_imports={"": 20})
    calls = [{"x": np.full((1, 8), size, np.float32)} for size in (1.0, -3.0, 2.0)]
    quantise_blocks(onnx_ir.Model(graph, ir_version=10), module, calls)
    scale = graph.initializers["0/MatMul/input_scale"].const_value.numpy()
    assert scale == np.float16(1.5 * 3.0 / 127)
    columns = graph.initializers["w/scales"].const_value.numpy()
    most = np.abs(weight.const_value.numpy()).max(0).astype(np.float32)
    np.testing.assert_array_equal(columns, (most / 127).astype(np.float16))


def test_a_layer_stands_out_by_its_share_of_the_output_and_beside_layers_that_cost_anything():
    assert far_above_the_rest({"a": 0.01, "b": 0.01, "c": 0.06}) == {
        "c": "alone costs 0.06 of the output, 6.0 times the median"}
    assert far_above_the_rest({"a": 0.0, "b": 0.0, "c": 0.0, "d": 0.02, "e": 0.022}) == {}
    assert far_above_the_rest({"a": 0.0001, "b": 0.0001, "c": 0.009}) == {}


def test_a_budget_leaves_out_the_fewest_layers_and_says_what_all_came_to():
    errors = {"a": 0.003, "b": 0.012, "c": 0.004, "d": 0.0}
    assert beyond(0.0131, errors) == {}
    assert beyond(0.0051, errors) == {"b": "alone costs 0.012 of the output, together with the rest 0.013"}
    assert list(beyond(0.0049, errors)) == ["b", "c"] and list(beyond(0.0, errors)) == ["b", "c", "a"]


def test_spread_takes_the_first_the_last_and_even_distances_between():
    assert spread(range(101), 3) == [0, 50, 100]
    assert spread([1, 2], 6) == [1, 2]
