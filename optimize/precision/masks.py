"""Attention masks: large negative numbers that a softmax turns to 0, so that their size does not matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto

MASKING = {"Add", "Where"}  # put masked numbers in the place of scores
FINITE = 65504.0  # fp16's largest number: a softmax over infinite ones alone would give no numbers
# They pass masks on, or compute them.
PASSING = MASKING | {
    "Cast", "Concat", "Expand", "Gather", "Identity", "Mul", "Reshape", "Slice", "Split", "Squeeze", "Sub",
    "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
Ranges = Mapping[str, tuple[float, float]]


def without_masks(graph: GraphProto, ranges: Ranges, safe: float) -> dict[str, tuple[float, float]]:
    """Cut the ranges of masks, of what they are computed from, and of masked scores to what is safe.

    A mask is never above 0, reaches beyond what is safe but is finite in fp16, and goes to softmaxes only.
    Scores that reach as far by themselves keep their range: where all are low, softmax depends on them.
    """
    hiding, cut = _only_to_softmax(graph), dict(ranges)
    masks, masked = set(), set()
    for node in graph.node:
        if node.name not in hiding or node.op_type == "Softmax":
            continue
        found = {name for name in node.input if _is_mask(ranges.get(name, (0, 0)), safe)}
        if node.op_type in MASKING:
            masks |= found
        if masked.intersection(node.input) or (found and node.op_type in MASKING):
            masked |= set(node.output)
    before, others = set(), set()  # tensors that masks are computed from; tensors that something else sees
    for node in reversed(graph.node):
        if node.op_type in PASSING and (masks | before - others).issuperset(node.output):
            before |= set(node.input)
        else:
            others |= set(node.input)
    masks |= before - others
    for name in ranges.keys() & masks:
        if max(map(abs, ranges[name])) <= FINITE:
            cut[name] = tuple(min(max(end, -safe), safe) for end in ranges[name])
    for name in (ranges.keys() & masked) - masks:
        cut[name] = tuple(max(end, -safe) for end in ranges[name])
    return cut


def _is_mask(limits: tuple[float, float], safe: float) -> bool:
    least, most = limits
    return -FINITE <= least < -safe and most <= 0


def _only_to_softmax(graph: GraphProto) -> set[str]:
    """Name the nodes whose outputs go through passing nodes to softmaxes and nowhere else."""
    elsewhere = {value.name for value in graph.output}  # tensors that something else sees
    hiding = set()
    for node in reversed(graph.node):
        passes = node.op_type in PASSING and elsewhere.isdisjoint(node.output)
        if passes or node.op_type == "Softmax":
            hiding.add(node.name)
        else:
            elsewhere |= set(node.input)
    return hiding
