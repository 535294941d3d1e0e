"""TensorRT, classic or RTX: which of a component's engine files runs on a GPU here."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from engines.cuda.context import context_of
from engines.errors import EngineError
from engines.spec import Model
from engines.tensorrt.api import INSTALL, installed
from engines.tensorrt.artifact import SUFFIX, find_engine
from engines.tensorrt.engine import TensorRTEngine
from engines.tensorrt.targets import runs_on

STARTS_FROM = SUFFIX


def why_not(device: str) -> str | None:
    """Return None if TensorRT runs on that device here, else what is missing and what to do."""
    if not device.startswith("cuda"):
        return f"tensorrt runs on cuda, not on {device}; run with --device cuda"
    if not installed():
        return f"TensorRT is not installed; {INSTALL}"
    try:
        gpu = context_of(device).driver.gpu
    except (EngineError, MemoryError) as error:
        return "; ".join(str(error).splitlines())
    if not any(runs_on(api, gpu) for api in installed()):
        return f"{installed()[0]} does not run on {gpu.name} ({gpu.sm}); run: pip install tensorrt"
    return None


def packages(device: str) -> dict[str, str]:
    """Name what has to be installed, by what is imported: CUDA's driver through one of several packages."""
    return {"tensorrt": "tensorrt", "cuda": "cuda-python", "cupy": "cupy-cuda13x"}


def start(model: Model, component: str, precision: str, device: str, folder: Path) -> TensorRTEngine:
    """Start the component's engine file for this TensorRT and GPU. EngineError: none fits. MemoryError."""
    gpu, refusals = context_of(device), []
    for api in installed():
        try:
            artifact = find_engine(folder, model, component, precision, (api, gpu.driver.gpu))
        except EngineError as error:
            refusals.append(error)
            continue
        return TensorRTEngine(model.components[component], artifact, api, gpu)
    raise refusals[0] if refusals else EngineError(f"TensorRT is not installed; {INSTALL}")


def lacking(model: Model, precisions: Mapping[str, str], device: str, folder: Path) -> list[str]:
    """List the components without an engine file for this GPU and TensorRT. EngineError: there is no GPU."""
    reason = why_not(device)
    if reason:
        raise EngineError(reason)
    here = [(api, context_of(device).driver.gpu) for api in installed()]
    found = set()
    for component, precision in precisions.items():
        for built_for in here:
            with suppress(EngineError):
                find_engine(folder, model, component, precision, built_for)
                found.add(component)
    return [component for component in precisions if component not in found]
