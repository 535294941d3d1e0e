"""Write attention as ONNX's Attention node instead of two products around a softmax.

Such a node hides the scores, so this comes after what must stay in fp32 was found: attention with such a node
inside keeps its products and its softmax. Attention's softmax_precision stays unset: TensorRT refuses it
(RTX 1.7), and the fused kernels of GPUs compute the softmax in fp32 anyway.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import TYPE_CHECKING

from engines.onnx.attention_form import FUSED
from optimize.precision.half import inferred

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

SWAPS = ([0, 1, 3, 2], [0, 2, 1])  # permutations that turn keys for the product


def fuse_attention(model: ModelProto, fp32_layers: Collection[str] = ()) -> ModelProto:
    """Copy a graph, at opset 23 or later, with each unmasked attention of four dims as one node."""
    fused = copy.deepcopy(model)
    _Fusion(fused, fp32_layers).run()
    onnx = next(each for each in fused.opset_import if not each.domain)
    onnx.version = max(onnx.version, FUSED)
    return fused


class _Fusion:
    """The fusion of one graph, in place."""

    def __init__(self, model: ModelProto, fp32_layers: Collection[str]) -> None:
        self._graph, self._fp32_layers = model.graph, set(fp32_layers)
        self._made = {name: node for node in model.graph.node for name in node.output}
        self._takers: dict[str, list[NodeProto]] = {value.name: [None] for value in model.graph.output}
        for node in model.graph.node:
            for name in node.input:
                self._takers.setdefault(name, []).append(node)
        self._dims = {
            value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in (*model.graph.input, *inferred(model))
        }
        self._scalars = {weight.name for weight in model.graph.initializer if sum(weight.dims) <= 1}

    def run(self) -> None:
        nodes = []
        for node in self._graph.node:
            nodes += self._fused(node) or [node]
        needed, kept = {value.name for value in self._graph.output}, []
        for node in reversed(nodes):
            if needed.intersection(node.output):
                needed |= set(node.input)
                kept.append(node)
        del self._graph.node[:], self._graph.value_info[:]
        self._graph.node.extend(reversed(kept))

    def _fused(self, last: NodeProto) -> list[NodeProto]:
        """Make what replaces the second product of an attention; nothing if the node is not one."""
        from onnx import helper

        softmax = self._maker(last, 0, "MatMul", "Softmax")
        first = self._maker(softmax, 0, "Softmax", "MatMul")
        if first is None or not self._fp32_layers.isdisjoint((last.name, softmax.name, first.name)):
            return []
        axis = next((each.i for each in softmax.attribute if each.name == "axis"), -1)
        keys, source, before = self._keys(first.input[1])
        if axis not in (-1, 3) or not self._alike(first.input[0], source, last.input[1]):
            return []
        node = helper.make_node(
            "Attention",
            [first.input[0], keys, last.input[1]],
            list(last.output),
            name=softmax.name.replace("Softmax", "Attention"),
            scale=1.0,  # the graph has multiplied queries and keys by it
        )
        return [*before, node]

    def _maker(self, node: NodeProto | None, place: int, kind: str, maker: str) -> NodeProto | None:
        """Return the node that makes an input, if both have these types and nothing else takes it."""
        if node is None or node.op_type != kind:
            return None
        made = self._made.get(node.input[place])
        alone = len(self._takers[node.input[place]]) == 1
        return made if made is not None and made.op_type == maker and alone else None

    def _keys(self, turned: str) -> tuple[str, str, list[NodeProto]]:
        """Name the keys before they were turned, and what they come from; give the nodes that make them."""
        from onnx import helper

        node, scalar = self._made.get(turned), ""
        if node is not None and node.op_type == "Mul" and self._scalars.intersection(node.input):
            scalar = next(name for name in node.input if name in self._scalars)
            source = self._before_turn(next(name for name in node.input if name != scalar))
            if source:
                name = f"{turned}/keys"
                return name, source, [helper.make_node("Mul", [source, scalar], [name], name=node.name)]
        source = self._before_turn(turned)
        if source:
            return source, source, []
        back, name = f"{turned}/keys", f"{turned}/Transpose"
        return back, turned, [helper.make_node("Transpose", [turned], [back], name=name, perm=SWAPS[0])]

    def _before_turn(self, turned: str) -> str:
        """Follow a name back through a transposition of the last dims, and the exporter's reshapes around."""
        for name in (turned, self._source(turned, "Reshape")):
            node = self._made.get(name)
            if node is not None and node.op_type == "Transpose" and list(node.attribute[0].ints) in SWAPS:
                source = node.input[0] if name == turned else self._source(node.input[0], "Reshape")
                return source if len(self._dims.get(source, ())) == 4 else ""
        return ""

    def _source(self, name: str, kind: str) -> str:
        node = self._made.get(name)
        return node.input[0] if node is not None and node.op_type == kind else ""

    def _alike(self, *names: str) -> bool:
        """Tell whether tensors of four dims have the same two first, as far as is known.

        Products stretch a dim of 1, the node does not.
        """
        dims = [self._dims.get(name, []) for name in names]
        sizes = [{each[place] for each in dims} for place in (0, 1) if all(len(each) == 4 for each in dims)]
        known = [{size for size in some if type(size) is int} for some in sizes]
        return len(sizes) == 2 and all(
            len(some) == 1 or (not ints or (len(ints) == 1 and ints != {1}))
            for some, ints in zip(sizes, known, strict=True)
        )
