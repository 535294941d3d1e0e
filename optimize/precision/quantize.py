"""Quantise layers to 8 bits: symmetric quantise and dequantise nodes before their inputs and weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optimize.precision.layers import LAYERS

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

# What TensorRT reads: all zero points 0, biases left alone, nothing between a layer and what is fused to it.
OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": list(LAYERS),
}
PAIR = ("QuantizeLinear", "DequantizeLinear")
INT8_MOST, FP8_MOST = 127.0, 448.0
LEAST = 2.0**-24  # the smallest number of fp16


def quantize(
    model: ModelProto, ranges: Mapping[str, tuple[float, float]], layers: Collection[str], kind: str
) -> ModelProto:
    """Copy a graph with the named layers quantised; kind: a name in SCHEMES.

    ranges: the smallest and the largest number that each tensor was measured to hold, by tensor.
    """
    from onnxruntime.quantization import QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData

    scheme = SCHEMES[kind]
    found = {name: (np.float32(least), np.float32(most)) for name, (least, most) in ranges.items()}
    quantizer = QDQQuantizer(
        copy.deepcopy(model),
        per_channel=scheme.per_channel,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, found),
        nodes_to_quantize=list(layers),
        nodes_to_exclude=[],
        op_types_to_quantize=list(LAYERS),
        extra_options=OPTIONS,
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantised = quantizer.model.model
    _spare(quantised, layers)
    return scheme.finish(quantised, model)


def unfit(
    model: ModelProto,
    ranges: Mapping[str, tuple[float, float]],
    layers: Iterable[NodeProto],
    kind: str,
    in_half: bool,
) -> dict[str, str]:
    """Find the layers whose numbers a scheme cannot scale; each name with the reason.

    in_half: scales will be in half precision, so that none is below LEAST. Columns of a matrix have a scale
    each; a weight of more dims would get them along the dim that the product sums over.
    """
    from onnx import numpy_helper

    scheme, found = SCHEMES[kind], {}
    weights = {weight.name: weight for weight in model.graph.initializer}
    for layer in layers:
        weight = numpy_helper.to_array(weights[layer.input[1]])
        if scheme.per_channel and layer.op_type == "MatMul" and weight.ndim != 2:
            found[layer.name] = f"its weight has {weight.ndim} dims"
            continue
        columns = _columns(layer, weight) if scheme.per_channel else np.abs(weight).max(keepdims=True)
        inputs = max(np.abs(ranges.get(layer.input[0], (0.0, 0.0))))
        reached = [most for most in (inputs, *columns.flat) if most > 0]
        if in_half and reached and min(reached) / scheme.most < LEAST:
            found[layer.name] = f"a scale of {min(reached) / scheme.most:.1g} is none in half precision"
    return found


def _columns(layer: NodeProto, weight: np.ndarray) -> np.ndarray:
    """Return the largest magnitude of each output channel of a layer's weight."""
    transposed = any(each.name == "transB" and each.i for each in layer.attribute)
    channels = 0 if layer.op_type == "Conv" or transposed else 1
    return np.abs(weight).max(axis=tuple(dim for dim in range(weight.ndim) if dim != channels))


def _spare(quantised: ModelProto, layers: Collection[str]) -> None:
    """Reconnect norms, sums and whatever else reads a layer's input to the numbers before rounding."""
    made = {node.output[0]: node for node in quantised.graph.node}
    for node in quantised.graph.node:
        if node.op_type in PAIR or node.name in layers:
            continue
        for place, name in enumerate(node.input):
            eight = made.get(name)
            if eight is not None and eight.op_type == PAIR[1] and eight.input[0] in made:
                node.input[place] = made[eight.input[0]].input[0]


def _to_fp8(quantised: ModelProto, model: ModelProto) -> ModelProto:
    """Turn int8 nodes into E4M3 ones: scales shrink by the ratio of the largest, weights are redone."""
    from onnx import TensorProto, helper, numpy_helper

    e4m3 = helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN)
    weights = {weight.name: weight for weight in quantised.graph.initializer}
    originals = {weight.name: weight for weight in model.graph.initializer}
    nodes = [n for n in quantised.graph.node if n.op_type in PAIR]
    for name in {node.input[1] for node in nodes}:
        scale = numpy_helper.to_array(weights[name]) * np.float32(INT8_MOST / FP8_MOST)
        weights[name].CopyFrom(numpy_helper.from_array(scale, name))
    for name in {node.input[2] for node in nodes}:
        zeros = np.zeros(tuple(weights[name].dims), e4m3)
        weights[name].CopyFrom(numpy_helper.from_array(zeros, name))
    for node in nodes:
        original = originals.get(node.input[0].removesuffix("_quantized"))
        if node.op_type == PAIR[1] and original is not None:
            scale = numpy_helper.to_array(weights[node.input[1]])
            numbers = np.clip(numpy_helper.to_array(original) / scale, -FP8_MOST, FP8_MOST)
            weights[node.input[0]].CopyFrom(numpy_helper.from_array(numbers.astype(e4m3), node.input[0]))
    return quantised


@dataclass(frozen=True)
class Scheme:
    """A way to quantise layers.

    layers: the node types that it quantises. per_channel: whether weights have a scale for each output
    channel, else one for the tensor. finish(quantised, original): the graph with int8 nodes turned into this
    scheme's. most: the largest number of its 8 bits. literal: whether ONNX Runtime has no kernels for it, so
    that its optimiser must be off.
    """

    layers: tuple[str, ...]
    per_channel: bool
    finish: Callable[[ModelProto, ModelProto], ModelProto]
    most: float
    literal: bool = False


SCHEMES = {
    "int8": Scheme(LAYERS, True, lambda quantised, _: quantised, INT8_MOST),
    # Convolutions have no 8-bit float kernels in TensorRT. Its scales for these are one a tensor.
    "fp8": Scheme(("MatMul", "Gemm"), False, _to_fp8, FP8_MOST, literal=True),
}
