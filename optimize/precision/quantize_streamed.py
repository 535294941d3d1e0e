"""Quantise a large traced graph: scales come from runs of the module, weights are rounded when written.

Layers of repeated blocks only: the first and the last ones stay as they are, as in convert.py. No
layer's error is measured alone, which would take a run of the whole network for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.onnx.export import Change
from optimize.precision.quantize import INT8_MOST, LEAST

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import Tensor, nn

# Inputs are random numbers, not latents and conditions of a video: what is larger than any seen is clipped.
# On the presenter's weights 4 layers of 80 met more than 1.5 times what one random input had shown, 2 of
# them more than twice.
MARGIN = 1.5


def quantise_blocks(graph: ir.Model, module: nn.Module, calls: Iterable[Mapping[str, np.ndarray]]) -> str:
    """Put 8-bit nodes before the matrix products of blocks, in place; a scale for each column of weights.

    calls: the inputs that inputs of layers are measured on; a scale reaches MARGIN times the largest.
    """
    largest = _largest_inputs(module, calls)
    layers = [node for node in graph.graph if node.op_type == "MatMul" and _path(node) in largest]
    if not layers:
        return "no layer of a repeated block is a matrix product: all of it stays in fp16"
    for node in layers:
        _quantise(graph.graph, node, MARGIN * largest[_path(node)])
    return f"{len(layers)} layers of blocks in 8 bits, scales from random inputs"


def _path(node: ir.Node) -> str:
    return node.name.partition("/")[0]


def _largest_inputs(module: nn.Module, calls: Iterable[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Measure the largest input of each linear layer of a block in all calls, by the layer's name."""
    import torch

    found: dict[str, float] = {}

    def note(name: str, layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        found[name] = max(found.get(name, 0.0), float(given[0].abs().max()))

    hooks = [
        layer.register_forward_pre_hook(lambda layer, given, name=name: note(name, layer, given))
        for name, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear) and any(part.isdecimal() for part in name.split("."))
    ]
    try:
        with torch.inference_mode():
            for inputs in calls:
                module(*(torch.from_numpy(array) for array in inputs.values()))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: most for name, most in found.items() if most > 0}


def _quantise(graph: ir.Graph, node: ir.Node, largest: float) -> None:
    import onnx_ir as ir

    activation, weight = node.inputs
    half = weight.const_value.dtype.numpy()
    scale = _constant(graph, f"{node.name}/input_scale", np.asarray(largest / INT8_MOST, half))
    zero = _constant(graph, f"{node.name}/input_zero", np.asarray(0, np.int8))
    rounded = ir.node("QuantizeLinear", [activation, scale, zero], name=f"{node.name}/QuantizeLinear")
    given = [rounded.outputs[0], scale, zero]
    back = ir.node("DequantizeLinear", given, name=f"{node.name}/DequantizeLinear")
    columns, eight = _eight_bits(graph, weight)
    zeros = _constant(graph, f"{weight.name}/zeros", np.zeros(columns.shape[0], np.int8))
    whole = ir.node(
        "DequantizeLinear", [eight, columns, zeros], {"axis": 1}, name=f"{node.name}/weight/DequantizeLinear"
    )
    for new in (rounded, back, whole):
        new.outputs[0].name = f"{new.name}/output"
        graph.insert_before(node, new)
    node.replace_input_with(0, back.outputs[0])
    node.replace_input_with(1, whole.outputs[0])
    del graph.initializers[weight.name]


def _eight_bits(graph: ir.Graph, weight: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Make the scales of a weight's columns, and its rounded numbers, which are computed when written."""
    import onnx_ir as ir

    lazy, half = weight.const_value, weight.const_value.dtype.numpy()
    scales = np.abs(lazy.numpy()).max(0).astype(np.float32) / INT8_MOST
    scales = np.maximum(scales, LEAST).astype(half)  # numbers are rounded by what half precision holds

    def rounded() -> ir.Tensor:
        numbers = lazy.numpy().astype(np.float32) / scales.astype(np.float32)
        return ir.tensor(np.clip(np.rint(numbers), -INT8_MOST, INT8_MOST).astype(np.int8))

    name, shape = f"{weight.name}/int8", weight.const_value.shape
    tensor = ir.LazyTensor(rounded, dtype=ir.DataType.INT8, shape=shape, name=name)
    eight = ir.Value(name=name, shape=shape, type=ir.TensorType(ir.DataType.INT8), const_value=tensor)
    graph.register_initializer(eight)
    return _constant(graph, f"{weight.name}/scales", scales), eight


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    import onnx_ir as ir

    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


BLOCKS = Change(quantise_blocks, (Path(__file__),))
