"""Which form attention has in a graph: one node for GPUs, products around a softmax for processors.

Half precision is for GPUs, whose fused kernels take ONNX's Attention (opset 23): TensorRT from 10.14,
TensorRT-RTX from 1.3, ONNX Runtime on CUDA from 1.25. They hold the scores in fp32, and never all of them.
"""

from __future__ import annotations

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
