"""The cover network as ONNX graphs, calibrated on rendered pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engines.artifact import Artifact
from engines.onnx.export import Target, export_onnx
from finish.scorer import BATCH, Cover
from lab.finish.pictures import VERSIONS, graded
from optimize.precision.convert import Calibration, convert

BUDGET = 0.003  # of the score, for all layers in 8 bits together: frames of one video differ by little
CALIBRATION = (1_900_000, 16)  # the first picture that ranges of 8 bits are measured on, and how many


def export_cover(precisions: Sequence[str], target: Target) -> list[Artifact]:
    """The network's graph in each of those precisions, calibrated on rendered pictures. EngineError."""
    model, (first, pictures) = Cover(), CALIBRATION
    batches = pictures * VERSIONS // BATCH

    def record() -> list[dict[str, np.ndarray]]:
        pixels = graded(range(first, first + pictures), 0).pixels
        return [{"pixels": pixels[i::batches]} for i in range(batches)]

    graph = export_onnx(model, "score", target)
    calibration = Calibration({"pictures": list(CALIBRATION)}, record, probes=batches, budget=BUDGET)
    return [
        graph if each == "fp32" else convert(graph, model.components["score"], each, calibration, target)
        for each in precisions
    ]
