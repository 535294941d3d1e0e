"""Convert a graph to half precision, except layers that must stay in fp32, and rehearse it on a processor.

Known converters were tried first. They round what passes between two nodes that are to stay in fp32, which
overflows after all: ONNX Runtime 1.31 always, onnxconverter-common 1.16 where two nodes take it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from optimize.precision.layers import largest, upstream
from optimize.precision.masks import without_masks

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

# A sixteenth of fp16's largest number: where x is squared, x may grow fourfold beyond what was measured.
# bfloat16 has the range of fp32.
SAFE = {"float16": 65504 / 16}
# Their answer hangs on the absolute size of an argument's error, and half precision only keeps the relative
# one small: 0.5 of 1000 radians, 0.06 of 255 levels. What leads to them stays in fp32, back to a layer.
ABSOLUTE = {"Sin", "Cos", "Round", "Floor", "Ceil", "Mod"}
# They move numbers without computing any.
MOVES = {"Reshape", "Transpose", "Slice", "Squeeze", "Unsqueeze", "Expand", "Split", "Concat", "Gather"}


def find_fp32_layers(
    model: ModelProto, ranges: Mapping[str, tuple[float, float]], safe: float | None = SAFE["float16"]
) -> dict[str, str]:
    """Find the nodes that must stay in fp32; each name with the reason.

    ranges: what each tensor was measured to hold. safe: the largest magnitude allowed; None for bfloat16,
    which has fp32's range.
    """
    graph = model.graph
    absolute = [node.name for node in graph.node if node.op_type in ABSOLUTE]
    fp32_layers = dict.fromkeys(
        sorted(upstream(graph, absolute)), "leads to one that depends on absolute errors"
    )
    fp32_layers |= dict.fromkeys(absolute, "depends on absolute errors")
    if safe is None:
        return fp32_layers
    known = without_masks(graph, {**_weight_ranges(model), **ranges}, safe)
    for node in graph.node:
        reached = largest(node, known)
        if reached > safe:
            fp32_layers[node.name] = f"reaches {reached:.3g}"
    return fp32_layers


def to_half(model: ModelProto, kind: str, fp32_layers: Mapping[str, str]) -> ModelProto:
    """Copy a graph to compute in kind, "float16" or "bfloat16".

    Nodes named in fp32_layers, and those that ONNX has only in fp32, compute as before. Inputs and outputs of
    the graph keep their dtypes. No node mixes float types.
    """
    converted = copy.deepcopy(model)
    _Conversion(converted, kind, fp32_layers).run()
    return converted


def rehearsal(model: ModelProto) -> ModelProto:
    """Make an fp32 graph that rounds each result to half precision where the given graph would.

    ONNX Runtime lacks most half precision kernels on a processor; it computes in fp32 there and leaves the
    rounding out, overflows included (1.31: 1e5 in fp16 came back from softplus and sine as a finite number).
    """
    from onnx import TensorProto, helper

    rounded = copy.deepcopy(model)
    graph, halves, kinds = rounded.graph, (TensorProto.FLOAT16, TensorProto.BFLOAT16), tensor_types(model)
    for initializer in graph.initializer:
        if initializer.data_type in halves:
            _replace(initializer, TensorProto.FLOAT)
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for index, name in enumerate(node.output):
            if kinds.get(name) in halves and node.op_type not in MOVES:
                node.output[index] = f"{name}/exact"
                kind = helper.make_node("Cast", [f"{name}/exact"], [f"{name}/rounded"], to=kinds[name])
                back = helper.make_node("Cast", [f"{name}/rounded"], [name], to=TensorProto.FLOAT)
                nodes += [kind, back]
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in halves:
                attribute.i = TensorProto.FLOAT
            elif attribute.name == "value" and attribute.t.data_type in halves:
                _replace(attribute.t, TensorProto.FLOAT)
    _set_nodes(rounded, nodes)
    del graph.value_info[:]
    return rounded


def tensor_types(model: ModelProto) -> dict[str, int]:
    """Infer the type of every tensor that a node makes, as ONNX's number for it."""
    return {value.name: value.type.tensor_type.elem_type for value in inferred(model)}


def inferred(model: ModelProto) -> list[ValueInfoProto]:
    """Infer the type and the dims of every tensor that a node makes."""
    from onnx import shape_inference

    bare = copy.deepcopy(model)
    for weight in bare.graph.initializer:
        if len(weight.raw_data) > 1024:  # no shape or scale; inference takes 2 GiB at most
            weight.ClearField("raw_data")
    del bare.graph.value_info[:]
    graph = shape_inference.infer_shapes(bare, strict_mode=True).graph
    return [*graph.value_info, *graph.output]


class _Conversion:
    """The conversion of one graph: in order, each node gets its inputs in the type that it computes in."""

    def __init__(self, model: ModelProto, kind: str, fp32_layers: Mapping[str, str]) -> None:
        from onnx import TensorProto

        self._model, self._fp32_layers = model, fp32_layers
        self._half, self._text = getattr(TensorProto, kind.upper()), f"tensor({kind})"
        self._suffix = {self._half: f"/{kind}", TensorProto.FLOAT: "/float32"}
        self._float = TensorProto.FLOAT
        self._weights = {weight.name: weight for weight in model.graph.initializer}
        self._made: dict[str, int] = {}  # the type each float tensor was made in
        self._names: dict[tuple[str, int], str] = {}  # tensor and type, and what that is called
        self._nodes: list[NodeProto] = []

    def run(self) -> None:
        graph = self._model.graph
        floats = {name for name, kind in tensor_types(self._model).items() if kind == self._float}
        floats |= {v.name for v in graph.input if v.type.tensor_type.elem_type == self._float}
        floats |= {weight.name for weight in graph.initializer if weight.data_type == self._float}
        self._made = {v.name: self._float for v in graph.input}
        for node in list(graph.node):
            self._convert(node, floats)
        for output in graph.output:
            if self._made.get(output.name) == self._half:
                self._restore(output.name)
        _set_nodes(self._model, self._nodes)
        used = {name for node in graph.node for name in node.input}
        weights = [weight for weight in self._weights.values() if weight.name in used]
        del graph.initializer[:], graph.value_info[:]
        graph.initializer.extend(weights)

    def _convert(self, node: NodeProto, floats: set[str]) -> None:
        inputs = [index for index, name in enumerate(node.input) if name in floats]
        outputs = [name for name in node.output if name in floats]
        formal_inputs, formal_outputs = self._formals(node)
        fixed = [index for index in inputs if formal_inputs[index] == {"tensor(float)"}]
        allowed = [formal_inputs[index] for index in inputs if index not in fixed]
        allowed += [formal_outputs[index] for index, name in enumerate(node.output) if name in floats]
        stays = node.name in self._fp32_layers or any(self._text not in types for types in allowed)
        kind = self._float if stays else self._half
        for index in inputs:
            node.input[index] = self._as(node.input[index], self._float if index in fixed else kind)
        if kind == self._half and outputs:
            self._retarget(node)
        self._made.update(dict.fromkeys(outputs, kind))
        self._nodes.append(node)

    def _formals(self, node: NodeProto) -> tuple[list[set[str]], list[set[str]]]:
        """List the types ONNX allows each input and output of the node; the last of a schema may repeat."""
        from onnx import defs

        opset = next(each.version for each in self._model.opset_import if each.domain == node.domain)
        schema = defs.get_schema(node.op_type, opset, node.domain)
        return tuple(
            [formals[min(place, len(formals) - 1)].types for place in range(len(names))]
            for formals, names in ((schema.inputs, node.input), (schema.outputs, node.output))
        )

    def _as(self, name: str, kind: int) -> str:
        """Name the tensor in that type, and cast it there if it has not been needed before."""
        if self._made.get(name, self._float) == kind:
            return name
        if (name, kind) not in self._names:
            self._names[name, kind] = new = name + self._suffix[kind]
            if name in self._weights:
                self._weights[new] = _as_kind(self._weights[name], kind, new)
            else:
                self._nodes.append(_cast(name, new, kind))
        return self._names[name, kind]

    def _retarget(self, node: NodeProto) -> None:
        """Let nodes that choose their own output type choose half precision."""
        if node.op_type == "ConstantOfShape" and not node.attribute:  # zeros in float, unless it says more
            node.attribute.append(_zero())
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to":
                attribute.i = self._half
            elif attribute.name == "value" and attribute.t.data_type == self._float:  # Constant and the like
                _replace(attribute.t, self._half)

    def _restore(self, output: str) -> None:
        """Give a graph output its own type back."""
        half = output + self._suffix[self._half]
        for node in self._nodes:
            node.input[:] = [half if name == output else name for name in node.input]
            node.output[:] = [half if name == output else name for name in node.output]
        self._nodes.append(_cast(half, output, self._float))


def _cast(source: str, target: str, kind: int) -> NodeProto:
    from onnx import helper

    return helper.make_node("Cast", [source], [target], name=f"{target}/Cast", to=kind)


def _zero() -> AttributeProto:
    from onnx import helper, numpy_helper

    return helper.make_attribute("value", numpy_helper.from_array(np.zeros(1, np.float32)))


def _as_kind(tensor: TensorProto, kind: int, name: str) -> TensorProto:
    from onnx import helper, numpy_helper

    numbers = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):  # infinite masks stay infinite; finite weights were measured
        return numpy_helper.from_array(numbers.astype(helper.tensor_dtype_to_np_dtype(kind)), name)


def _replace(tensor: TensorProto, kind: int) -> None:
    tensor.CopyFrom(_as_kind(tensor, kind, tensor.name))


def _weight_ranges(model: ModelProto) -> dict[str, tuple[float, float]]:
    """Measure the least and the largest finite number of every float weight; infinite masks stay so."""
    from onnx import numpy_helper

    ranges = {}
    for weight in model.graph.initializer:
        numbers = numpy_helper.to_array(weight)
        if numbers.dtype == np.float32 and numbers.size:
            finite = np.isfinite(numbers)
            least, most = (float(end(numbers, where=finite, initial=0)) for end in (np.min, np.max))
            ranges[weight.name] = (least, most)
    return ranges


def _set_nodes(model: ModelProto, nodes: list[NodeProto]) -> None:
    nodes = [*nodes]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
