"""Find where a graph in lower precision first gives what is no finite number, to name it in an error."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from optimize.precision.half import tensor_types
from optimize.precision.ort_run import run_graph

if TYPE_CHECKING:
    from onnx import ModelProto

Arrays = Mapping[str, np.ndarray]


def first_not_finite(graph: ModelProto, source: ModelProto, inputs: Arrays) -> str | None:
    """Name the first node with an output that is not finite in graph, and is in source; None: there is none.

    graph: a rehearsal or the like, in which casts follow the node whose output they round. source: the same
    in fp32, where masks may be infinite. Nodes of an exported graph are named for their modules.
    """
    infinite = _not_finite(source, inputs)
    casts = tuple(f"{name}/" for name in infinite)  # what converting put before and after them
    wrong = {name for name in _not_finite(graph, inputs) - infinite if not name.startswith(casts)}
    named = None
    for node in graph.graph.node:
        named = node.name or named
        if wrong.intersection(node.output):
            return named
    return None


def _not_finite(model: ModelProto, inputs: Arrays) -> set[str]:
    """Return the names of the fp32 tensors that are not finite for these inputs."""
    from onnx import TensorProto, helper

    probed, kinds = copy.deepcopy(model), tensor_types(model)
    probes = {}
    for name in (output for node in model.graph.node for output in node.output):
        if kinds.get(name) == TensorProto.FLOAT:
            # A finite number less itself is 0; else it is not a number, and so is their sum.
            zero, probes[name] = f"{name}/zero", f"{name}/probe"
            probed.graph.node.append(helper.make_node("Sub", [name, name], [zero]))
            probed.graph.node.append(helper.make_node("ReduceSum", [zero], [probes[name]], keepdims=0))
            probed.graph.output.append(helper.make_tensor_value_info(probes[name], TensorProto.FLOAT, []))
    (found,) = run_graph(probed, [inputs], literal=True)
    return {name for name, probe in probes.items() if np.isnan(found[probe])}
