"""Variants of running a network on a GPU, named by text: features joined by "+", a colon, the precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from engines.attention import CUDNN, open_attention
from engines.backends.torch_backend import TorchEngine, compiled
from engines.device_arrays import contiguous
from engines.errors import EngineError
from lab.gpu.networks import Model

FEATURES = {
    "eager": "as it is, one kernel after another, weights in that precision",
    "compile": "torch.compile as infer.py's backend torch-compile has it",
    "graph": "the eager kernels, replayed as one CUDA graph",
    "channels_last": "convolutions with channels innermost",
    "engine": "the torch engine that infer.py uses: weights in fp32, arrays come from the host and go back",
    "cudnn": 'attention as infer.py computes it by attention = "cudnn": by cuDNN where it can',
}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
Call = Callable[[], Tensor]


def parse(text: str) -> tuple[frozenset[str], str]:
    """Return features and precision of a variant's text, as compile+channels_last:fp16. ValueError."""
    features, _, precision = text.partition(":")
    found = frozenset(features.split("+"))
    if not found <= FEATURES.keys() or precision not in DTYPES:
        known = f"{', '.join(FEATURES)}, a colon and {', '.join(DTYPES)}"
        raise ValueError(f"no variant {text!r}; it is made of {known}")
    return found, precision


def prepare(model: Model, text: str, inputs: Sequence[Tensor], device: str) -> Call:
    """Return a call of the network in that variant, for its first output; torch's errors, EngineError.

    The next call may write over that output, where calls are CUDA graphs.
    """
    features, precision = parse(text)
    if "engine" in features:
        return _engine_call(model, precision, inputs, device)
    module = model.build(device, DTYPES[precision])
    inputs = as_taken(model, inputs, DTYPES[precision])
    if "channels_last" in features:
        channels_last(module)
    if "compile" in features:
        # On a processor it only traces: compiling C++ takes minutes.
        backend = "eager" if device == "cpu" else "inductor"
        # As the backend, to CUDA graphs; within the variant's own graph there can be no other.
        graphs = device.startswith("cuda") and "graph" not in features
        mode = "reduce-overhead" if graphs else None
        module = compiled(module, backend=backend, mode=mode)
    attention = open_attention(CUDNN) if "cudnn" in features else nullcontext

    def call() -> Tensor:
        with torch.inference_mode(), attention():
            made = module(*inputs)
        return made if isinstance(made, Tensor) else made[0]

    return captured(call) if "graph" in features else call


def as_taken(model: Model, inputs: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Cast the inputs that the model takes in its own dtype to that."""
    cast = model.same_dtype
    return [each.to(dtype) if cast and each.is_floating_point() else each for each in inputs]


def channels_last(module: nn.Module) -> None:
    """Store kernels of convolutions with channels innermost; the layouts of activations follow them."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])


def captured(call: Call) -> Call:
    """Capture the call's kernels as a CUDA graph, after three calls on a side stream, as torch asks for."""
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

    def replay() -> Tensor:
        graph.replay()
        return made

    return replay


class GraphEngine:
    """An engine of a model's network in fp16 as one CUDA graph, for what a generator gives and takes."""

    path = None

    def __init__(self, model: Model, device: str) -> None:
        self.spec = model.spec
        shapes = [[model.sizes.get(dim, dim) for dim in tensor.dims] for tensor in self.spec.inputs]
        self._inputs = [torch.zeros(shape, device=device, dtype=torch.float16) for shape in shapes]
        self._call = prepare(model, "graph:fp16", self._inputs, device)

    def __call__(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """Return the first output by its name."""
        for own, tensor in zip(self._inputs, self.spec.inputs, strict=True):
            own.copy_(torch.from_numpy(contiguous(arrays[tensor.name])))
        return {self.spec.outputs[0].name: self._call().float().cpu().numpy()}

    def close(self) -> None:
        """Drop the graph."""
        self._call = None


def _engine_call(model: Model, precision: str, inputs: Sequence[Tensor], device: str) -> Call:
    names = (tensor.name for tensor in model.spec.inputs)
    arrays = {name: tensor.cpu().numpy() for name, tensor in zip(names, inputs, strict=True)}
    engine = TorchEngine(model.spec, model.build(device, torch.float32), device, precision)
    output = model.spec.outputs[0].name
    return lambda: torch.from_numpy(engine(**arrays)[output])
