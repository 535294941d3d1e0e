"""Choose what a recipe needs of a generator on a target machine: graphs, engines, or the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engines.artifact import Artifact, Label, find, find_onnx
from engines.errors import EngineError, Exit
from engines.load import graph_precision, starts_from
from engines.onnx.attention_form import DECOMPOSED, reads_attention
from engines.spec import Model
from engines.tensorrt.artifact import BUILDER, SUFFIX
from submit.errors import SubmitError
from submit.profile import Profile

BUILT = "engines/built"  # in the archive, where infer.py looks
GB = 1e9


@dataclass
class ModelFiles:
    """Files of a model by their names in the archive.

    build: engines that are to be built there; build_seconds: a guess of how long that takes; tools: versions
    of what made the files.
    """

    files: dict[str, Path] = field(default_factory=dict)
    build: list[str] = field(default_factory=list)
    build_seconds: float = 0.0
    tools: dict[str, str] = field(default_factory=dict)

    def add(self, artifact: Artifact, folder: str) -> None:
        """Add an artifact: its files, its manifest, its tools."""
        for name in (*artifact.manifest["files"], f"{artifact.path.name}.json"):
            self.files[f"{folder}/{name}"] = artifact.path.with_name(name)
        self.tools.update(artifact.manifest["built_from"].get("toolchain") or {})


def model_files(
    model: Model, backend: str, precisions: Mapping[str, str], folder: Path, profile: Profile
) -> ModelFiles:
    """Find what the backend loads; for TensorRT graphs too, from which missing engines are built there.

    EngineError: a graph is not in the folder or does not fit. SubmitError: building takes too long there.
    """
    found = ModelFiles()
    if starts_from(backend) is None:
        return found  # weights are sources: submit/pack.py has them
    where = f"{BUILT}/{model.name}"
    for component, precision in precisions.items():
        precision = graph_precision(backend, precision)
        there = profile.tensorrt if starts_from(backend) == SUFFIX else None
        opset = DECOMPOSED if there and not reads_attention("tensorrt", there) else None
        graph = find_onnx(folder, model, component, precision, opset)
        found.add(graph, where)
        if starts_from(backend) != SUFFIX:
            continue
        engine = _engine(folder, model, component, precision, graph, profile)
        if engine:
            found.add(engine, where)
        else:
            found.build.append(component)
            found.build_seconds += build_seconds(graph, profile)
    if found.build_seconds > profile.environment_seconds:
        raise SubmitError(
            f"no engines of {', '.join(found.build)} are for {profile.gpu['name']} and TensorRT "
            f"{profile.tensorrt}, and building them there takes {found.build_seconds:.0f} s at a guess, more "
            f"than the {profile.environment_seconds:.0f} s allowed; build them on such a GPU, or correct "
            f"build_gb_seconds of profile {profile.name}",
            Exit.ENVIRONMENT,
        )
    return found


def build_seconds(graph: Artifact, profile: Profile) -> float:
    """Guess how long building an engine of a graph takes on that machine, from the graph's bytes."""
    size = sum(graph.path.with_name(Path(name).name).stat().st_size for name in graph.manifest["files"])
    return profile.build_component_seconds + profile.build_gb_seconds * size / GB


def expected_of_engine(profile: Profile) -> dict:
    """Return fields of an engine's manifest that its target decides."""
    return {
        "builder": BUILDER,
        "toolchain": {"flavour": "tensorrt", "version": profile.tensorrt},
        "targets": {profile.gpu["sm"]: profile.gpu["name"]},
        "os": "Linux-x86_64",
    }


def _engine(
    folder: Path, model: Model, component: str, precision: str, graph: Artifact, profile: Profile
) -> Artifact | None:
    if not profile.gpu:
        raise SubmitError(f"TensorRT needs a GPU; profile {profile.name} has none. Choose another --target")
    expected = {
        "component": component,
        "precision": precision,
        "spec": model.components[component].described(),
        "onnx": graph.content,
        **expected_of_engine(profile),
    }
    try:
        return find(folder, Label(component, precision, SUFFIX), expected, "python build_trt.py")
    except EngineError:  # none, or for another machine: it is built there
        return None
