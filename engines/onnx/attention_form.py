"""Which form attention has in a graph: one node for GPUs, products around a softmax for processors.

Half precision is for GPUs, whose fused kernels take ONNX's Attention (opset 23): TensorRT from 10.14,
TensorRT-RTX from 1.3, ONNX Runtime on CUDA from 1.25. They hold the scores in fp32, and never all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engines.precision import PRECISIONS

DECOMPOSED = 20  # the opset that TensorRT from 10.0, TensorRT-RTX and ONNX Runtime all read
FUSED = 23  # the first opset with Attention
LEAST = {"tensorrt": (10, 14), "tensorrt_rtx": (1, 3)}  # the versions that read it


def opset_for(precision: str, asked: int | None = None) -> int:
    """Return the opset of a graph in that precision, the one asked for if there is one."""
    if asked is not None:
        return asked
    chosen = PRECISIONS[precision]
    # ONNX Runtime 1.31 makes graphs with 8-bit layers at later opsets invalid when it optimises them.
    return DECOMPOSED if chosen.compute == "float32" or chosen.layers else FUSED


def reads_attention(flavour: str, version: str) -> bool:
    """Tell whether a TensorRT of that flavour and version reads Attention nodes."""
    return tuple(int(part) for part in version.split(".")[:2]) >= LEAST[flavour]


@contextmanager
def rows_of_masks(path: Path) -> Iterator[Path]:
    """Write a graph's copy whose Attention masks have a row for each query; it lasts as long as the block.

    ONNX lets a mask have one row for all queries, TensorRT reads that, and ONNX Runtime (1.31) does not.
    Weights stay in the file beside the graph. The graph itself is given where no Attention has a mask.
    """
    import onnx
    from onnx import helper

    graph = onnx.load(path, load_external_data=False)
    nodes = []
    for number, node in enumerate(graph.graph.node):
        if node.op_type == "Attention" and len(node.input) > 3 and node.input[3]:
            queries = 1 if any(each.name == "q_num_heads" for each in node.attribute) else 2  # its axis
            one, rows, shape, mask = (f"masked_{number}_{name}" for name in ("one", "rows", "shape", "mask"))
            nodes += [
                helper.make_node("Constant", [], [one], value_ints=[1]),
                helper.make_node("Shape", [node.input[0]], [rows], start=queries, end=queries + 1),
                helper.make_node("Concat", [rows, one], [shape], axis=0),
                helper.make_node("Expand", [node.input[3], shape], [mask]),
            ]
            node.input[3] = mask
        nodes.append(node)
    if len(nodes) == len(graph.graph.node):
        yield path
        return
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    copy = path.with_name(f"{path.stem}-masks.onnx")
    try:
        onnx.save(graph, copy)
        yield copy
    finally:
        copy.unlink(missing_ok=True)
