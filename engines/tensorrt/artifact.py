"""What a TensorRT engine file is built from, and which of those in a folder fits here."""

from __future__ import annotations

import platform
from pathlib import Path

from engines.artifact import Artifact, Field, Label, StaleArtifact, find, find_onnx, fingerprint_of
from engines.cuda.driver import Gpu
from engines.errors import EngineError
from engines.onnx.attention_form import DECOMPOSED, reads_attention
from engines.spec import Model, merged
from engines.tensorrt.api import TensorRT

SUFFIX = ".engine"
BUILDER = {"activations": "resized"}  # in built_from.builder: what Network.configure asks for of a profile
ANY_GPU = "any GPU"  # TensorRT-RTX compiles kernels where it runs; classic engines fit one model of GPU


def toolchain(api: TensorRT) -> dict[str, str]:
    """Describe the TensorRT that builds or runs; an engine fits no other version."""
    return {"flavour": api.flavour, "version": api.version}


def system() -> str:
    """Name the operating system and processor, as Linux-x86_64."""
    return f"{platform.system()}-{platform.machine()}"


def target_of(api: TensorRT, gpu: Gpu) -> dict[str, str]:
    """Make the entry of built_from.targets that an engine for this GPU has."""
    return {gpu.sm: ANY_GPU if api.is_rtx else gpu.name}


def find_graph(folder: Path, model: Model, component: str, precision: str, api: TensorRT) -> Artifact:
    """Find the ONNX artifact that this TensorRT reads; EngineError: none fits, and what to export."""
    if reads_attention(api.flavour, api.version):
        return find_onnx(folder, model, component, precision)
    return find_onnx(folder, model, component, precision, DECOMPOSED)


def find_engine(
    folder: Path, model: Model, component: str, precision: str, built_for: tuple[TensorRT, Gpu]
) -> Artifact:
    """Find the newest engine for this model, TensorRT and GPU; EngineError names what differs.

    The graph is compared if it is in the folder too, the weights if the model's sources are at hand.
    """
    api, gpu = built_for
    expected: dict[str, Field] = {
        "component": component,
        "precision": precision,
        "loras": merged(model, component),
        "spec": model.components[component].described(),
        "builder": BUILDER,
        "toolchain": toolchain(api),
        "targets": target_of(api, gpu),
        "os": system(),
    }
    weights = fingerprint_of(model, component)
    if weights:
        expected["weights"] = weights
    label = Label(component, precision, SUFFIX)
    command = f"python build_trt.py --component {component} --precision {precision} (same --generator)"
    try:
        expected["onnx"] = find_graph(folder, model, component, precision, api).content
    except StaleArtifact:
        find(folder, label, expected, command)  # what differs in the engine itself says more
        raise
    except EngineError:
        pass  # no graph: a submission has engines only
    return find(folder, label, expected, command)
