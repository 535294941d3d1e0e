"""The road to half precision and 8 bits: what is kept, what the graphs hold, what is refused."""

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from onnx import TensorProto, numpy_helper

from engines.artifact import Artifact
from engines.backends.onnxruntime_backend import OnnxRuntimeEngine
from engines.backends.openvino_backend import OpenVinoEngine
from engines.errors import EngineError
from engines.onnx.export import Target
from engines.onnx.parity import ParityError, draw, rms_error
from engines.precision import PRECISIONS
from optimize.export_all import _each
from optimize.precision import convert as road
from optimize.precision.convert import Calibration, convert
from optimize.precision.half import tensor_types
from optimize.precision.layers import find_layers, outer_layers
from optimize.precision.quantize import SCHEMES
from optimize.precision.quantize_streamed import quantise_blocks
from optimize.precision.ranges import measure_ranges

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
QDQ = ("QuantizeLinear", "DequantizeLinear")


@pytest.fixture(scope="module")
def fp32(tiny, graph) -> dict[str, Artifact]:
    """The tiny presenter's fp32 graphs."""
    return {name: graph(tiny, name, rewriting=None) for name in ("denoise", "decode")}


@pytest.fixture(scope="module")
def calibrations(tiny):
    """Random inputs in place of recorded ones: with random weights neither means more than the other."""
    def make(name):
        inputs = [draw(tiny.components[name], {"b": 1, "n": 2}, seed) for seed in range(4)]
        return Calibration({"inputs": "random"}, lambda: inputs)
    return {name: make(name) for name in ("denoise", "decode")}


@pytest.fixture(scope="module")
def converted(tiny, fp32, calibrations, tmp_path_factory):
    """A function that gives a component in a precision, and what was said; each made once."""
    made = {}

    def give(name, precision):
        if (name, precision) not in made:
            told = []
            target = Target(tmp_path_factory.mktemp("converted"), told.append)
            spec = tiny.components[name]
            made[name, precision] = convert(fp32[name], spec, precision, calibrations[name], target), told
        return made[name, precision]
    return give


def types(model):
    values = (*model.graph.input, *model.graph.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values} | tensor_types(model)
    return kinds | {weight.name: weight.data_type for weight in model.graph.initializer}


def weights(model):
    return {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}


@pytest.mark.parametrize("precision", [name for name in PRECISIONS if name != "fp32"])
@pytest.mark.parametrize("name", ["denoise", "decode"])
def test_no_node_mixes_float_types_and_inputs_and_outputs_keep_theirs(tiny, converted, name, precision):
    if (name, precision) == ("decode", "fp8"):
        pytest.skip("nothing but convolutions in it")
    model = onnx.load(converted(name, precision)[0].path)
    kinds = types(model)
    for node in model.graph.node:
        floats = {kinds[tensor] for tensor in node.input if kinds.get(tensor) in FLOATS}
        assert len(floats) <= 1, (node.op_type, node.name)
    spec = tiny.components[name]
    for values, tensors in ((model.graph.input, spec.inputs), (model.graph.output, spec.outputs)):
        assert {v.name: onnx.helper.tensor_dtype_to_np_dtype(kinds[v.name]).name for v in values} == {
            tensor.name: tensor.dtype for tensor in tensors}


def test_there_is_a_scheme_for_the_layers_of_each_precision():
    assert {each.layers for each in PRECISIONS.values()} - {None} == set(SCHEMES)


def test_half_precision_halves_the_file_and_keeps_the_time_s_phase_in_fp32(fp32, converted):
    artifact, told = converted("denoise", "fp16")
    assert artifact.path.stat().st_size < 0.7 * fp32["denoise"].path.stat().st_size
    fp32_layers = artifact.manifest["built_from"]["recipe"]["fp32_layers"]
    assert {name.rpartition("/")[2] for name in fp32_layers} >= {"Sin", "Cos", "Mul"}
    assert any("fp32: " in line and "/Sin (depends on absolute errors)" in line for line in told)


@pytest.mark.parametrize(("precision", "number"), [
    ("int8", TensorProto.INT8), ("int8-fp32", TensorProto.INT8), ("fp8", TensorProto.FLOAT8E4M3FN)])
def test_layers_are_quantised_symmetrically_and_nothing_else_is(converted, precision, number):
    artifact, _ = converted("denoise", precision)
    model = onnx.load(artifact.path)
    arrays, makers = weights(model), {out: node for node in model.graph.node for out in node.output}
    for node in model.graph.node:
        if node.op_type in QDQ:
            assert not arrays[node.input[2]].astype(np.float32).any()
            assert types(model)[node.input[2]] == number
    quantised = [node for node in model.graph.node
                 if any(makers[t].op_type == "DequantizeLinear" for t in node.input if t in makers)]
    assert len(quantised) == artifact.manifest["facts"]["quantised_layers"] > 0
    for node in quantised:
        assert node.op_type in ("MatMul", "Gemm")
        assert makers[node.input[1]].input[0] in arrays  # a weight, so that attention is not among them
        assert [makers[tensor].op_type for tensor in node.input[:2]] == ["DequantizeLinear"] * 2
    assert not any(node.op_type in QDQ and "bias" in node.input[0] for node in model.graph.node)
    assert model.opset_import[0].version == artifact.manifest["built_from"]["opset"] == 20


def test_8_bits_with_fp16_have_fp16_scales_and_with_fp32_fp32_ones(converted):
    for precision, number in (("int8", np.float16), ("fp8", np.float16), ("int8-fp32", np.float32)):
        model = onnx.load(converted("denoise", precision)[0].path)
        arrays = weights(model)
        scales = [arrays[node.input[1]] for node in model.graph.node if node.op_type in QDQ]
        assert {scale.dtype.type for scale in scales} == {number}


def test_integer_weights_have_a_scale_for_each_channel_and_8_bit_floats_one(converted):
    for precision, dims in (("int8-fp32", 1), ("fp8", 0)):
        model = onnx.load(converted("denoise", precision)[0].path)
        arrays = weights(model)
        assert {arrays[node.input[1]].ndim for node in model.graph.node
                if node.op_type == "DequantizeLinear" and node.input[0] in arrays} == {dims}


def test_8_bit_float_weights_are_rounded_from_the_originals_not_from_integers(fp32, converted):
    model, original = onnx.load(converted("denoise", "fp8")[0].path), weights(onnx.load(fp32["denoise"].path))
    arrays, checked = weights(model), 0
    for node in model.graph.node:
        wanted = original.get(node.input[0].removesuffix("_quantized")) if node.op_type == QDQ[1] else None
        if wanted is not None:
            found = arrays[node.input[0]].astype(np.float32) * arrays[node.input[1]].astype(np.float32)
            normal = np.abs(wanted) > np.abs(wanted).max() * 2 ** -14
            assert np.abs(found / np.where(normal, wanted, 1) - 1)[normal].max() < 2 ** -4 + 2 ** -9
            checked += 1
    assert checked


def test_first_and_last_layers_are_kept_and_the_report_says_why(fp32, converted):
    graph = onnx.load(fp32["denoise"].path).graph
    outer = outer_layers(graph)
    assert {"transformer.patch_embedding/Conv", "transformer.proj_out/MatMul"} <= outer
    artifact, told = converted("denoise", "int8-fp32")
    kept = artifact.manifest["built_from"]["recipe"]["kept_layers"]
    assert {name for name, why in kept.items() if why == "first or last layer"} == outer
    inner = {node.name for node in find_layers(graph)} - outer
    assert set(artifact.manifest["facts"]["sensitivity"]) == inner
    assert any(line.endswith("transformer.proj_out/MatMul (first or last layer)") for line in told)


def test_a_layer_that_costs_far_more_than_the_others_is_kept(tiny, fp32, calibrations, tmp_path, monkeypatch):
    worst = "transformer.blocks.0.ffn.net.2/MatMul"
    monkeypatch.setattr(road, "measure_sensitivity", lambda model, layers, *rest, **more: {
        layer: 0.5 if layer == worst else 0.01 for layer in layers})
    artifact = convert(fp32["denoise"], tiny.components["denoise"], "int8-fp32", calibrations["denoise"],
                       Target(tmp_path, print))
    kept = artifact.manifest["built_from"]["recipe"]["kept_layers"]
    assert kept[worst] == "alone costs 0.5 of the output, 50.0 times the median"
    model = onnx.load(artifact.path)
    layer = next(node for node in model.graph.node if node.name == worst)
    assert layer.input[1] in weights(model)


def test_the_same_conversion_twice_gives_equal_bytes(tiny, fp32, calibrations, converted, tmp_path):
    for precision in ("int8", "fp8"):
        first, _ = converted("denoise", precision)
        spec = tiny.components["denoise"]
        again = convert(fp32["denoise"], spec, precision, calibrations["denoise"], Target(tmp_path, print))
        assert again.path.name == first.path.name
        assert again.path.read_bytes() == first.path.read_bytes()


def test_what_is_there_is_kept_without_recording_anything(tiny, fp32, calibrations, converted):
    artifact, _ = converted("decode", "fp16")
    told, unused = [], Calibration(calibrations["decode"].source, lambda: pytest.fail("recorded again"))
    target = Target(artifact.path.parent, told.append)
    assert convert(fp32["decode"], tiny.components["decode"], "fp16", unused, target).path == artifact.path
    assert told == [f"decode-fp16.onnx: kept {artifact.path.name}, built from the same before"]


def test_other_calibration_data_or_another_fp32_graph_make_another_artifact(
        tiny, fp32, calibrations, converted):
    artifact, _ = converted("decode", "fp16")
    changed = Artifact(fp32["decode"].path, {**fp32["decode"].manifest, "files": {"other": "0"}})
    other = Calibration({"inputs": "others"}, calibrations["decode"].record)
    target, spec = Target(artifact.path.parent, print), tiny.components["decode"]
    paths = {artifact.path, convert(fp32["decode"], spec, "fp16", other, target).path,
             convert(changed, spec, "fp16", calibrations["decode"], target).path}
    assert len(paths) == 3


def test_the_manifest_names_the_fp32_graph_the_data_and_the_tools(fp32, converted):
    built_from = converted("denoise", "int8")[0].manifest["built_from"]
    assert built_from["onnx"] == fp32["denoise"].content
    assert built_from["calibration"] == {"inputs": "random"}
    assert {"onnx", "onnxruntime"} <= set(built_from["toolchain"])
    for same in ("generator", "component", "spec", "weights", "opset"):
        assert built_from[same] == fp32["denoise"].manifest["built_from"][same]


def test_parity_outside_its_tolerance_is_refused_and_leaves_nothing(
        tiny, fp32, calibrations, tmp_path, monkeypatch):
    monkeypatch.setattr(road, "measure_ranges", lambda path, inputs: {
        name: (0.1 * least, 0.1 * most) for name, (least, most) in measure_ranges(path, inputs).items()})
    strict = replace(PRECISIONS["int8-fp32"], tolerance=PRECISIONS["fp16"].tolerance)
    monkeypatch.setitem(PRECISIONS, "int8-fp32", strict)  # tiny, most of the flow is linear
    with pytest.raises(ParityError, match="denoise: flow in int8-fp32 is too far from its reference"):
        convert(fp32["denoise"], tiny.components["denoise"], "int8-fp32", calibrations["denoise"],
                Target(tmp_path, print))
    assert list(tmp_path.iterdir()) == []


def test_an_overflow_in_fp16_is_found_on_a_processor_and_names_the_component(tiny, fp32, tmp_path):
    """The check meets latents a million times as large as those that ranges were measured on."""
    spec = tiny.components["decode"]
    small, large = ([{"latents": draw(spec, {"n": 2}, 1)["latents"] * np.float32(by)}] for by in (1, 1e6))
    calibration = Calibration({}, lambda: small)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(road, "spread", lambda inputs, count: large)
        with pytest.raises(ParityError, match="decode: pixels"):
            convert(fp32["decode"], spec, "fp16", calibration, Target(tmp_path, print))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("precision", "compute"), [("fp8", "float16"), ("int8-fp32", "float32")])
def test_a_component_without_inner_layers_of_that_kind_keeps_all_and_says_so(
        tiny, fp32, calibrations, tmp_path, precision, compute):
    told, spec = [], tiny.components["decode"]
    with pytest.MonkeyPatch.context() as patch:
        if precision == "int8-fp32":  # has some, all of which stand out here
            patch.setattr(road, "far_above_the_rest", lambda errors: dict.fromkeys(errors, "stands out"))
        made = convert(fp32["decode"], spec, precision, calibrations["decode"], Target(tmp_path, told.append))
    layers = PRECISIONS[precision].layers
    kept = f"no inner layer to quantise in {layers}: all of it stays in {compute}"
    assert any(kept in line for line in told)
    assert not {node.op_type for node in onnx.load(made.path).graph.node} & set(QDQ)
    assert made.manifest["facts"]["quantised_layers"] == 0


def test_a_large_model_s_component_without_blocks_is_kept_whole_and_says_so():
    model = onnx_ir.Model(onnx_ir.Graph([], [], nodes=[], opset_imports={"": 20}), ir_version=10)
    told = quantise_blocks(model, torch.nn.Linear(2, 2), [{"x": np.zeros((1, 2), np.float32)}])
    assert told == "no layer of a repeated block is a matrix product: all of it stays in fp16"


def test_one_component_that_cannot_be_made_keeps_no_other_from_being_made(tmp_path):
    def make(name):
        if name in ("encode", "decode"):
            raise ParityError(f"{name} is too far")
        (tmp_path / name).touch()
        return name

    assert _each(["denoise", "embed"], make) == ["denoise", "embed"]
    with pytest.raises(ParityError, match="^encode is too far$"):
        _each(["encode", "pose"], make)
    with pytest.raises(EngineError, match="^encode is too far\ndecode is too far$"):
        _each(["encode", "image", "decode"], make)
    assert {path.name for path in tmp_path.iterdir()} == {"denoise", "embed", "pose", "image"}


def test_an_opset_without_half_precision_scales_is_refused_before_anything_is_measured(tiny, fp32, tmp_path):
    built_from = {**fp32["denoise"].manifest["built_from"], "opset": 18}
    old = Artifact(fp32["denoise"].path, {**fp32["denoise"].manifest, "built_from": built_from})
    unused = Calibration({}, lambda: pytest.fail("recorded"))
    with pytest.raises(EngineError, match="int8 needs opset 19 or newer, this is 18"):
        convert(old, tiny.components["denoise"], "int8", unused, Target(tmp_path, print))


@pytest.mark.parametrize("engine", [OnnxRuntimeEngine, OpenVinoEngine])
def test_int8_with_fp32_runs_on_processors(tiny, tiny_engines, converted, engine):
    spec = tiny.components["denoise"]
    run = engine(spec, converted("denoise", "int8-fp32")[0].path)
    inputs = draw(spec, {"b": 2}, seed=3)
    assert rms_error(tiny_engines["denoise"](**inputs).values(), run(**inputs).values()) < 0.05
