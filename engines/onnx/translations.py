"""Operations that torch's exporter translates wrongly, written in ONNX, and its reasons in plain words."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def translations() -> dict[Callable, Callable]:
    """List by operation what torch.onnx.export takes as custom_translation_table."""
    import torch

    _parse_once()
    return {torch.ops.aten.repeat_interleave.self_int: _repeat_interleave}


def reason(error: Exception) -> str:
    """Cut the exporter's message to what it could not do, and the line of the module that asked for it."""
    text = str(error.__cause__ or error).strip()
    operation = re.search(r"call_function\[target=([\w.]+)\]", text)
    if operation:
        return f"it does not translate {operation[1]} as it is used here; write it with other operations"
    line = text.partition("The following call raised this error:\n")[2].partition("\n\n")[0]
    return "\n".join(filter(None, (text.partition("\n\n")[0], line)))


@cache
def _parse_once() -> None:
    """Have onnxscript keep what it parses of its operations' sources, all of which each export asks for.

    That is a second of an export, and a generator has up to ten components.
    """
    with suppress(ImportError, AttributeError):  # it is no public interface
        from onnxscript._internal.values import TracedOnnxFunction

        TracedOnnxFunction.function_ir = property(cache(TracedOnnxFunction.function_ir.fget))


def _repeat_interleave(
    self: ir.Value, repeats: int | ir.Value, dim: int | None = None, output_size: int | ir.Value | None = None
) -> ir.Value:
    """Repeat each entry along dim; the exporter's own puts a free number of repeats before dim (0.7.2)."""
    from onnxscript import opset18 as op

    rank = 1 if dim is None else len(self.shape)
    if dim is None:
        self, dim = op.Reshape(self, op.Constant(value_ints=[-1])), 0
    dim %= rank
    if isinstance(repeats, int):
        repeats = op.Constant(value_ints=[repeats])
    times = [op.Constant(value_ints=[1] * (dim + 1)), op.Reshape(repeats, op.Constant(value_ints=[-1]))]
    if dim + 1 < rank:
        times.append(op.Constant(value_ints=[1] * (rank - dim - 1)))
    between = op.Unsqueeze(self, op.Constant(value_ints=[dim + 1]))
    repeated = op.Expand(between, op.Concat(*times, axis=0))
    shape = [op.Shape(self, start=0, end=dim)] if dim else []
    shape.append(op.Constant(value_ints=[-1]))
    if dim + 1 < rank:
        shape.append(op.Shape(self, start=dim + 1))
    return op.Reshape(repeated, op.Concat(*shape, axis=0))
