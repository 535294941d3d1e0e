"""TeaCache, plainly from its paper: skips while the rescaled change of the time's embedding stays small.

Liu et al., 2024. The change of the prediction is estimated from that of what the time gives to the first
block, rescaled by a polynomial that was fitted to base runs. Estimates add up, and the network is evaluated
when they pass a threshold. In between the last prediction is used again, so that any engine can run it. The
signal is the projected time embedding, as in the authors' code for Wan; the paper's is the first block's
input modulated by it. It is the same for all requests, windows and branches: the steps follow from it alone.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from generators.contract import Generator
from pipeline.caches.calibration import Calibration, embedder_names
from pipeline.caches.kept_predictions import SkippingDenoiser
from pipeline.caches.technique import Technique, TechniqueError
from pipeline.window_denoiser import OpenDenoiser

DEGREE = 4  # of the polynomial, as in the paper
THRESHOLDS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0)


def apply(generator: Generator, threshold: float, calibration: Calibration) -> OpenDenoiser:
    """Evaluate the first and the last step, and those where the accumulated change passes the threshold.

    TechniqueError: the calibration is of another network than Wan's.
    """
    if not calibration.signals:
        raise no_embedder(generator)
    expected = rescaled(np.array(calibration.signals), np.array(calibration.changes))
    return partial(SkippingDenoiser, frozenset(evaluated(expected, threshold)))


def check_embedder(generator: Generator) -> None:
    """Raise TechniqueError if the generator's weights, where they are here, are no Wan network's."""
    here = all(Path(path).is_file() for path in generator.fingerprint_files)
    if here and not embedder_names(generator):
        raise no_embedder(generator)


def no_embedder(generator: Generator) -> TechniqueError:
    """Return the error for a network without the time embedder that the signal is from."""
    return TechniqueError(
        f"name: teacache needs the time embedder of a Wan network, and {generator.name} has none; "
        "uniform-skip runs with any"
    )


def evaluated(expected: np.ndarray, threshold: float) -> list[int]:
    """The steps to evaluate. expected: change of the prediction at each step but the first."""
    steps, total = [0], 0.0
    for step, change in enumerate(expected, 1):
        total += float(change)
        if total >= threshold or step == len(expected):
            steps.append(step)
            total = 0.0
    return steps


def rescaled(moved: np.ndarray, changes: np.ndarray) -> np.ndarray:
    """A polynomial of the signal's change, fitted to that of the prediction; never below 0."""
    degree = min(DEGREE, len(moved) - 1)
    return np.polynomial.Polynomial.fit(moved, changes, degree)(moved).clip(0)


TECHNIQUE = Technique(
    "teacache",
    "Liu et al., arXiv 2411.19108; written here from the paper, Apache-2.0",
    {"threshold": THRESHOLDS},
    apply,
    calibrated=True,
    check=check_embedder,
)
