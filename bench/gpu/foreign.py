"""Engines of TensorRT-RTX that were built for other GPUs, tried on the one here: what happens, in words.

The engine's own check of its header is asked, and then passed over: deserialization and an execution context
are tried whatever it says. Each step is told before it is tried, because some crash.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.gpu.measure import REFUSALS, Emit, words_of
from bench.gpu.presenter import Small
from bench.gpu.ways import Place
from engines.artifact import Artifact
from engines.export import Target, export_onnx
from engines.gpu.lane import lane_of
from engines.parity import draw
from engines.spec import EngineError
from engines.tensorrt.api import TensorRT, load
from engines.tensorrt.build import Order, build
from engines.tensorrt.engine import TensorRTEngine
from engines.tensorrt.network import Settings
from engines.tensorrt.rtx_runtime import verdict
from engines.tensorrt.targets import resolve_targets
from pipeline.script import say

COMPONENT = "decode"


def try_foreign(targets: Sequence[str], place: Place, emit: Emit) -> None:
    """Emit a row for each target, as 80 or 80,89, with everything TensorRT-RTX said."""
    api = load("tensorrt_rtx")
    if api is None:
        emit({"way": "tensorrt-rtx", "refused": "tensorrt-rtx is not installed"})
        return
    emit({"way": "tensorrt-rtx", "version": api.version})
    generator = Small(place.folder / "small")
    folder = place.folder / "foreign"
    graph = export_onnx(generator, COMPONENT, Target(folder, say))
    spec = generator.components[COMPONENT]
    for target in targets:
        emit({"begun": target})
        try:
            order = Order(spec, "fp32", graph, resolve_targets(target), Settings(True, 3, None))
            engine = build(order, lambda share: None)
        except (EngineError, MemoryError) as refusal:
            emit({"way": target, "refused": words_of(refusal)})
            continue
        row = {"built_for": list(order.targets.gpus), "bytes": engine.path.stat().st_size}
        _load(api, engine.path, row, lambda row, target=target: emit({"way": target, **row}))
        _run(api, engine, generator, place, row)
        emit({"way": target, **row})


def _load(api: TensorRT, path: Path, row: dict, emit: Emit) -> None:
    """What the header's check, deserialization and a context give; row is told before each of the two."""
    plan = path.read_bytes()
    runtime = api.create(api.trt.Runtime)
    row["validity"], row["reasons"] = verdict(api, runtime, plan[: runtime.engine_header_size])
    emit(row | {"tried": "deserialize_cuda_engine"})
    engine = runtime.deserialize_cuda_engine(plan)
    row |= {"deserialized": engine is not None, "said": _said(api)}
    if engine is None:
        return
    emit(row | {"tried": "create_execution_context"})
    row["context"] = engine.create_execution_context() is not None
    row["said"] += _said(api)


def _run(api: TensorRT, engine: Artifact, generator: Small, place: Place, row: dict) -> None:
    """Run it as infer.py would, which refuses what the header's check refuses."""
    spec = generator.components[COMPONENT]
    try:
        running = TensorRTEngine(spec, engine, api, lane_of(place.device))
        try:
            running(**draw(spec, {name: each.best for name, each in spec.ranges.items()}, seed=0))
            row["runs"] = True
        finally:
            running.close()
    except REFUSALS as refusal:
        row |= {"runs": False, "run_refused": words_of(refusal), "said_running": _said(api)}


def _said(api: TensorRT) -> list[str]:
    return [f"{level}: {text}" for level, text in api.take_messages()]
