"""Convert a component's fp32 graph to another precision, and check the result on recorded inputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from engines.artifact import Artifact, Draft, Field, Label, writing
from engines.errors import EngineError
from engines.onnx.attention_form import FUSED, opset_for
from engines.onnx.export import Target, check_graph, kept, save_graph, toolchain
from engines.onnx.parity import NotFiniteError, Parity
from engines.precision import PRECISIONS, Precision
from engines.progress import shown
from engines.spec import ComponentSpec
from optimize.precision.finite import first_not_finite
from optimize.precision.fuse_attention import fuse_attention
from optimize.precision.half import SAFE, find_fp32_layers, rehearsal, to_half
from optimize.precision.layer_sensitivity import (
    FAR_ABOVE,
    NOTICED,
    Inputs,
    beyond,
    far_above_the_rest,
    measure_sensitivity,
)
from optimize.precision.layers import find_layers, largest, outer_layers
from optimize.precision.ort_run import run_graph
from optimize.precision.quantize import SCHEMES, quantize, unfit
from optimize.precision.ranges import measure_ranges

if TYPE_CHECKING:
    from onnx import ModelProto

TOOLS = ("onnx", "onnxruntime", "ml_dtypes")


@dataclass(frozen=True)
class Calibration:
    """The inputs that a component met in real runs: their source, and a function that records them.

    probes: how many, spread evenly, each layer alone is measured on; checks: how many the result is held
    against the fp32 graph on. budget: what the errors of layers in 8 bits may come to together, in parts of
    the output; for outputs that are compared with each other, as scores are. None: a layer is left in fp32
    only if its error alone is far above the rest.
    """

    source: Mapping[str, Field]
    record: Callable[[], Sequence[Mapping[str, np.ndarray]]]
    probes: int = 2
    checks: int = 6
    budget: float | None = None


@dataclass
class _Converted:
    model: ModelProto
    fp32_layers: dict[str, str] = field(default_factory=dict)
    kept_layers: dict[str, str] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    quantised: list[str] = field(default_factory=list)


def convert(
    source: Artifact,
    spec: ComponentSpec,
    precision: str,
    calibration: Calibration,
    target: Target,
    opset: int | None = None,
) -> Artifact:
    """Make the component's graph in a precision from its fp32 artifact; one that fits already is kept.

    Half precision keeps layers in fp32 where measured numbers could overflow. 8 bits leave out the first and
    the last layers, and those whose error is too large (Calibration). opset: None for what the precision's
    targets read best; from FUSED on attention becomes one node, where nothing in it stays in fp32.
    ParityError if the outcome is outside its tolerance; EngineError if there is nothing to quantise. Both
    leave nothing behind.
    """
    scheme, label = PRECISIONS[precision], Label(spec.name, precision, ".onnx")
    _require_opset(source, precision)
    opset = max(opset_for(precision, opset), source.manifest["built_from"]["opset"])
    expected = {**_identity(source, precision, scheme, calibration), "opset": opset}
    present = None if target.force else kept(target, label, expected)
    if present:
        return present
    inputs, started = calibration.record(), time.perf_counter()
    alone = f", then each layer alone on {calibration.probes}" if scheme.layers else ""
    target.say(f"{label}: measuring on {len(inputs)} recorded inputs{alone}")
    made = _convert(source, scheme, inputs, calibration, opset, str(label))
    for line in _table(made, scheme):
        target.say(f"{label}: {line}")
    recipe = {**expected["recipe"], "fp32_layers": made.fp32_layers, "kept_layers": made.kept_layers}
    with writing(target.folder, label, {**expected, "recipe": recipe}) as draft:
        save_graph(made.model, draft.path)
        check_graph(spec, draft.path)
        parity = _compare(source, draft, spec, precision, spread(inputs, calibration.checks))
        seconds = time.perf_counter() - started
        _note(draft, made, parity.require(precision), scheme, seconds)
    target.say(f"{label}: {parity} ({seconds:.0f} s)")
    return draft.artifact


def spread(inputs: Sequence, count: int) -> list:
    """Pick that many inputs at even distances, the first and the last included; all if there are fewer."""
    places = np.linspace(0, len(inputs) - 1, min(count, len(inputs))).round().astype(int)
    return [inputs[place] for place in places]


def _in_half(scheme: Precision) -> bool:
    return scheme.compute != "float32"


def _literal(scheme: Precision) -> bool:
    """Tell whether a processor can only rehearse it, for lack of kernels for its floats or layers."""
    return _in_half(scheme) or bool(scheme.layers and SCHEMES[scheme.layers].literal)


def _require_opset(source: Artifact, precision: str) -> None:
    """Raise EngineError where ONNX cannot express it: scales in half precision came with opset 19."""
    opset = source.manifest["built_from"]["opset"]
    if opset < 19 and PRECISIONS[precision].layers:
        raise EngineError(f"{precision} needs opset 19 or newer, this is {opset}; leave --opset out")


def _identity(
    source: Artifact, precision: str, scheme: Precision, calibration: Calibration
) -> dict[str, Field]:
    recipe = {
        "layers": scheme.layers,
        "rest": scheme.compute if _in_half(scheme) else None,
        "safe": SAFE.get(scheme.compute),
        "far_above": [FAR_ABOVE, NOTICED],
        "budget": calibration.budget,
        "probes": calibration.probes,
    }
    return {
        **source.manifest["built_from"],
        "precision": precision,
        "recipe": recipe,
        "onnx": source.content,
        "calibration": dict(calibration.source),
        "toolchain": toolchain(TOOLS),
    }


def _convert(
    source: Artifact,
    scheme: Precision,
    inputs: Inputs,
    calibration: Calibration,
    opset: int,
    label: str,
) -> _Converted:
    import onnx

    made = _Converted(onnx.load(source.path))
    ranges = measure_ranges(source.path, shown(inputs, f"{label}: ranges"))
    if scheme.layers:
        probes = spread(inputs, calibration.probes)
        _quantise(made, scheme, ranges, probes, calibration.budget, label)
    if _in_half(scheme):
        made.fp32_layers = find_fp32_layers(made.model, ranges, SAFE.get(scheme.compute))
        if opset >= FUSED:
            made.model = fuse_attention(made.model, made.fp32_layers)
        made.model = to_half(made.model, scheme.compute, made.fp32_layers)
    return made


def _quantise(
    made: _Converted,
    scheme: Precision,
    ranges: Mapping,
    probes: Sequence[Mapping],
    budget: float | None,
    label: str,
) -> None:
    model, kind, safe = made.model, scheme.layers, SAFE.get(scheme.compute)
    layers = find_layers(model.graph, SCHEMES[kind].layers)
    if safe:
        reached = {layer.name: largest(layer, ranges) for layer in layers}
        far = {name: f"reaches {most:.3g}" for name, most in reached.items() if most > safe}
        made.kept_layers |= far
    outer = outer_layers(model.graph) & {layer.name for layer in layers}
    made.kept_layers |= dict.fromkeys(sorted(outer), "first or last layer")
    made.kept_layers |= unfit(model, ranges, layers, kind, _in_half(scheme))
    rest = [layer.name for layer in layers if layer.name not in made.kept_layers]
    if not rest:
        return

    def quantised(names: list[str]) -> ModelProto:
        return quantize(model, ranges, names, kind)

    one_by_one = shown(rest, f"{label}: layers measured alone")
    made.errors = measure_sensitivity(model, one_by_one, quantised, probes, SCHEMES[kind].literal)
    too_large = far_above_the_rest(made.errors) if budget is None else beyond(budget, made.errors)
    made.kept_layers |= too_large
    made.quantised = [name for name in rest if name not in made.kept_layers]
    if made.quantised:  # an empty list would mean all layers
        made.model = quantised(made.quantised)


def _compare(
    source: Artifact, draft: Draft, spec: ComponentSpec, precision: str, inputs: Sequence[Mapping]
) -> Parity:
    import onnx

    scheme, parity, base = PRECISIONS[precision], Parity(spec), onnx.load(source.path)
    model = onnx.load(draft.path)
    model = rehearsal(model) if _in_half(scheme) else model
    runs = run_graph(base, inputs), run_graph(model, inputs, _literal(scheme))
    for arrays, wanted, found in zip(inputs, *runs, strict=True):
        try:
            parity.add(wanted, found)
        except NotFiniteError as error:
            first = first_not_finite(model, base, arrays)
            where = f", first those of node {first}" if first else ""
            raise NotFiniteError(
                f"{error} in {precision}{where}; in fp32 all are. Leave this component there: --precision "
                f"{precision},{spec.name}=fp32"
            ) from error
    return parity


def _note(draft: Draft, made: _Converted, parity: Mapping, scheme: Precision, seconds: float) -> None:
    draft.facts.update(
        parity=parity,
        against="the fp32 graph, recorded inputs"
        + (", each result rounded as in this precision: fp32 sums, as on a GPU" if _literal(scheme) else ""),
        quantised_layers=len(made.quantised),
        sensitivity=made.errors,
        seconds=round(seconds, 1),
    )


def _table(made: _Converted, scheme: Precision) -> Iterator[str]:
    """Say for people which layers were left out and why, and which of the others are most sensitive."""
    yield from (f"fp32: {name} ({why})" for name, why in made.fp32_layers.items())
    yield from (f"kept: {name} ({why})" for name, why in made.kept_layers.items())
    worst = sorted(made.quantised, key=lambda name: -made.errors[name])[:3]
    if worst:
        most = ", ".join(f"{name} {made.errors[name]:.2g}" for name in worst)
        yield f"{len(made.quantised)} layers in 8 bits; the most sensitive: {most}"
    elif scheme.layers:
        yield f"no inner layer to quantise in {scheme.layers}: all of it stays in {scheme.compute}"
