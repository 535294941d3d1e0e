"""The reference backend: a component as its torch module, eager or compiled, on one device."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.attention import Opened
from engines.attention import open_attention as open_attention  # which load.py asks a backend for
from engines.device_arrays import Array, Place, contiguous, on_device
from engines.precision import PRECISIONS, require, supported
from engines.spare_memory import with_release
from engines.spec import ComponentSpec, Model
from engines.start_times import timed, timing_first_calls

if TYPE_CHECKING:
    import torch

# What plain RuntimeErrors say when memory ran out: the processor's allocator, CUDA itself, cuBLAS and cuDNN.
NO_MEMORY = ("DefaultCPUAllocator", "CUDA error: out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED")
PINNED = 64 << 20  # bytes of an input that goes through pinned memory, which torch keeps
SHAPES = 64  # that a compiled module is compiled for; torch runs others eagerly, without a word
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
        return TorchEngine(model.components[component], _built(model, component), device, precision)


def start_compiled(model: Model, component: str, precision: str, device: str, folder: Path) -> TorchEngine:
    """Start it through torch.compile, which compiles at the first call of each shape."""
    with _memory_errors(component):
        engine = TorchEngine(model.components[component], _built(model, component), device, precision)
        engine.compile()
        return engine


def _built(model: Model, component: str) -> torch.nn.Module:
    with timed("read"):
        return model.build(component)


@contextmanager
def _memory_errors(component: str) -> Iterator[None]:
    """Turn torch's ways to say that memory ran out into MemoryError."""
    import torch

    try:
        yield
    except RuntimeError as error:
        text = str(error).splitlines()[0] if str(error) else ""
        if not isinstance(error, torch.OutOfMemoryError) and not any(each in text for each in NO_MEMORY):
            raise
        raise MemoryError(f"{component}: {text}") from error


class TorchEngine:
    """An engine that runs a torch module with inputs and outputs in the spec's order.

    precision: one of SUPPORTED, else EngineError; in half ones autocast says what is computed in them.
    attention: makes its calls compute that in another way, see open_attention.
    """

    path = None  # nothing is built
    capturable = True  # whether its calls can be part of a CUDA graph of others
    place: Place | None = None
    attention: Opened = staticmethod(nullcontext)

    def __init__(
        self, spec: ComponentSpec, module: torch.nn.Module, device: str = "cpu", precision: str = "fp32"
    ) -> None:
        import torch

        require(precision, SUPPORTED, "torch")
        self.spec, self.device, self.precision = spec, device, precision
        compute = PRECISIONS[precision].compute
        self._half = None if compute == "float32" else getattr(torch, compute)
        _exact_convolutions(precision)
        with _memory_errors(spec.name):
            self._module, self._first = module.eval(), ExitStack()
            self._is_reused = False  # whether the next call overwrites the memory of outputs
            self._store_weights()
            self._module.to(device)
            if device.startswith("cuda") and self._half:
                _as_cudnn_likes(self._module)
            if device.startswith("cuda"):  # weights are written on this stream, and read on another
                torch.cuda.synchronize(device)

    @timing_first_calls
    def __call__(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """Compute outputs by name. ValueError: an input does not fit, or it is closed. MemoryError."""
        if self._module is None:
            raise ValueError(f"{self.spec.name}: this engine is closed; build another")
        self.spec.check(arrays)
        alone = not self.device.startswith("cuda") or (self.place and self.place.capturing)
        return self._computed(arrays) if alone else with_release(lambda: self._computed(arrays))

    def _computed(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        import torch

        with _memory_errors(self.spec.name), torch.inference_mode(), self._precision(), self.attention():
            outputs = self._module(*(self._given(arrays[tensor.name]) for tensor in self.spec.inputs))
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            self._first.close()
            return {
                tensor.name: self._made(output.to(getattr(torch, tensor.dtype)))
                for tensor, output in zip(self.spec.outputs, outputs, strict=True)
            }

    def compile(self) -> None:
        """Have torch compile it for each shape, on a GPU to CUDA graphs; the first call of all runs eagerly.

        That call shows which layers must stay in fp32.
        """
        import torch

        torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, SHAPES)
        on_gpu = self.device.startswith("cuda")
        self.capturable = not on_gpu  # to graphs of its own

        def begin() -> None:
            mode = "reduce-overhead" if on_gpu else None
            self._module, self._is_reused = compiled(self._module, mode=mode), on_gpu

        self._first.callback(begin)

    def _store_weights(self) -> None:
        """Store weights in fp32, but those that autocast would cast at every call in the dtype it casts to.

        So they take half the memory and no time, and give the same numbers. A layer that turns out to run
        where the module has autocast switched off goes back to fp32, at the first call.
        """
        import torch

        forwards = _cast_forwards() if self._half else ()
        for layer in self._module.modules():
            cast = type(layer).forward in forwards
            for parameter in layer.parameters(recurse=False):
                if parameter.is_floating_point():
                    parameter.data = parameter.data.to(self._half if cast else torch.float32)
            for name, buffer in layer.named_buffers(recurse=False):
                if buffer.is_floating_point():
                    setattr(layer, name, buffer.float())
            if cast:
                self._first.callback(layer.register_forward_pre_hook(_back_to_fp32).remove)

    def _given(self, array: Array) -> torch.Tensor:
        import torch

        if on_device(array):
            return torch.from_dlpack(array).contiguous()
        given = torch.from_numpy(contiguous(array))
        if self.device.startswith("cuda") and given.nbytes <= PINNED:
            # A copy of ordinary memory would wait for all that is queued.
            return given.pin_memory().to(self.device, non_blocking=True)
        return given.to(self.device)

    def _made(self, output: torch.Tensor) -> Array:
        if self.place and output.is_floating_point():
            output = output.clone() if self._is_reused else output
            return self.place.from_dlpack(output.contiguous())
        return output.cpu().contiguous().numpy()

    def close(self) -> None:
        """Drop the module."""
        self._module = None

    def _precision(self):
        import torch

        return torch.autocast(self.device.split(":")[0], self._half) if self._half else nullcontext()


def compiled(module: torch.nn.Module, **options: object) -> Callable:
    """Return what torch compiles it to, for each shape, with these options of torch.compile.

    Its code is its own where torch can keep it so (2.13 can, 2.11 not): else networks of one class share code
    and SHAPES, so that a second one computes attention in the first one's way.
    """
    import torch

    if "isolate_recompiles" in inspect.signature(torch.compile).parameters:
        options["isolate_recompiles"] = True
    return torch.compile(module, dynamic=False, **options)


def _cast_forwards() -> set[object]:
    """Return what computes layers whose weights autocast casts; a class that has its own is not known."""
    from torch import nn

    convolutions = (getattr(nn, f"Conv{kind}{n}d") for kind in ("", "Transpose") for n in (1, 2, 3))
    return {kind.forward for kind in (nn.Linear, *convolutions)}


def _back_to_fp32(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    import torch

    if not torch.is_autocast_enabled(inputs[0].device.type):
        layer.float()


def _as_cudnn_likes(module: torch.nn.Module) -> None:
    """Store weights of convolutions of pictures with channels last, the order of its kernels in half."""
    import torch

    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.to(memory_format=torch.channels_last)


def _exact_convolutions(precision: str) -> None:
    """Keep fp32 convolutions in fp32: by default torch rounds them to ten bits (TF32) on a GPU."""
    import torch

    if precision == "fp32":
        torch.backends.cudnn.allow_tf32 = False
