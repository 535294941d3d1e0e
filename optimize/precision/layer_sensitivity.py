"""Measure the error of quantising one layer alone, and choose the layers that had better be left."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from engines.onnx.parity import rms_error
from optimize.precision.ort_run import run_graph

if TYPE_CHECKING:
    from onnx import ModelProto

# Errors of single layers add up as squares: one at 5 times the median costs as much as 25 ordinary ones.
# Below a hundredth of the output that is still little: 25 such layers together make a twentieth.
FAR_ABOVE, NOTICED = 5.0, 0.01

Inputs = Sequence[Mapping[str, np.ndarray]]


def measure_sensitivity(
    model: ModelProto,
    layers: Iterable[str],
    quantise: Callable[[list[str]], ModelProto],
    inputs: Inputs,
    literal: bool,
) -> dict[str, float]:
    """Measure, by layer, the RMS of the outputs' error with only that layer quantised, in parts of their RMS.

    quantise: gives the graph with the named layers in 8 bits. literal: see run_graph.
    """
    reference = [list(outputs.values()) for outputs in run_graph(model, inputs)]

    def error(layer: str) -> float:
        calls = run_graph(quantise([layer]), inputs, literal)
        pairs = zip(reference, calls, strict=True)
        return float(np.mean([rms_error(wanted, found.values()) for wanted, found in pairs]))

    return {layer: error(layer) for layer in layers}


def far_above_the_rest(errors: Mapping[str, float]) -> dict[str, str]:
    """Find the layers whose error stands out and is noticed; those without error do not count."""
    usual = median([error for error in errors.values() if error > 0] or [0.0])
    return {
        layer: f"alone costs {error:.2g} of the output, {error / usual:.1f} times the median"
        for layer, error in errors.items()
        if error > max(FAR_ABOVE * usual, NOTICED)
    }


def beyond(budget: float, errors: Mapping[str, float]) -> dict[str, str]:
    """Find the fewest layers without which the others' errors, added as squares, keep to the budget."""
    found, layers = {}, sorted(errors, key=lambda layer: -errors[layer])
    for n, layer in enumerate(layers):
        together = math.hypot(*(errors[each] for each in layers[n:]))
        if together <= budget:
            break
        found[layer] = f"alone costs {errors[layer]:.2g} of the output, together with the rest {together:.2g}"
    return found
