"""The reference backend: a component as its torch module, eager, on one device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from engines.spec import ComponentSpec, EngineError

if TYPE_CHECKING:
    import torch


class TorchEngine:
    """Runs a torch module whose positional inputs and outputs follow the spec's order."""

    def __init__(self, spec: ComponentSpec, module: torch.nn.Module, device: str = "cpu") -> None:
        self.spec, self.device = spec, device
        self._module = module.eval().to(device)

    def __call__(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs by name. ValueError: an input does not fit, or the engine is closed. MemoryError."""
        import torch

        if self._module is None:
            raise ValueError(f"{self.spec.name}: this engine is closed; build another")
        self.spec.check(arrays)
        with torch.inference_mode():
            inputs = [
                torch.from_numpy(np.ascontiguousarray(arrays[tensor.name])).to(self.device)
                for tensor in self.spec.inputs
            ]
            try:
                outputs = self._module(*inputs)
            except torch.OutOfMemoryError as error:
                raise MemoryError(f"{self.spec.name}: {str(error).splitlines()[0]}") from error
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return {
            tensor.name: output.cpu().contiguous().numpy()
            for tensor, output in zip(self.spec.outputs, outputs, strict=True)
        }

    def close(self) -> None:
        """Drop the module."""
        self._module = None


def start_engines(
    components: Mapping[str, ComponentSpec], build: Callable[[str], torch.nn.Module], device: str
) -> dict[str, TorchEngine]:
    """An engine per component, build(name) giving its module; EngineError if the device cannot be used."""
    check_device(device)
    return {name: TorchEngine(spec, build(name), device) for name, spec in components.items()}


def check_device(device: str) -> None:
    """EngineError unless torch is installed and can compute on that device."""
    try:
        import torch
    except ImportError as error:
        raise EngineError("the torch engine needs torch; run: pip install -r requirements.txt") from error
    try:
        torch.zeros(1, device=device).cpu()  # the way back fails on "meta", which has no numbers
    except (RuntimeError, AssertionError, ImportError) as error:
        raise EngineError(f"torch cannot use --device {device}: {str(error).splitlines()[0]}") from error
