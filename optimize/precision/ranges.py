"""Measure the least and the largest number that every tensor of a graph holds on recorded inputs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np

DimRange = tuple[float, float]


def measure_ranges(graph: Path, inputs: Iterable[Mapping[str, np.ndarray]]) -> dict[str, DimRange]:
    """Measure (least, largest) of each float tensor of the graph, by name, over all inputs."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(
            graph,
            [],  # no types of nodes chosen means all
            augmented_model_path=str(Path(folder) / "with_ranges.onnx"),
            calibrate_method=CalibrationMethod.MinMax,
            use_external_data_format=graph.with_name(f"{graph.name}.data").exists(),
        )
        calls = map(dict, inputs)
        calibrator.collect_data(SimpleNamespace(get_next=lambda: next(calls, None)))
        found = calibrator.compute_data()
    pairs = {name: data.range_value for name, data in found.items()}
    return {name: (float(np.min(least)), float(np.max(most))) for name, (least, most) in pairs.items()}
