"""What every engine that starts from an ONNX file does: find it, and hold its tensors against the spec."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engines.artifact import Artifact, Label, find, fingerprint
from engines.errors import EngineError
from engines.spec import ComponentSpec, Model


def find_onnx(folder: Path, model: Model, component: str, precision: str) -> Artifact:
    """The ONNX artifact of a component of this model as it is now; EngineError if there is none that fits.

    Weights are compared where the model's sources are at hand; a submission may come without them.
    """
    expected = {"component": component, "spec": model.components[component].described()}
    weights = fingerprint(model.fingerprint_files)
    if weights:
        expected["weights"] = weights
    command = f"python export_onnx.py --component {component} --precision {precision} (same --generator)"
    return find(folder, Label(component, precision, ".onnx"), expected, command)


def check_agreement(
    spec: ComponentSpec, path: Path, inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> None:
    """EngineError unless a file's inputs and outputs, dtypes by name, are the component's."""
    for kind, found, tensors in (("inputs", inputs, spec.inputs), ("outputs", outputs, spec.outputs)):
        wanted = {tensor.name: tensor.dtype for tensor in tensors}
        if dict(found) != wanted:
            raise EngineError(f"{path} is not a {spec.name}: its {kind} are {dict(found)}, expected {wanted}")
