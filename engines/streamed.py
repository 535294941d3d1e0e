"""Large networks as ONNX graphs: traced without their weights, which are then written one by one.

The peak of memory is that of the trace, some hundred MB, plus the largest weight: it does not grow with the
network if the module's weights are mapped files. Nothing is rewritten or measured on the way.
"""

from __future__ import annotations

import copy
import ctypes
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from engines.artifact import Artifact, Label, writing
from engines.export import (
    EXTERNAL_ABOVE,
    TOOLS,
    Target,
    check_graph,
    example_inputs,
    identity,
    kept,
    quiet,
    strip,
    traced,
)
from engines.parity import Parity, draw
from engines.spec import ComponentSpec, EngineError, Model

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
SMALL = 8192  # numbers; smaller weights may be folded into constants, as the exporter does
COMPARED = 8 << 30  # bytes in fp32, which is what a processor holds of any graph while it runs it
_PAGEOUT = 21  # madvise: give the pages back; what changed is kept, unlike with DONTNEED


@dataclass(frozen=True)
class Weight:
    """What an initializer will hold: a tensor in another dtype, its dims in another order."""

    tensor: torch.Tensor
    dtype: torch.dtype
    order: tuple[int, ...]

    @property
    def shape(self) -> list[int]:
        """The dims as the initializer has them."""
        return [self.tensor.shape[axis] for axis in self.order]

    def read(self) -> torch.Tensor:
        """A copy of the numbers; the pages of the file they came from are given back."""
        import torch

        copied = self.tensor.to(self.dtype, copy=True).permute(self.order).contiguous()
        _forget_pages(self.tensor)
        if self.dtype == torch.float16 and not bool(torch.isfinite(copied).all()):
            raise EngineError("a weight is too large for fp16, or not finite; export in bf16 or fp32")
        return copied


def is_large(module: torch.nn.Module) -> bool:
    """Whether a module's weights take more than a graph holds in one file, in half precision."""
    return 2 * sum(parameter.numel() for parameter in module.parameters()) > EXTERNAL_ABOVE


def export_streamed(
    model: Model, component: str, precision: str, target: Target, opset: int
) -> Artifact:
    """The component's graph in fp32, fp16 or bf16 as torch computes it in that dtype; one that fits is kept.

    Modules named in a class's _keep_in_fp32_modules stay in fp32. Held against torch in fp32 at the smallest
    sizes of its spec, unless its weights are above COMPARED. EngineError for another precision or a weight
    that fp16 cannot hold; ExportError, ParityError; OSError. All leave nothing behind.
    """
    if precision not in DTYPES:
        reason = f"{component} is too large to be calibrated for {precision}"
        raise EngineError(f"{reason}; choose {', '.join(DTYPES)}")
    spec, started = model.components[component], time.perf_counter()
    label = Label(component, precision, ".onnx")
    built_from = identity(model, component, precision, opset, TOOLS)
    built_from["recipe"] = {"streamed": DTYPES[precision]}
    present = None if target.force else kept(target, label, built_from)
    if present:
        return present
    module = model.build(component).eval()
    graph = trace_bare(spec, module, DTYPES[precision], opset)
    target.say(f"{label}: traced in {time.perf_counter() - started:.0f} s, writing weights")
    with writing(target.folder, label, built_from) as draft:
        save(graph, draft.path)
        seconds = time.perf_counter() - started
        check_graph(spec, draft.path)
        parity, against = _compare(spec, module, draft.path)
        draft.facts.update(
            parity=parity.require(precision) if parity else None,
            against=against,
            seconds=round(seconds, 1),
            bytes=sum(path.stat().st_size for path in draft.path.parent.iterdir()),
        )
    target.say(f"{label}: {parity or against} ({seconds:.1f} s)")
    return draft.artifact


def trace_bare(spec: ComponentSpec, module: torch.nn.Module, dtype: str, opset: int) -> ir.Model:
    """The graph of a module as it computes in a dtype; its large weights are read when they are written."""
    import torch

    twin, weights = bare_twin(module, getattr(torch, dtype))
    program = traced(spec, twin, example_inputs(spec), opset, optimize=False)
    initializers = program.model.graph.initializers
    weights = {name: weight for name, weight in weights.items() if name in initializers}
    for name in weights:
        initializers[name].const_value = None  # so that nothing computes with what the twin holds: noise
    with quiet():
        program.optimize()
    strip(program.model)
    attach(program.model, weights)
    return program.model


def bare_twin(module: torch.nn.Module, dtype: torch.dtype) -> tuple[torch.nn.Module, dict[str, Weight]]:
    """A copy that computes in dtype and whose large weights hold noise, and what they should hold by name.

    Untouched memory costs nothing; a processor is said to hold it, as the exporter demands.
    """
    import torch

    memo, weights = {}, {}
    for name, tensor, parameter in _tensors(module):
        to = _dtype_in(module, name, tensor, dtype) if parameter else tensor.dtype
        if tensor.numel() <= SMALL:
            new = tensor.detach().to(to, copy=True)
        else:
            new = torch.empty(tensor.shape, dtype=to)
            weights[name] = Weight(tensor.detach(), to, tuple(range(tensor.ndim)))
        memo[id(tensor)] = torch.nn.Parameter(new, requires_grad=False) if parameter else new
    return copy.deepcopy(module, memo), weights


def attach(model: ir.Model, weights: Mapping[str, Weight]) -> None:
    """Give initializers their weights, and those that are only transposed the order of that."""
    import onnx_ir as ir

    graph = model.graph
    for name, weight in weights.items():
        value = graph.initializers.get(name)
        if value is None:  # nothing uses it
            continue
        for node in [use.node for use in value.uses() if use.node.op_type == "Transpose"]:
            order = node.attributes["perm"].as_ints()
            turned = replace(weight, order=tuple(weight.order[axis] for axis in order))
            new = _initializer(f"{name}/transposed_{'_'.join(map(str, order))}", turned)
            if new.name not in graph.initializers:
                graph.register_initializer(new)
            ir.convenience.replace_all_uses_with(node.outputs[0], graph.initializers[new.name])
            graph.remove(node, safe=True)
        if value.uses():
            value.const_value = _initializer(name, weight).const_value
        else:
            del graph.initializers[name]


def save(model: ir.Model, path: Path) -> None:
    """Write a graph, and its weights beside it one after the other."""
    import onnx_ir as ir

    ir.save(model, path, external_data=f"{path.name}.data", size_threshold_bytes=SMALL)


def _initializer(name: str, weight: Weight) -> ir.Value:
    import onnx_ir as ir
    from onnx_ir import tensor_adapters

    kind, shape = tensor_adapters.from_torch_dtype(weight.dtype), ir.Shape(weight.shape)
    lazy = ir.LazyTensor(
        lambda: tensor_adapters.TorchTensor(weight.read(), name=name), dtype=kind, shape=shape, name=name
    )
    return ir.Value(name=name, shape=shape, type=ir.TensorType(kind), const_value=lazy)


def _tensors(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor, bool]]:
    """Name, tensor, and whether it is a parameter; buffers outside the state are among them."""
    yield from ((name, parameter, True) for name, parameter in module.named_parameters())
    yield from ((name, buffer, False) for name, buffer in module.named_buffers())


def _dtype_in(
    module: torch.nn.Module, name: str, tensor: torch.Tensor, dtype: torch.dtype
) -> torch.dtype:
    """The dtype asked for; float32 where a class around the parameter says so; its own if it is no float."""
    import torch

    parts = name.split(".")
    for depth in range(len(parts)):
        around = module.get_submodule(".".join(parts[:depth]))
        if not set(getattr(around, "_keep_in_fp32_modules", None) or ()).isdisjoint(parts[depth:]):
            return torch.float32
    return dtype if tensor.is_floating_point() else tensor.dtype


def _compare(spec: ComponentSpec, module: torch.nn.Module, path: Path) -> tuple[Parity | None, str]:
    from engines.onnxruntime_engine import OnnxRuntimeEngine
    from engines.torch_engine import TorchEngine

    if 4 * sum(parameter.numel() for parameter in module.parameters()) > COMPARED:
        return None, f"nothing: in fp32 its weights are above {COMPARED >> 30} GiB; compare a shallower one"
    sizes = {name: limits.least for name, limits in spec.ranges.items()}
    inputs = draw(spec, sizes, seed=1)
    reference = TorchEngine(spec, copy.deepcopy(module).float())
    expected = reference(**inputs)
    reference.close()
    parity = Parity(spec)
    parity.add(expected, OnnxRuntimeEngine(spec, path)(**inputs))
    return parity, "torch in fp32, random inputs at the smallest sizes"


def _forget_pages(tensor: torch.Tensor) -> None:
    """Give the memory of a mapped file back at once, where the system can; the kernel would do it later."""
    try:
        advise = ctypes.CDLL(None).madvise
    except (AttributeError, OSError, TypeError):
        return
    page = 4096
    start = -(-tensor.data_ptr() // page) * page
    length = (tensor.data_ptr() + tensor.numel() * tensor.element_size() - start) // page * page
    if length > 0:
        advise(ctypes.c_void_p(start), ctypes.c_size_t(length), _PAGEOUT)
