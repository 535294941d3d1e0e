"""Export a component's torch module to an ONNX graph, and check that it computes the same."""

from __future__ import annotations

import copy
import inspect
import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from engines.artifact import Artifact, Field, Label, find, fingerprint, fingerprint_of, writing
from engines.errors import BROKEN, EngineError, describe_error
from engines.onnx.attention_form import DECOMPOSED
from engines.onnx.parity import Parity, ParityError, draw, extreme_sizes
from engines.onnx.translations import reason, translations
from engines.spec import ComponentSpec, Engine, Model, TensorSpec, merged

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnx_ir
    import torch

OPSET = DECOMPOSED
EXTERNAL_ABOVE = 1 << 30  # bytes of weights; one protobuf file holds 2 GiB at most
TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime")
NETWORKS = ("diffusers",)  # where a generator's layers may come from; not everyone's do


class ExportError(EngineError):
    """A component that cannot be written as ONNX; the text has the exporter's own reason."""


@dataclass(frozen=True)
class Target:
    """The folder for artifacts and a function for messages; force: build again what is there already."""

    folder: Path
    say: Callable[[str], None]
    force: bool = False


@dataclass(frozen=True)
class Change:
    """A change to a network, as export_onnx and export_streamed take it, and the files that decide it."""

    apply: Callable
    fingerprint_files: tuple[Path, ...]


def export_onnx(
    model: Model, component: str, target: Target, opset: int = OPSET, rewriting: Change | None = None
) -> Artifact:
    """Export the component's fp32 graph, checked against torch; one in the folder that still fits is kept.

    It is held against torch on random inputs at the smallest and the largest sizes of its spec: mistakes of
    the exporter with symbolic sizes show only at a batch of two. Torch computes the module as it was before
    rewriting, so this proves the rewrites too. rewriting: apply(module, example inputs) gives another module
    that computes the same, and a sentence on each change, or the same one and none; it changes nothing in
    place. ExportError, ParityError; EngineError if a package is missing; OSError if the disk is full. All
    leave nothing behind.
    """
    from engines.backends.torch_backend import TorchEngine

    spec, started = model.components[component], time.perf_counter()
    built_from = identity(model, component, "fp32", opset, TOOLS)
    built_from["rewrites"] = fingerprint(rewriting.fingerprint_files) if rewriting else None
    label = Label(component, "fp32", ".onnx")
    present = None if target.force else kept(target, label, built_from)
    if present:
        return present
    module = model.build(component).eval().float()  # weights may be stored in half precision
    inputs = example_inputs(spec)
    rewritten, changes = rewriting.apply(module, inputs) if rewriting else (module, [])
    for change in changes:
        target.say(f"{label}: rewritten: {change}")
    with writing(target.folder, label, built_from) as draft:
        save_graph(_trace(spec, rewritten, inputs, opset), draft.path)
        seconds = time.perf_counter() - started
        check_graph(spec, draft.path)
        calls = (draw(spec, sizes, seed) for seed, sizes in enumerate(extreme_sizes(spec), start=1))
        parity = compare(spec, TorchEngine(spec, module), draft.path, calls)
        draft.facts.update(
            parity=parity.require("fp32"),
            against="torch, random inputs at the smallest and largest sizes",
            rewrites=changes,
            seconds=round(seconds, 1),
        )
    target.say(f"{label}: {parity} ({seconds:.1f} s)")
    return draft.artifact


def identity(
    model: Model, component: str, precision: str, opset: int, tools: tuple[str, ...]
) -> dict[str, Field]:
    """Describe what an ONNX artifact is built from; EngineError if a tool is not installed."""
    return {
        "generator": model.name,
        "component": component,
        "precision": precision,
        "opset": opset,
        "spec": model.components[component].described(),
        "weights": fingerprint_of(model, component),
        "loras": merged(model, component),
        "recipe": {},
        "toolchain": toolchain(tools),
    }


def toolchain(tools: tuple[str, ...]) -> dict[str, str]:
    """Read the versions of the tools and of networks' libraries; EngineError names a missing tool."""
    versions = {}
    for name in (*tools, *NETWORKS):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError as error:
            if name in tools:
                raise EngineError(f"{name} is not installed; run: pip install -r requirements.txt") from error
    return versions


def kept(target: Target, label: Label, expected: dict[str, Field]) -> Artifact | None:
    """Find an intact artifact in the folder that was built from the same; None: build it."""
    try:
        artifact = find(target.folder, label, expected, "")
    except EngineError:
        return None
    target.say(f"{label}: kept {artifact.path.name}, built from the same before")
    return artifact


def check_graph(spec: ComponentSpec, path: Path) -> None:
    """Raise ExportError unless ONNX's checker, with shape inference, accepts the file."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{spec.name}: the ONNX checker refuses the graph: {error}") from error


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph in one file, or with its weights beside it where they would not fit."""
    import onnx

    if sum(len(weight.raw_data) for weight in model.graph.initializer) <= EXTERNAL_ABOVE:
        onnx.save_model(model, path)
        return
    copied = copy.deepcopy(model)  # writing takes the weights out
    onnx.save_model(copied, path, save_as_external_data=True, location=f"{path.name}.data")


def _trace(
    spec: ComponentSpec, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], opset: int
) -> onnx.ModelProto:
    program = traced(spec, module, inputs, opset)
    strip(program.model)
    return program.model_proto


def traced(
    spec: ComponentSpec,
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    opset: int,
    optimize: bool = True,
) -> torch.onnx.ONNXProgram:
    """Run torch's exporter on a module. ExportError repeats its reason."""
    import torch

    dims = {
        name: torch.export.Dim(name, min=limits.min, max=limits.max)
        for name, limits in spec.ranges.items()
        if limits.min < limits.max
    }
    try:
        with quiet():
            program = torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                opset_version=opset,
                input_names=[tensor.name for tensor in spec.inputs],
                output_names=[tensor.name for tensor in spec.outputs],
                # None, not a tuple of nothing: that would not fit a module that takes any number of inputs.
                dynamic_shapes=_shapes_for(module, [_dynamic(each, dims) for each in spec.inputs])
                if dims
                else None,
                custom_translation_table=translations(),
                optimize=optimize,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(f"{spec.name}: torch cannot export it at opset {opset}: {reason(error)}") from error
    if program.model.opset_imports[""] != opset:  # it falls back without a word
        raise ExportError(f"{spec.name}: this torch has no opset {opset}; the default is {OPSET}")
    return program


def example_inputs(spec: ComponentSpec) -> tuple[torch.Tensor, ...]:
    """Make inputs to trace with; free sizes are at least 2, as the exporter takes a 1 for a constant."""
    import torch

    sizes = {name: max(limits.opt, min(2, limits.max)) for name, limits in spec.ranges.items()}
    return tuple(torch.from_numpy(array) for array in draw(spec, sizes, seed=0).values())


def _shapes_for(module: torch.nn.Module, shapes: list[dict]) -> tuple:
    """Put the shapes of inputs in the form of forward's arguments: those that *args takes are one."""
    kinds = [each.kind for each in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return tuple(shapes)
    named = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*shapes[:named], *([tuple(shapes[named:])] if shapes[named:] else []))


def _dynamic(tensor: TensorSpec, dims: dict[str, torch.export.Dim]) -> dict[int, torch.export.Dim]:
    return {axis: dims[dim] for axis, dim in enumerate(tensor.dims) if dim in dims}


def strip(model: onnx_ir.Model) -> None:
    """Name nodes after the module they come from, then take out stack traces, paths and other notes."""
    graph, used = model.graph, {}
    for node in graph:
        name = _module_path(node)
        used[name] = used.get(name, -1) + 1
        node.name = f"{name}_{used[name]}" if used[name] else name
        _forget(node)
        for value in node.outputs:
            _forget(value)
    for noted in (model, graph, *graph.inputs, *graph.initializers.values(), *model.functions.values()):
        _forget(noted)


def _module_path(node: onnx_ir.Node) -> str:
    """Name a node as transformer.blocks.0.ffn/MatMul; the optimiser's nodes belong to no module."""
    scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes", "")
    names = [name.strip("'") for name in scopes.strip("[]").split(", ")][:-1]  # the last is the operation
    inside = names[-1] if names and not names[-1].startswith("_") else ""
    return f"{inside}/{node.op_type}" if inside else node.op_type


def _forget(noted: object) -> None:
    noted.metadata_props.clear()
    noted.doc_string = None


def compare(
    spec: ComponentSpec, reference: Engine, path: Path, calls: Iterable[Mapping[str, np.ndarray]]
) -> Parity:
    """Run calls through a reference, which is closed then, and a graph; give what they differ by."""
    from engines.backends.onnxruntime_backend import OnnxRuntimeEngine

    calls = list(calls)
    try:
        expected = [reference(**inputs) for inputs in calls]
    except BROKEN as error:
        how = "tracing takes apart a dict that modules share: share a types.SimpleNamespace"
        raise ExportError(f"{spec.name}: it no longer runs: {describe_error(error)}; {how}") from error
    finally:
        reference.close()
    parity = Parity(spec)
    try:
        engine = OnnxRuntimeEngine(spec, path)
        for inputs, wanted in zip(calls, expected, strict=True):
            parity.add(wanted, engine(**inputs))
    except ParityError:
        raise
    except EngineError as error:
        sizes = ", ".join(f"{dim} {limits.min} to {limits.max}" for dim, limits in spec.ranges.items())
        raise ExportError(
            f"the exported graph does not run where torch does: {error}. The exporter takes an operation "
            f"for another: write it with others, or give each free size ({sizes or 'none'}) one value, as "
            "DimRange(1, 1, 1)"
        ) from error
    return parity


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter's notes on unused packages and on its own deprecations."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
