"""Check a component's torch module: shapes, dtypes, equal outputs on every call, what export refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.errors import BROKEN, EngineError, describe_error
from engines.onnx.export import OPSET, Target, example_inputs, export_onnx, traced
from engines.onnx.export_streamed import bare_twin
from engines.onnx.parity import draw, extreme_sizes
from engines.spec import ComponentSpec, Model
from engines.tensorrt.refusals import refusal

if TYPE_CHECKING:
    import torch

EXPORTABLE = "shapes and constants only: no .item(), no branch on a tensor's values, no in-place tricks"
STATELESS = (
    "make what is kept an input and an output of the component: "
    "branches, windows and requests take turns on one engine"
)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where, what, and (mend) how to fix it."""

    where: str
    wrong: str
    mend: str

    def __str__(self) -> str:
        return f"{self.where}: {self.wrong}\n  mend: {self.mend}"


def check_module(spec: ComponentSpec, module: torch.nn.Module) -> list[Finding]:
    """Run a module on random inputs at the smallest and largest sizes of its spec; return what is wrong."""
    import torch

    if not isinstance(module, torch.nn.Module):
        wrong = f"build({spec.name!r}) gives {type(module).__name__}, no torch module"
        return [Finding(spec.name, wrong, "return the module at the end of build()")]
    empty = [name for name, weight in module.named_parameters() if weight.is_meta]
    if empty:
        wrong = f"{len(empty)} weights hold no numbers, {empty[0]} first"
        return [Finding(spec.name, wrong, "fill the network from its checkpoint before build returns it")]
    run = _Run(spec, module.eval().float())  # as engines do: weights may be stored in half precision
    try:
        for number, sizes in enumerate(extreme_sizes(spec)):
            found = list(_at(run, sizes, seed=number + 1))
            if found:
                return found
    except BROKEN as error:
        wrong = f"it cannot take what its spec says: {describe_error(error)}"
        names = ", ".join(tensor.name for tensor in spec.inputs)
        mend = f"bring {names} of the spec and forward() into agreement"
        if re.search(r"dtype|scalar type|Half|BFloat16", str(error)):
            mend = "leave .half() and other casts out of forward(): engines run it in float32, or cast it"
        return [Finding(spec.name, wrong, mend)]
    return []


def check_export(spec: ComponentSpec, module: torch.nn.Module) -> list[Finding]:
    """Trace a component as export does; return why it cannot be exported, or built by TensorRT."""
    import torch

    try:
        twin = bare_twin(module, torch.float32)[0]
        graph = traced(spec, twin, example_inputs(spec), OPSET, optimize=False).model.graph
    except EngineError as error:
        return [Finding(spec.name, str(error).removeprefix(f"{spec.name}: "), EXPORTABLE)]
    edges = {*graph.inputs, *graph.outputs}
    return [Finding(spec.name, *why) for node in graph if (why := refusal(node, edges))][:1]


def check_graph_of(generator: Model, component: str, folder: Path) -> list[Finding]:
    """Export a component to ONNX in folder; return why it cannot be exported, if so."""
    try:
        export_onnx(generator, component, Target(folder, lambda text: None))
    except EngineError as error:
        return [Finding(component, str(error).removeprefix(f"{component}: "), EXPORTABLE)]
    return []


class _Run:
    """A callable that runs a module as an engine does, without casting its outputs.

    changed: names of the inputs that the last call wrote into.
    """

    def __init__(self, spec: ComponentSpec, module: torch.nn.Module) -> None:
        self.spec, self._module = spec, module

    def __call__(self, inputs: Mapping[str, np.ndarray], seed: int | None = None) -> Sequence[torch.Tensor]:
        import torch

        if seed is not None:
            torch.manual_seed(seed)
        with torch.inference_mode():
            arguments = [torch.from_numpy(inputs[tensor.name].copy()) for tensor in self.spec.inputs]
            outputs = self._module(*arguments)
        self.changed = [
            tensor.name
            for tensor, argument in zip(self.spec.inputs, arguments, strict=True)
            if not np.array_equal(argument.numpy(), inputs[tensor.name])
        ]
        return outputs if isinstance(outputs, tuple) else (outputs,)


def _at(run: _Run, sizes: Mapping[str, int], seed: int) -> Iterator[Finding]:
    """Check a module at given sizes of its dynamic dimensions."""
    spec = run.spec
    inputs, others = draw(spec, sizes, seed), draw(spec, sizes, seed + 100)
    first = run(inputs)
    if run.changed:
        wrong = f"it writes into its input {run.changed[0]}, which the sampling loop goes on using"
        yield Finding(spec.name, wrong, "compute into a new tensor, as x = x * 2 in place of x.mul_(2)")
    wrong = list(_outputs(spec, first, sizes))
    yield from wrong
    if not wrong:
        yield from _determinism(run, inputs, others, first)


def _outputs(
    spec: ComponentSpec, outputs: Sequence[torch.Tensor], sizes: Mapping[str, int]
) -> Iterator[Finding]:
    """Check number, kind, shapes, dtypes and finiteness of a module's outputs."""
    import torch

    others = [type(output).__name__ for output in outputs if not isinstance(output, torch.Tensor)]
    if others:
        wrong = f"forward() gives {others[0]}, expected a tensor or a tuple of tensors"
        mend = "return tuple(outputs) of a list; the tensor itself of a dict or a library's output: x.sample"
        yield Finding(spec.name, wrong, mend)
        return
    wanted = [tensor.name for tensor in spec.outputs]
    if len(outputs) != len(wanted):
        wrong = f"it gives {len(outputs)} outputs, the spec says {len(wanted)}: {', '.join(wanted)}"
        yield Finding(spec.name, wrong, "return a tuple of exactly the spec's outputs, in its order")
        return
    for tensor, output in zip(spec.outputs, outputs, strict=True):
        where, dtype = f"{spec.name}.{tensor.name}", str(output.dtype).removeprefix("torch.")
        shape, found = tuple(sizes.get(dim, dim) for dim in tensor.dims), tuple(output.shape)
        # A name that no input has is a size that follows from theirs.
        alike = (isinstance(want, str) or want == size for want, size in zip(shape, found, strict=False))
        if len(found) != len(shape) or not all(alike):
            mend = "change the output's dims in components, or what forward() returns"
            yield Finding(where, f"its shape is {found}, the spec says {shape} for {tensor}", mend)
        if dtype != tensor.dtype:
            mend = f"end forward() with .to(torch.{tensor.dtype}), or change the dtype in components"
            if dtype == "float64":
                mend += "; a float64 table or NumPy number inside makes all that follows float64, and slow"
            yield Finding(where, f"it is {dtype}, the spec says {tensor.dtype}", mend)
        if output.is_floating_point() and not bool(output.isfinite().all()):
            mend = "look for a division by zero or an overflow; all inputs here were within -6 and 6"
            yield Finding(where, "it holds numbers that are not finite", mend)


def _determinism(
    run: _Run, inputs: Mapping, others: Mapping, first: Sequence[torch.Tensor]
) -> Iterator[Finding]:
    """Check that equal inputs give the outputs `first` again, at once and after other inputs."""
    again = run(inputs)
    if not same(first, again):
        if same(run(inputs, seed=5), run(inputs, seed=5)):
            wrong, mend = "it draws random numbers inside", "make the noise an input of the component"
        else:
            wrong, mend = "its answer changes from call to call: it keeps a hidden state", STATELESS
        yield Finding(run.spec.name, wrong, mend)
        return
    run(others)
    if not same(first, run(inputs)):
        wrong = "its answer depends on what it was given before: it keeps a hidden state"
        yield Finding(run.spec.name, wrong, STATELESS)


def same(first: Sequence, second: Sequence) -> bool:
    """Return whether outputs are equal up to rounding (1e-5): the order of a CPU's additions varies."""
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(first, second, strict=True)]
    return all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-5, atol=1e-5 * float(np.abs(a).max(initial=0)))
        for a, b in pairs
    )
