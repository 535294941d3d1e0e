"""The dtypes that a module's tensors have when it is traced in another precision than they are stored in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engines.onnx.export import ExportError

if TYPE_CHECKING:
    import torch

OF_DTYPES = re.compile("dtype|scalar type|inconsistent type", re.IGNORECASE)  # in torch's and ONNX's reasons
SHOWN = 10


def tensors_of(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor, bool]]:
    """List (name, tensor, whether it is a parameter), buffers outside the state included."""
    yield from ((name, parameter, True) for name, parameter in module.named_parameters())
    yield from ((name, buffer, False) for name, buffer in module.named_buffers())


def dtype_in(module: torch.nn.Module, name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.dtype:
    """Choose a tensor's dtype: the given one, float32 where its class says so, its own if not a float."""
    import torch

    parts = name.split(".")
    for depth in range(len(parts)):
        around = module.get_submodule(".".join(parts[:depth]))
        if not set(getattr(around, "_keep_in_fp32_modules", None) or ()).isdisjoint(parts[depth:]):
            return torch.float32
    return dtype if tensor.is_floating_point() else tensor.dtype


@contextmanager
def naming_buffers(module: torch.nn.Module, dtype: str) -> Iterator[None]:
    """Add to an ExportError over dtypes which buffers of a module stay in float32 in a half one, and a mend.

    They are not rounded unasked: a table of times or frequencies would be of no use.
    """
    try:
        yield
    except ExportError as error:
        wide = _in_float32(module) if dtype != "float32" and OF_DTYPES.search(str(error)) else []
        if not wide:
            raise
        raise ExportError(
            f"{error}\nIn {dtype} these buffers stay in float32, as they are stored: "
            f"{', '.join(wide[:SHOWN])}; cast each where it is used, as self.pos.to(x.dtype), or make it "
            ".half() in build(): then it gets the precision of the weights"
        ) from error


def _in_float32(module: torch.nn.Module) -> list[str]:
    """List the buffers in float32 whose class does not ask for it."""
    import torch

    return [
        name
        for name, tensor, is_parameter in tensors_of(module)
        if not is_parameter
        and tensor.dtype == torch.float32
        and dtype_in(module, name, tensor, torch.float16) == torch.float16
    ]
