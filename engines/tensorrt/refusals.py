"""What TensorRT does not build, told from a graph without TensorRT (as TensorRT-RTX 1.7 refuses it)."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

TYPES = {"INT16", "UINT16", "UINT32", "UINT64", "COMPLEX64", "COMPLEX128"}
OPERATIONS = {
    "BitShift": "shifts of bits",
    "BitwiseAnd": "bitwise and",
    "BitwiseNot": "bitwise not",
    "BitwiseOr": "bitwise or",
    "BitwiseXor": "bitwise xor",
    "DFT": "Fourier transforms",
    "Unique": "unique, whose size depends on values",
}


def refusal(node: ir.Node, edges: Collection[ir.Value]) -> tuple[str, str] | None:
    """Say why TensorRT would not build a node, and the way out. edges: the graph's inputs and outputs."""
    values = [value for value in (*node.inputs, *node.outputs) if value and value.dtype]
    levels = [value for value in values if value.dtype.name == "UINT8"]
    if levels and (node.op_type != "Cast" or any(value not in edges for value in levels)):
        wrong = f"{node.op_type} is done with uint8, which TensorRT takes from an input into a cast only, "
        mend = "begin forward() with pixels.float(), and end it with .to(torch.uint8); all else in between"
        return wrong + "or from a cast into an output", mend
    odd = [value.dtype.name.lower() for value in values if value.dtype.name in TYPES]
    if odd:
        return f"{node.op_type} is done with {odd[0]}, which TensorRT has not", "use int32, int64 or float32"
    antialias = node.op_type == "Resize" and node.attributes.get("antialias")
    if node.op_type in OPERATIONS or (antialias and antialias.as_int()):
        what = OPERATIONS.get(node.op_type, "antialiasing")
        return f"it has {what}, which TensorRT does not build", "write it with products, sums or comparisons"
    return None
