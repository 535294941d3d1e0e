"""Ways to run a network on a GPU, by their text: features joined by "+", a colon, what it computes in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.gpu.filled import inputs_of
from bench.gpu.fp8 import to_fp8
from bench.gpu.subjects import Subject
from engines.spec import Engine, EngineError
from pipeline.script import say

ATTENTION = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
FEATURES = {
    "eager": "as it is, one kernel after another",
    "plain": "diffusers' own network, as an upstream pipeline runs it",
    "compile": "torch.compile, and replayed as CUDA graphs where it can",
    "graph": "the eager kernels, replayed as one CUDA graph",
    "channels_last": "convolutions with channels innermost",
    "fp8": "linear layers in 8-bit floats",
    "engine": "the torch engine that infer.py uses: arrays come from the host and go back",
    "onnxruntime": "exported in that precision, on ONNX Runtime; arrays come from the host and go back",
    **{name: f"the {name} kernel for attention" for name in ATTENTION},
}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
Call = Callable[[], object]


@dataclass(frozen=True)
class Way:
    """features: some of FEATURES; dtype: one of DTYPES. ValueError."""

    features: frozenset[str]
    dtype: str

    @classmethod
    def parse(cls, text: str) -> Way:
        """From its text, as compile+channels_last:fp16."""
        features, _, dtype = text.partition(":")
        way = cls(frozenset(features.split("+")), dtype)
        if not way.features <= FEATURES.keys() or dtype not in DTYPES:
            known = f"{', '.join(FEATURES)}, a colon and {', '.join(DTYPES)}"
            raise ValueError(f"no way {text!r}; it is made of {known}")
        return way

    @property
    def attention(self) -> AbstractContextManager:
        """That this kernel alone may be used for attention; what cannot be had is an error of torch's."""
        kernels = [kernel for name, kernel in ATTENTION.items() if name in self.features]
        return sdpa_kernel(kernels) if kernels else nullcontext()


@dataclass(frozen=True)
class Place:
    """Where networks are measured: a device, a folder for files, and whether it is a rehearsal."""

    device: str
    folder: Path
    tiny: bool


def prepare(subject: Subject, way: Way, place: Place) -> Call:
    """A call of the network that way, which gives the output on the device; torch's errors, EngineError."""
    if way.features & {"engine", "onnxruntime"}:
        return _engine_call(subject, way, place)
    device, dtype = place.device, DTYPES[way.dtype]
    if "plain" in way.features:
        module, named = subject.plain(device, dtype)
        inputs: Sequence[Tensor] = ()
    else:
        module, named, inputs = subject.build(device, dtype), {}, tensors_for(subject, device, dtype)
    if "channels_last" in way.features:
        channels_last(module)
    if "fp8" in way.features and not to_fp8(module):
        raise EngineError("no linear layer that 8-bit products can take: bf16, widths of multiples of 16")
    compiled = "compile" in way.features
    if compiled:
        module = torch.compile(module, dynamic=False, **compiler(place))

    def call() -> object:
        if compiled:
            torch.compiler.cudagraph_mark_step_begin()  # what the last call gave may be overwritten
        with torch.inference_mode(), way.attention:
            made = module(*inputs, **named)
        return first(made)

    return _captured(call) if "graph" in way.features else call


def tensors_for(subject: Subject, device: str, dtype: torch.dtype) -> list[Tensor]:
    """The subject's inputs, the same ones every time, as this network takes them."""
    torch.manual_seed(1)
    inputs = inputs_of(subject.spec, subject.sizes, device)
    cast = subject.same_dtype
    return [each.to(dtype) if cast and each.is_floating_point() else each for each in inputs]


def compiler(place: Place) -> dict[str, str]:
    """What torch.compile is told; in a rehearsal it traces and compiles nothing, which takes minutes."""
    return {"backend": "eager"} if place.tiny else {"mode": "reduce-overhead"}


def channels_last(module: nn.Module) -> None:
    """Kernels of convolutions with channels innermost; what they are applied to follows."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])


def first(made: object) -> object:
    """The first output, or the only one; diffusers puts it into a structure of its own."""
    if isinstance(made, Tensor):
        return made
    return made[0]


def _captured(call: Call) -> Call:
    """The call's kernels as a CUDA graph; three calls on a side stream before it, as torch asks for."""
    if not torch.cuda.is_available():
        raise EngineError("CUDA graphs need a GPU")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = call()

    def replay() -> object:
        graph.replay()
        return made

    return replay


def _engine_call(subject: Subject, way: Way, place: Place) -> Call:
    inputs = [each.cpu() for each in tensors_for(subject, place.device, torch.float32)]
    named = zip((tensor.name for tensor in subject.spec.inputs), inputs, strict=True)
    arrays = {name: tensor.numpy() for name, tensor in named}
    engine = (
        _onnxruntime(subject, way, place) if "onnxruntime" in way.features else _torch(subject, way, place)
    )
    output = subject.spec.outputs[0].name

    def call() -> object:
        return torch.from_numpy(engine(**arrays)[output])

    return call


def _torch(subject: Subject, way: Way, place: Place) -> Engine:
    from engines.torch_engine import TorchEngine

    module = subject.build(place.device, torch.float32)  # there, because its random numbers are others
    return TorchEngine(subject.spec, module, place.device, way.dtype)


def _onnxruntime(subject: Subject, way: Way, place: Place) -> Engine:
    """Its network, exported as a large one is: traced without weights, which follow one by one."""
    from engines.export import OPSET, Target
    from engines.onnxruntime_engine import OnnxRuntimeEngine, why_not
    from engines.streamed import export_streamed

    reason = why_not(place.device)
    if reason:
        raise EngineError(reason)
    target = Target(place.folder / "graphs" / subject.name, say)
    graph = export_streamed(_Alone(subject, place.device), subject.spec.name, way.dtype, target, OPSET)
    return OnnxRuntimeEngine(subject.spec, graph.path, place.device)


class _Alone:
    """A subject as what export asks for: a model of one component."""

    sources = ()

    def __init__(self, subject: Subject, device: str) -> None:
        self.name, self.components = subject.name, {subject.spec.name: subject.spec}
        self._subject, self._device = subject, device

    def build(self, component: str) -> nn.Module:
        """Its only one."""
        return self._subject.build(self._device, torch.float16).cpu()
