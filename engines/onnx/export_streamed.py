"""Export large networks to ONNX: they are traced without weights, which are then written one by one.

The peak of memory is that of the trace, some hundred MB, plus the largest weight: it does not grow with the
network if the module's weights are mapped files. Nothing is run or measured on the way.
"""

from __future__ import annotations

import copy
import gc
import mmap
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engines.artifact import Artifact, Label, fingerprint, writing
from engines.errors import EngineError
from engines.onnx.attention_form import rows_of_masks
from engines.onnx.export import (
    TOOLS,
    Change,
    Target,
    check_graph,
    compare,
    example_inputs,
    identity,
    kept,
    quiet,
    strip,
    traced,
)
from engines.onnx.module_dtypes import dtype_in, naming_buffers, tensors_of
from engines.onnx.parity import draw
from engines.onnx.weight import Weight
from engines.precision import PRECISIONS
from engines.spec import ComponentSpec, Model

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

Turn = Callable[["torch.nn.Parameter", "torch.Tensor"], "torch.nn.Parameter"]
SUPPORTED = ("fp32", "fp16", "bf16", "int8")
SMALL = 8192  # numbers; smaller weights may be folded into constants, as the exporter does
LARGE = 2 << 30  # bytes of a generator's files, above which its networks come here
# What a processor is asked for: bytes of weights in fp32, in which it holds every graph, and 1e12 operations.
MOST_BYTES, MOST_WORK = 8 << 30, 20.0
DRAWS = 4  # random calls that inputs of layers in 8 bits are measured on


def is_large(model: Model) -> bool:
    """Tell whether a model's files are too large to hold its graph in memory several times over."""
    return sum(path.stat().st_size for path in model.fingerprint_files if path.is_file()) > LARGE


def export_streamed(
    model: Model,
    component: str,
    precision: str,
    target: Target,
    opset: int,
    quantising: Change | None = None,
    rewriting: Change | None = None,
) -> Artifact:
    """Export the component's graph in fp32, fp16, bf16 or int8; one in the folder that fits is kept.

    Modules named in a class's _keep_in_fp32_modules stay in fp32. quantising, of fp16 to int8: apply(graph,
    its module, the inputs of DRAWS calls to measure on, none of which the result is held against) says what
    it did. rewriting: apply(network, turn) changes a network without weights in place and says what it did;
    turn(parameter, rows): with its rows in that order. Held against torch, as it was before rewriting, in
    fp32 at the smallest sizes of its spec, where a processor can do that, which excludes bf16. EngineError
    for another precision or a weight that fp16 cannot hold; ExportError, ParityError; OSError. All leave
    nothing behind.
    """
    from engines.backends.torch_backend import TorchEngine

    if precision not in SUPPORTED or (PRECISIONS[precision].layers and quantising is None):
        raise EngineError(f"{component} is of a large model; choose {', '.join(SUPPORTED)}, not {precision}")
    compute, layers = PRECISIONS[precision].compute, PRECISIONS[precision].layers
    spec, started = model.components[component], time.perf_counter()
    label = Label(component, precision, ".onnx")
    built_from = identity(model, component, precision, opset, TOOLS)
    built_from["recipe"] = {"streamed": compute}
    built_from["rewrites"] = fingerprint(rewriting.fingerprint_files) if rewriting else None
    if layers:
        built_from["recipe"][layers] = fingerprint(quantising.fingerprint_files)
    present = None if target.force else kept(target, label, built_from)
    if present:
        return present
    module = model.build(component).eval()
    if layers:  # known without the minutes of a trace
        _check_calibrated(component, _too_much(module))
    least = {name: limits.min for name, limits in spec.ranges.items()}
    with naming_buffers(module, compute):
        graph, work, changes = trace_bare(spec, module, compute, opset, rewriting)
    for change in changes:
        target.say(f"{label}: rewritten: {change}")
    too_much = _too_much(module, work)
    target.say(f"{label}: traced in {time.perf_counter() - started:.0f} s, {work:.3g} TFLOP a call")
    if layers:
        _check_calibrated(component, too_much)
        measured = (draw(spec, least, seed) for seed in range(1, 1 + DRAWS))
        target.say(f"{label}: {quantising.apply(graph, module, measured)}")
    if compute == "bfloat16":
        too_much = "ONNX Runtime has no kernels for bfloat16 on a processor; export it in fp32 once"
    with writing(target.folder, label, built_from) as draft:
        save(graph, draft.path)
        seconds = time.perf_counter() - started
        with naming_buffers(module, compute):
            check_graph(spec, draft.path)
        parity = None
        if not too_much:
            reference = TorchEngine(spec, copy.deepcopy(module))
            with rows_of_masks(draft.path) as compared:
                parity = compare(spec, reference, compared, [draw(spec, least, seed=0)])
        against = f"nothing: {too_much}" if too_much else "torch in fp32, random inputs at the smallest sizes"
        draft.facts.update(
            parity=parity.require(precision) if parity else None,
            against=against,
            rewrites=changes,
            nodes=len(graph.graph),
            tflop=round(work, 4),
            seconds=round(seconds, 1),
        )
    target.say(f"{label}: {parity or f'compared with {against}'} ({seconds:.1f} s)")
    return draft.artifact


def trace_bare(
    spec: ComponentSpec,
    module: torch.nn.Module,
    dtype: str,
    opset: int,
    rewriting: Change | None = None,
) -> tuple[ir.Model, float, list[str]]:
    """Trace a module in a dtype; give its graph, a call's TFLOP at its smallest, and what was rewritten.

    Large weights are read when the graph is saved.
    """
    import torch

    twin, held = bare_twin(module, getattr(torch, dtype))

    def turn(parameter: torch.nn.Parameter, rows: torch.Tensor) -> torch.nn.Parameter:
        weight = held.get(parameter.data_ptr())
        if weight is None:
            return torch.nn.Parameter(parameter.detach()[rows], requires_grad=False)
        held[parameter.data_ptr()] = replace(weight, rows=rows)
        return parameter

    changes = rewriting.apply(twin, turn) if rewriting else []
    program = traced(spec, twin, example_inputs(spec), opset, optimize=False)
    weights = {}
    for name, value in program.model.graph.initializers.items():
        raw = value.const_value.raw  # whatever the exporter calls it: a tied weight has several names
        if isinstance(raw, torch.Tensor) and raw.data_ptr() in held:
            weights[name] = held[raw.data_ptr()]
            value.const_value = None  # so that nothing computes with what the twin holds: noise
    with quiet():
        program.optimize()
    graph = program.model
    del program
    gc.collect()  # torch's own graphs are circles
    strip(graph)
    attach(graph, weights)
    return graph, _work(spec, twin), changes


def bare_twin(module: torch.nn.Module, dtype: torch.dtype) -> tuple[torch.nn.Module, dict[int, Weight]]:
    """Copy a module in dtype with noise for its large weights; give what belongs there, by address.

    The exporter demands memory of a processor; untouched, it costs none. It is mapped, as an allocator
    would write beside it, and a page may be 2 MiB.
    """
    import torch

    memo, weights = {}, {}
    halves = torch.float16, torch.bfloat16  # of a buffer: it was made of weights as they are stored
    for name, tensor, parameter in tensors_of(module):
        computed = parameter or tensor.dtype in halves
        to = dtype_in(module, name, tensor, dtype) if computed else tensor.dtype
        if tensor.numel() <= SMALL:
            new = tensor.detach().to(to, copy=True)
        else:
            untouched = mmap.mmap(-1, tensor.numel() * to.itemsize)
            new = torch.frombuffer(untouched, dtype=to).view(tensor.shape)
            weights[new.data_ptr()] = Weight(tensor.detach(), to, tuple(range(tensor.ndim)))
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


def _work(spec: ComponentSpec, twin: torch.nn.Module) -> float:
    """Count the TFLOP of a call at the smallest sizes; nothing is computed."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    sizes = {name: limits.min for name, limits in spec.ranges.items()}
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, FlopCounterMode(display=False) as counter:
        inputs = draw(spec, sizes, seed=0).values()
        twin(*(fake.from_tensor(torch.from_numpy(array)) for array in inputs))
    return counter.get_total_flops() / 1e12


def _check_calibrated(component: str, too_much: str) -> None:
    """Raise EngineError if a processor shall not run a component, which calibrating it takes."""
    if too_much:
        raise EngineError(f"{component} cannot be calibrated on a processor: {too_much}")


def _too_much(module: torch.nn.Module, work: float = 0.0) -> str:
    """Say why a processor shall not run a module, whose calls take so many TFLOP; empty if it may."""
    size = 4 * sum(tensor.numel() for _, tensor, _ in tensors_of(module))
    if size > MOST_BYTES:
        return f"its weights are {size / 1e9:.0f} GB in fp32; try a shallower one"
    if work > MOST_WORK:
        return f"a call is {work:.0f} TFLOP; try smaller sizes"
    return ""
