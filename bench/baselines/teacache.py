"""TeaCache, plainly from its paper: skips while the rescaled change of the time's embedding stays small.

Liu et al., 2024. The change of the prediction is estimated from that of what the time gives to the first
block, rescaled by a polynomial that was fitted to base runs. Estimates add up, and the network is evaluated
when they pass a threshold. In between the last prediction is used again, so that any engine can run it. The
signal is the projected time embedding, as in the authors' code for Wan; the paper's is the first block's
input modulated by it. It is the same for all requests, windows and branches: the steps follow from it alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.baselines.calibration import Calibration, relative_change
from bench.baselines.errors import RivalError
from bench.baselines.rival import Knobs, Rival
from bench.baselines.wrapped import Skipping
from generators.contract import Generator

DEGREE = 4  # of the polynomial, as in the paper
THRESHOLDS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0)
EMBEDDER = "condition_embedder."


def knobs(generator: Generator) -> Knobs:
    """threshold: of the accumulated relative change."""
    return {"threshold": THRESHOLDS}


def wrap(generator: Generator, threshold: float, calibration: Calibration) -> Generator:
    """The generator, evaluated at the first and the last step, and where the threshold is passed."""
    steps = generator.scheduler.steps
    signals = time_signals(_embedder_weights(generator), generator.scheduler.times[:steps] * 1000)
    moved = np.array([relative_change(new, old) for old, new in zip(signals, signals[1:], strict=False)])
    expected = rescaled(moved, np.array(calibration.changes))
    return Skipping(generator, frozenset(evaluated(expected, threshold)))


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
    if len(moved) != len(changes):
        raise RivalError("this calibration is of another grid; run: python -m bench.baselines calibrate")
    degree = min(DEGREE, len(moved) - 1)
    return np.polynomial.Polynomial.fit(moved, changes, degree)(moved).clip(0)


def time_signals(weights: dict[str, np.ndarray], times: np.ndarray) -> np.ndarray:
    """(steps, 6 width) what Wan's network makes of times: sinusoids, two layers, a projection."""
    half = weights["time_embedder.linear_1.weight"].shape[1] // 2
    angles = times[:, None] * np.exp(-np.log(10_000) * np.arange(half) / half)
    x = np.concatenate([np.cos(angles), np.sin(angles)], 1)
    for layer in ("time_embedder.linear_1", "time_embedder.linear_2", "time_proj"):
        if layer != "time_embedder.linear_1":
            x = x / (1 + np.exp(-x))  # SiLU
        x = x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
    return x


def _embedder_weights(generator: Generator) -> dict[str, np.ndarray]:
    """Of the time's embedder, by what follows EMBEDDER in their names."""
    from safetensors import safe_open

    for path in map(Path, generator.fingerprint_files):
        if path.suffix != ".safetensors":
            continue
        with safe_open(path, "np") as file:
            names = [name for name in file.keys() if f"{EMBEDDER}time_" in name]  # noqa: SIM118 (not a dict)
            if names:
                return {
                    name.partition(EMBEDDER)[2]: file.get_tensor(name).astype(np.float64) for name in names
                }
    raise RivalError("teacache needs the time embedder of a Wan network among the generator's sources")


RIVAL = Rival(
    "teacache", "Liu et al., arXiv 2411.19108; written here from the paper", knobs, wrap, calibrated=True
)
