"""Export the components of a generator as checked ONNX graphs, each in the precision chosen for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from engines.artifact import Artifact
from engines.backends.onnxruntime_backend import OnnxRuntimeEngine
from engines.errors import EngineError
from engines.onnx.attention_form import opset_for
from engines.onnx.export import Target, export_onnx
from engines.onnx.export_streamed import export_streamed, is_large
from generators.contract import Generator
from optimize.calibration import CLIPS, Inputs, describe, record
from optimize.exact_rewrites import EXACT
from optimize.precision.convert import Calibration, convert
from optimize.precision.quantize_streamed import BLOCKS
from optimize.streamed_rewrites import BARE
from pipeline.batch.dataset import Request, first_requests


def export_all(
    generator: Generator, precisions: Mapping[str, str], data: Path, target: Target, opset: int | None = None
) -> list[Artifact]:
    """Export each component that precisions names, with exact rewrites; return the artifacts in its order.

    For precisions other than fp32, all components are first exported in fp32, and requests of the data folder
    run on them for calibration. Large models are converted while they are exported instead, see
    engines/onnx/export_streamed.py. opset: None for what each precision's
    targets read best. One that fails keeps no other from being made. EngineError, InputError.
    OSError: the disk is full.
    """
    if is_large(generator):
        return _each(
            precisions,
            lambda name: export_streamed(
                generator,
                name,
                precisions[name],
                target,
                opset_for(precisions[name], opset),
                BLOCKS,
                BARE,
            ),
        )
    whole = opset_for("fp32", opset)
    if all(precision == "fp32" for precision in precisions.values()):
        return _each(precisions, lambda name: export_onnx(generator, name, target, whole, EXACT))
    requests = first_requests(data, CLIPS)  # raises before any costly work
    names = list(generator.components)
    exported = _each(names, lambda name: export_onnx(generator, name, target, whole, EXACT))
    graphs = dict(zip(names, exported, strict=True))
    runs = _Runs(generator, graphs, requests, target)

    def converted(name: str) -> Artifact:
        if precisions[name] == "fp32":
            return graphs[name]
        spec, calibration = generator.components[name], runs.calibration(name)
        return convert(graphs[name], spec, precisions[name], calibration, target, opset)

    return _each(precisions, converted)


def _each(names: Iterable[str], make: Callable[[str], Artifact]) -> list[Artifact]:
    """Make an artifact for each name, all that can be made, before the errors of the others are raised."""
    made, errors = [], []
    for name in names:
        try:
            made.append(make(name))
        except EngineError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise EngineError("\n".join(map(str, errors)))
    return made


class _Runs:
    """Recorded runs of requests on the fp32 graphs, made when the first component needs its inputs."""

    def __init__(
        self, generator: Generator, graphs: Mapping[str, Artifact], requests: list[Request], target: Target
    ) -> None:
        self._generator, self._graphs = generator, graphs
        self._requests, self._target = requests, target

    def calibration(self, component: str) -> Calibration:
        """Return a component's calibration: what it depends on, and a function that gives its inputs."""
        graphs = {name: graph.content for name, graph in self._graphs.items()}
        source = {"requests": describe(self._requests), "graphs": graphs}
        return Calibration(source, lambda: self._recorded[component])

    @cached_property
    def _recorded(self) -> Mapping[str, Sequence[Inputs]]:
        """The inputs of all calls, by component."""
        self._target.say(f"recording {', '.join(request.id for request in self._requests)} over all steps")
        components = self._generator.components
        engines = {name: OnnxRuntimeEngine(components[name], g.path) for name, g in self._graphs.items()}
        return record(self._generator, engines, self._requests)
