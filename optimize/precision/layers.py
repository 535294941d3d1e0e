"""The layers of a graph: the matrix products and convolutions with constant weights, where the time goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

LAYERS = ("Conv", "MatMul", "Gemm")


def find_layers(graph: GraphProto, kinds: Iterable[str] = LAYERS) -> list[NodeProto]:
    """Find the nodes of those kinds whose second input is a weight; in attention it is an activation.

    A weight in 8 bits is one too, behind the node that scales it.
    """
    weights = {initializer.name for initializer in graph.initializer}
    weights |= {
        node.output[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in weights
    }
    return [node for node in graph.node if node.op_type in kinds and node.input[1] in weights]


def outer_layers(graph: GraphProto) -> set[str]:
    """Name the first and last layers: those with no layer before them, and those with none behind."""
    layers = {node.name for node in find_layers(graph)}
    makers = {output: node for node in graph.node for output in node.output}
    takers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)

    def before(node: NodeProto) -> list[NodeProto]:
        return [makers[name] for name in node.input if name in makers]

    def behind(node: NodeProto) -> list[NodeProto]:
        return [taker for name in node.output for taker in takers.get(name, ())]

    return _starts(graph.node, layers, before) | _starts(reversed(graph.node), layers, behind)


def upstream(graph: GraphProto, names: Iterable[str]) -> set[str]:
    """Name all nodes that lead to the named ones without a layer in between."""
    makers = {output: node for node in graph.node for output in node.output}
    nodes = {node.name: node for node in graph.node}
    layers = {node.name for node in find_layers(graph)}
    found, waiting = set(), [nodes[name] for name in names]
    while waiting:
        for tensor in waiting.pop().input:
            maker = makers.get(tensor)
            if maker is not None and maker.name not in layers | found:
                found.add(maker.name)
                waiting.append(maker)
    return found


def largest(node: NodeProto, ranges: Mapping[str, tuple[float, float]]) -> float:
    """Return the largest magnitude among the node's inputs and outputs; 0 where none was measured."""
    known = [ranges[name] for name in (*node.input, *node.output) if name in ranges]
    return max((max(-least, most) for least, most in known), default=0.0)


def _starts(
    nodes: Iterable[NodeProto], layers: set[str], neighbours: Callable[[NodeProto], list[NodeProto]]
) -> set[str]:
    """Find the layers that come before all others; nodes: in the order of the way, forward or back."""
    past, starts = set(), set()  # nodes that a layer leads to; layers that none leads to
    for node in nodes:
        if any(other.name in past | layers for other in neighbours(node)):
            past.add(node.name)
        elif node.name in layers:
            starts.add(node.name)
    return starts
