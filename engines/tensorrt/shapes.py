"""The sizes an engine is built for: least, best and most of every input, from the component's spec."""

from __future__ import annotations

from engines.errors import EngineError
from engines.spec import ComponentSpec, DimRange

Shapes = dict[str, list[list[int]]]  # least, best and most sizes by input


def shapes_of(spec: ComponentSpec, fixed: bool) -> Shapes:
    """What the spec allows; fixed: the best sizes only, which is faster and takes no other input."""
    shapes: Shapes = {}
    for tensor in spec.inputs:
        limits = [
            spec.ranges[dim] if isinstance(dim, str) else DimRange(dim, dim, dim) for dim in tensor.dims
        ]
        best = [limit.opt for limit in limits]
        least, most = [limit.min for limit in limits], [limit.max for limit in limits]
        shapes[tensor.name] = [best, best, best] if fixed else [least, best, most]
    return shapes


def check_shapes(spec: ComponentSpec, shapes: Shapes, network: dict[str, tuple[int, ...]]) -> None:
    """EngineError unless a graph's inputs, -1 where a size is free, can have these sizes.

    TensorRT takes a profile of a wrong rank, or of an input that is not there, without a word.
    """
    if set(shapes) != set(network):
        raise EngineError(f"{spec.name}: the graph's inputs are {sorted(network)}, expected {sorted(shapes)}")
    for name, sizes in shapes.items():
        for wanted in sizes:
            fits = len(wanted) == len(network[name]) and all(
                size in (-1, want) for want, size in zip(wanted, network[name], strict=True)
            )
            if not fits:
                raise EngineError(
                    f"{spec.name}: {name} of {wanted} does not fit the graph's {list(network[name])} (-1 is "
                    "free); the graph was exported for other sizes: run export_onnx.py again"
                )
