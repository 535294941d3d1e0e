"""Run a graph that is still in the making, with ONNX Runtime on the processor."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.onnx.export import save_graph

if TYPE_CHECKING:
    from onnx import ModelProto


def run_graph(
    model: ModelProto, inputs: Iterable[Mapping[str, np.ndarray]], literal: bool = False
) -> Iterator[dict[str, np.ndarray]]:
    """Compute outputs by name for each of the inputs.

    literal: each node as it stands. ONNX Runtime's optimiser makes 8-bit kernels of quantised layers, as a
    run would, but has none for 8-bit floats (1.31: it puts a node that does not load).
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if literal:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trial.onnx"
        save_graph(model, path)
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for arrays in inputs:
        yield dict(zip(names, session.run(names, dict(arrays)), strict=True))
