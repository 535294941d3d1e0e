"""Networks of the user's own: an ONNX file whose inputs and outputs are as documented, run as an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from engines.backends.onnxruntime_backend import OnnxRuntimeEngine, why_not
from engines.errors import EngineError, check_file
from engines.spec import Cadence, ComponentSpec, DimRange, Engine, TensorSpec

ANY = DimRange(1, 224, 8192)  # the file fixes height and width


Outputs = Mapping[str, tuple[int | str, ...]]


def plugged(path: Path, choices: Sequence[Outputs], batch: int) -> tuple[Engine, tuple[int, int]]:
    """An ONNX file that takes "pixels" (n, H, W, 3) uint8, n up to batch, on a processor; and its (W, H).

    choices: name and dims of the float32 tensors it must give, one of several sets. InputError: no such file;
    EngineError: another file than that.
    """
    check_file(path, "network (ONNX)")
    if reason := why_not("cpu"):
        raise EngineError(reason)
    pixels = TensorSpec("pixels", ("n", "h", "w", 3), "uint8")
    sizes = {"n": DimRange(1, batch, batch), "h": ANY, "w": ANY}
    refusals: dict[str, None] = {}
    for outputs in choices:
        given = tuple(TensorSpec(name, dims) for name, dims in outputs.items())
        try:
            engine = OnnxRuntimeEngine(ComponentSpec("network", Cadence.CHUNK, (pixels,), given, sizes), path)
        except EngineError as error:
            refusals[str(error)] = None
        else:
            return engine, _size(path)
    raise EngineError("\n".join(refusals))


def _size(path: Path) -> tuple[int, int]:
    import onnx

    shape = onnx.load(path, load_external_data=False).graph.input[0].type.tensor_type.shape
    dims = [dim.dim_value for dim in shape.dim]
    if len(dims) != 4 or not dims[1] or not dims[2] or dims[3] != 3:
        raise EngineError(f"{path}: pixels is {dims}; expected (n, H, W, 3) with H and W fixed numbers")
    return dims[2], dims[1]
