"""The reference backend: a component as its torch module, eager or compiled, on one device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.device_arrays import Array, Place, on_device
from engines.precision import PRECISIONS, require, supported
from engines.spec import ComponentSpec, Model

if TYPE_CHECKING:
    import torch

CPU_ALLOCATOR = "DefaultCPUAllocator"  # names itself in a plain RuntimeError
# Half precisions go through autocast, which leaves what would overflow in fp32.
SUPPORTED = supported(compute=("float32", "float16", "bfloat16"))


def why_not(device: str) -> str | None:
    """Return None if torch computes on that device here, else what is missing and what to do."""
    try:
        import torch
    except ImportError:
        return "torch is not installed; run: pip install -r requirements.txt"
    try:
        torch.zeros(1, device=device).cpu()  # the way back fails on "meta", which has no numbers
    except (RuntimeError, AssertionError, ImportError) as error:
        return f"torch cannot use --device {device}: {str(error).splitlines()[0]}"
    return None


def start(model: Model, component: str, precision: str, device: str, folder: Path) -> TorchEngine:
    """Start the component as its torch module; folder, where others look for built files, is not used."""
    with _memory_errors(component):
        return TorchEngine(model.components[component], model.build(component), device, precision)


def start_compiled(model: Model, component: str, precision: str, device: str, folder: Path) -> TorchEngine:
    """Start it through torch.compile, which compiles at the first call of each shape."""
    import torch

    with _memory_errors(component):
        module = torch.compile(model.build(component).eval(), dynamic=False)
        return TorchEngine(model.components[component], module, device, precision)


@contextmanager
def _memory_errors(component: str) -> Iterator[None]:
    """Turn torch's two ways to say that memory ran out into MemoryError."""
    import torch

    try:
        yield
    except RuntimeError as error:
        text = str(error).splitlines()[0] if str(error) else ""
        if not (isinstance(error, torch.OutOfMemoryError) or CPU_ALLOCATOR in text):
            raise
        raise MemoryError(f"{component}: {text}") from error


class TorchEngine:
    """An engine that runs a torch module with inputs and outputs in the spec's order, weights in fp32.

    precision: one of SUPPORTED, else EngineError.
    """

    path = None  # nothing is built
    place: Place | None = None

    def __init__(
        self, spec: ComponentSpec, module: torch.nn.Module, device: str = "cpu", precision: str = "fp32"
    ) -> None:
        require(precision, SUPPORTED, "torch")
        self.spec, self.device, self.precision = spec, device, precision
        _exact_convolutions(precision)
        with _memory_errors(spec.name):
            self._module = module.eval().float().to(device)

    def __call__(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """Compute outputs by name. ValueError: an input does not fit, or it is closed. MemoryError."""
        import torch

        if self._module is None:
            raise ValueError(f"{self.spec.name}: this engine is closed; build another")
        self.spec.check(arrays)
        with _memory_errors(self.spec.name), torch.inference_mode(), self._precision():
            outputs = self._module(*(self._given(arrays[tensor.name]) for tensor in self.spec.inputs))
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            return {
                tensor.name: self._made(output.to(getattr(torch, tensor.dtype)))
                for tensor, output in zip(self.spec.outputs, outputs, strict=True)
            }

    def _given(self, array: Array) -> torch.Tensor:
        import torch

        if on_device(array):
            return torch.from_dlpack(array).contiguous()
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _made(self, output: torch.Tensor) -> Array:
        if self.place and output.is_floating_point():
            return self.place.from_dlpack(output.contiguous())
        return output.cpu().contiguous().numpy()

    def close(self) -> None:
        """Drop the module."""
        self._module = None

    def _precision(self):
        import torch

        compute = PRECISIONS[self.precision].compute
        if compute == "float32":
            return nullcontext()
        return torch.autocast(self.device.split(":")[0], getattr(torch, compute))


def _exact_convolutions(precision: str) -> None:
    """Keep fp32 convolutions in fp32: by default torch rounds them to ten bits (TF32) on a GPU."""
    import torch

    if precision == "fp32":
        torch.backends.cudnn.allow_tf32 = False
