"""Half precision: which nodes stay in fp32, what the others compute, and how a processor rehearses it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper, parser

from engines.onnx.export import Target, export_onnx
from engines.onnx.parity import ParityError
from engines.spec import Cadence, ComponentSpec, TensorSpec
from optimize.precision.convert import Calibration, convert
from optimize.precision.half import find_fp32_layers, rehearsal, tensor_types, to_half
from optimize.precision.ort_run import run_graph

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def graph(text, **weights):
    """A checked model from ONNX's own notation, its nodes named for their outputs."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}')
    for node in model.graph.node:
        node.name = node.output[0]
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model, literal=True, **inputs):
    arrays = {name: np.asarray(array, np.float32) for name, array in inputs.items()}
    return next(run_graph(model, [arrays], literal))


def mixed_nodes(model):
    """Nodes that take floats of two types, by ONNX's own inference: TensorRT refuses them."""
    onnx.checker.check_model(model, full_check=True)
    values = (*model.graph.input, *model.graph.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values} | tensor_types(model)
    kinds |= {weight.name: weight.data_type for weight in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if len({kinds[name] for name in node.input if kinds.get(name) in FLOATS}) > 1:
            found.append(node.name)
    return found


LINE = graph("f (float[n] x) => (float[n] y) { a = Mul(x, w) b = Neg(a) y = Abs(b) }", w=np.float32([2]))


def test_a_node_whose_tensor_grows_beyond_what_is_safe_stays_in_fp32_with_the_number_as_reason():
    assert find_fp32_layers(LINE, {"x": (-1, 1), "a": (-5000, 3), "b": (0, 1), "y": (0, 1)}) == {
        "a": "reaches 5e+03", "b": "reaches 5e+03"}
    assert find_fp32_layers(LINE, {"x": (-1, 1), "a": (-4000, 3), "b": (0, 1), "y": (0, 1)}) == {}


def test_a_weight_that_half_precision_cannot_hold_keeps_its_node_in_fp32_but_an_infinite_mask_does_not():
    for weight, fp32_layers in ((-3e38, ["a"]), (-np.inf, [])):
        model = graph("f (float[n] x) => (float[n] a) { a = Add(x, w) }", w=np.float32([weight, 0]))
        assert list(find_fp32_layers(model, {})) == fp32_layers


MASKED = """f (float[2,3] q, float[3,4] k, float[4] keep) => (float[2,4] y, float[2,4] z) {
    scores = MatMul(q, k) drop = Sub(keep, one) mask = Mul(drop, large) row = Unsqueeze(mask, axes)
    sum = Add(scores, row) moved = Reshape(sum, shape) y = Softmax(moved) z = Neg(scores) }"""

WEIGHTS = {"one": np.float32([1]), "large": np.float32([1e4]), "axes": np.int64([0]),
           "shape": np.int64([2, 4])}


@pytest.mark.parametrize(("changes", "kept"), [
    ({}, []),
    ({"mask": (-7e4, 0), "row": (-7e4, 0), "sum": (-7e4, 9), "moved": (-7e4, 9)},  # is infinite in fp16
     ["mask", "moved", "row", "sum", "y"]),
    ({"scores": (-9000, 9)}, ["scores", "sum", "z"]),  # low by themselves
    ({"sum": (-1e4, 5000), "moved": (-1e4, 5000)}, ["moved", "sum", "y"]),
])
def test_a_mask_that_only_a_softmax_sees_keeps_no_node_in_fp32(changes, kept):
    model = graph(MASKED, **WEIGHTS)
    ranges = {"q": (-3, 3), "k": (-3, 3), "scores": (-9, 9), "keep": (0, 1), "drop": (-1, 0),
              "mask": (-1e4, 0),
              "row": (-1e4, 0), "sum": (-10009, 9), "moved": (-10009, 9), "y": (0, 1), "z": (-9, 9)}
    assert sorted(find_fp32_layers(model, {**ranges, **changes})) == kept


def test_masks_in_half_precision_give_the_same_attention():
    model = graph(MASKED, **WEIGHTS)
    random = np.random.default_rng(0)
    inputs = {"q": random.standard_normal((2, 3)), "k": random.standard_normal((3, 4)), "keep": [1, 0, 1, 1]}
    found = run(rehearsal(to_half(model, "float16", {})), **inputs)["y"]
    np.testing.assert_allclose(found, run(model, **inputs)["y"], atol=2e-3)
    assert not found[:, 1].any()


def test_large_negative_numbers_that_something_else_sees_too_stay_in_fp32():
    text = MASKED.replace("z = Neg(scores)", "z = Add(sum, scores)")
    model = graph(text, **WEIGHTS)
    ranges = {"mask": (-1e4, 0), "row": (-1e4, 0), "sum": (-10009, 9), "z": (-10018, 18)}
    assert {"mask", "sum", "z"} <= set(find_fp32_layers(model, ranges))


def test_bfloat16_keeps_no_layer_in_fp32_for_its_range():
    assert find_fp32_layers(LINE, {"a": (-1e30, 1e30)}, safe=None) == {}


def test_what_leads_to_a_sine_stays_in_fp32_back_to_the_layer_before():
    model = graph("f (float[n,2] x) => (float[n,2] y) { a = Neg(x) b = MatMul(a, w) c = Mul(b, s) d = Sin(c)"
                  " y = Neg(d) }", w=np.eye(2, dtype=np.float32), s=np.float32([1000]))
    assert set(find_fp32_layers(model, {})) == {"c", "d"}


def test_the_phase_of_a_sine_survives_half_precision():
    thousand = np.float32([1000])
    model = graph("f (float[n] x) => (float[n] y) { a = Mul(x, s) b = Sin(a) y = Neg(b) }", s=thousand)
    time = np.linspace(0, 1, 50, dtype=np.float32)
    half = to_half(model, "float16", find_fp32_layers(model, {}))
    np.testing.assert_allclose(run(rehearsal(half), x=time)["y"], -np.sin(1000 * time), atol=2e-3)
    everything = run(rehearsal(to_half(model, "float16", {})), x=time)["y"]
    assert np.abs(everything + np.sin(1000 * time)).max() > 0.3


def test_two_neighbouring_fp32_layers_pass_on_fp32_and_keep_their_weights_exact():
    model = graph("f (float[n] x) => (float[n] y) { a = Mul(x, big) b = Mul(a, small) y = Neg(b) }",
                  big=np.float32([1e6]), small=np.float32([1.0001e-6]))
    half = to_half(model, "float16", dict.fromkeys("ab", "reaches 1e6"))
    assert run(rehearsal(half), x=[1])["y"][0] == np.float16(-1.0001)
    assert {weight.data_type for weight in half.graph.initializer} == {TensorProto.FLOAT}


def test_a_weight_of_an_fp32_layer_and_of_others_is_there_in_both_types():
    model = graph("f (float[n] x) => (float[n] y) { a = Mul(x, w) y = Mul(a, w) }", w=np.float32([0.1]))
    half = to_half(model, "float16", {"a": "for the test"})
    kinds = sorted(weight.data_type for weight in half.graph.initializer)
    assert kinds == [TensorProto.FLOAT, TensorProto.FLOAT16] and mixed_nodes(half) == []


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_inputs_and_outputs_keep_their_dtypes_and_all_between_is_half(kind):
    model = graph("f (float[n] x) => (float[n] y, float[n] a) { a = Mul(x, w) b = Add(a, x) y = Neg(b) }",
                  w=np.float32([3]))
    half = to_half(model, kind, {})
    assert {value.type.tensor_type.elem_type for value in (*half.graph.input, *half.graph.output)} == {1}
    assert [value.name for value in half.graph.output] == ["y", "a"] and mixed_nodes(half) == []
    kinds = {tensor_types(half)[n.output[0]] for n in half.graph.node if n.op_type != "Cast"}
    assert kinds == {getattr(TensorProto, kind.upper())}
    assert run(rehearsal(half), x=[1, 2])["y"].tolist() == [-4, -8]


def test_operators_that_onnx_has_only_in_fp32_stay_there_and_fixed_inputs_too():
    model = graph("f (float[1,1,2] x, float e) => (float[1,1,4] y, float[n] r)"
                  "{ y = Resize <mode = \"nearest\"> (x, , s) r = Range(z, e, o) }",
                  s=np.float32([1, 1, 2]), z=np.float32(0), o=np.float32(1))
    half = to_half(model, "float16", {})
    assert mixed_nodes(half) == ["y"]  # its scales are fp32 by definition
    kinds = tensor_types(half)
    assert kinds["r"] == TensorProto.FLOAT and kinds["y/float16"] == TensorProto.FLOAT16


def test_constants_and_casts_inside_the_graph_become_half_too():
    model = graph("f (int64[n] i) => (float[n] y)"
                  "{ a = Cast <to = 1> (i) b = Constant <value = float {0.1}> () y = Mul(a, b) }")
    half = to_half(model, "float16", {})
    assert mixed_nodes(half) == []
    outputs = next(run_graph(rehearsal(half), [{"i": np.array([3])}], literal=True))
    assert outputs["y"][0] == np.float32(np.float16(3) * np.float16(0.1))


def test_the_rehearsal_rounds_every_result_where_onnx_runtime_itself_leaves_it_out():
    model = graph("f (float[n] x) => (float[n] y) { a = Softplus(x) b = Softplus(a) y = Sin(b) }")
    half = to_half(model, "float16", {})
    assert np.isfinite(run(half, x=[1e5])["y"]).all()
    with np.errstate(invalid="ignore"):
        assert np.isnan(run(rehearsal(half), x=[1e5])["y"]).all()


def test_the_model_given_is_left_as_it_was():
    before = LINE.SerializeToString()
    half = to_half(LINE, "float16", {})
    made = half.SerializeToString()
    rehearsal(half)
    assert LINE.SerializeToString() == before and half.SerializeToString() == made


def test_what_is_not_finite_in_fp16_is_named_by_its_first_node_with_the_way_out(tmp_path):
    """1 - 0.99991 is 0 in fp16; a mask that is infinite in fp32 too is not what is wrong."""
    class Denoise(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("alphas", torch.tensor([0.99991, 0.5]))
            self.own = torch.nn.Linear(4, 4)

        def forward(self, x, t):
            masked = (self.own(x) + torch.tensor([0, 0, 0, -torch.inf])).exp()
            return (x + masked) / (1 - self.alphas[t][:, None]).sqrt()

    spec = ComponentSpec("denoise", Cadence.STEP, (TensorSpec("x", (1, 4)), TensorSpec("t", (1,), "int64")),
                         (TensorSpec("eps", (1, 4)),))
    model = SimpleNamespace(name="mine", components={"denoise": spec}, fingerprint_files=(Path(__file__),),
                            build=lambda component: Denoise())
    fp32 = export_onnx(model, "denoise", Target(tmp_path / "fp32", print))
    calls = [{"x": np.ones((1, 4), np.float32), "t": np.array([t])} for t in (1, 0)]
    with pytest.raises(ParityError) as caught:
        convert(fp32, spec, "fp16", Calibration({}, lambda: calls), Target(tmp_path / "half", print))
    assert str(caught.value) == (
        "denoise: eps of the graph: 4 of 4 numbers are not finite in fp16, first those of node Div; in fp32 "
        "all are. Leave this component there: --precision fp16,denoise=fp32")
    assert not list((tmp_path / "half").iterdir())
