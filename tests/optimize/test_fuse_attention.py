"""Attention as one node computes what its products and softmax did, and stays apart where it must."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from optimize.precision.fuse_attention import fuse_attention
from optimize.precision.half import find_fp32_layers, rehearsal, to_half
from optimize.precision.ort_run import run_graph

# As torch's exporter writes it: queries and keys are scaled, keys turned between two reshapes, or without.
EXPORTED = """f (float[b,2,n,8] q, float[b,2,m,8] k, float[b,2,m,8] v) => (float[b,2,n,8] y) {
    scaled = Mul(q, root) flat = Reshape(k, three) swapped = Transpose<perm=[0,2,1]>(flat)
    turned = Reshape(swapped, four) key = Mul(turned, root) scores = MatMul(scaled, key)
    shares = Softmax<axis=-1>(scores) y = MatMul(shares, v) }"""
PLAIN = """f (float[b,2,n,8] q, float[b,2,m,8] k, float[b,2,m,8] v) => (float[b,2,n,8] y) {
    turned = Transpose<perm=[0,1,3,2]>(k) key = Mul(turned, root) scores = MatMul(q, key)
    shares = Softmax<axis=3>(scores) y = MatMul(shares, v) }"""
TURNED = """f (float[b,2,n,8] q, float[b,2,8,m] k, float[b,2,m,8] v) => (float[b,2,n,8] y) {
    scores = MatMul(q, k) shares = Softmax(scores) y = MatMul(shares, v) }"""
MASKED = PLAIN.replace("shares = Softmax<axis=3>(scores)", "sum = Add(scores, root) shares = Softmax(sum)")
SEEN = PLAIN.replace("y = MatMul(shares, v)", "y = MatMul(shares, v) z = Neg(shares)").replace(
    "[b,2,n,8] y)", "[b,2,n,8] y, float[b,2,n,m] z)")
STRETCHED = PLAIN.replace("float[b,2,m,8] v", "float[1,2,m,8] v")
OTHER_AXIS = PLAIN.replace("axis=3", "axis=2")


def graph(text):
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}')
    for node in model.graph.node:
        node.name = f"net/{node.op_type}_{node.output[0]}"
    weights = {"root": np.float32(8**-0.25), "three": np.int64([-1, 5, 8]), "four": np.int64([3, 2, 8, 5])}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items() if name in text)
    onnx.checker.check_model(model, full_check=True)
    return model


def kinds(model):
    return Counter(node.op_type for node in model.graph.node)


def inputs(text):
    random = np.random.default_rng(0)
    shapes = {"q": (3, 2, 4, 8), "k": (3, 2, 8, 5) if text == TURNED else (3, 2, 5, 8),
              "v": (1 if text == STRETCHED else 3, 2, 5, 8)}
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(("text", "rest"), [
    pytest.param(EXPORTED, {"Mul": 2}, id="exported"),
    pytest.param(PLAIN, {"Mul": 1}, id="plain"),
    pytest.param(TURNED, {"Transpose": 1}, id="turned"),
])
def test_unmasked_attention_becomes_one_node_that_computes_the_same(text, rest):
    model = graph(text)
    fused = fuse_attention(model)
    onnx.checker.check_model(fused, full_check=True)
    assert kinds(fused) == {"Attention": 1, **rest} and fused.opset_import[0].version == 23
    wanted, found = (next(run_graph(each, [inputs(text)]))["y"] for each in (model, fused))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(
    "text", [MASKED, SEEN, STRETCHED, OTHER_AXIS], ids=["masked", "seen", "stretched", "axis"]
)
def test_what_the_node_would_compute_otherwise_stays_as_it_is(text):
    fused = fuse_attention(graph(text))
    assert kinds(fused) == kinds(graph(text)) and fused.opset_import[0].version == 23


def test_attention_whose_scores_are_large_keeps_its_softmax_in_fp32():
    model = graph(PLAIN)
    ranges = {name: (-9.0, 9.0) for name in ("q", "k", "v", "turned", "key", "shares", "y")}
    for most, kept in ((4000.0, False), (5000.0, True)):
        fp32 = find_fp32_layers(model, {**ranges, "scores": (-9.0, most)})
        assert ("net/Softmax_shares" in fp32) == kept
        half = to_half(fuse_attention(model, fp32), "float16", fp32)
        assert kinds(half)["Softmax"] == kept and kinds(half)["Attention"] == (not kept)


@pytest.mark.parametrize(("kind", "most"), [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_the_node_in_half_precision_is_near_and_carries_no_attribute_that_tensorrt_refuses(kind, most):
    half = to_half(fuse_attention(graph(EXPORTED)), kind, {})
    onnx.checker.check_model(half, full_check=True)
    (node,) = (node for node in half.graph.node if node.op_type == "Attention")
    assert [each.name for each in node.attribute] == ["scale"]
    wanted = next(run_graph(graph(EXPORTED), [inputs(EXPORTED)]))["y"]
    found = next(run_graph(rehearsal(half), [inputs(EXPORTED)], True))["y"]
    assert 0 < abs(found - wanted).max() < most
