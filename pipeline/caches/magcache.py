"""MagCache of diffusers: skips while the error that is known from base runs adds up to little.

Ma et al., 2025. The ratios are those of base runs (see calibration.py). diffusers takes one list for both
branches, so they are means over both.
"""

from __future__ import annotations

from generators.contract import Generator
from pipeline.caches.calibration import Calibration
from pipeline.caches.network_hooks import hooked
from pipeline.caches.technique import Technique
from pipeline.window_denoiser import OpenDenoiser

THRESHOLDS = (0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.12, 0.16, 0.2, 0.24, 0.3, 0.4, 0.6, 0.8, 1.2)


def apply(generator: Generator, skips: int, threshold: float, calibration: Calibration) -> OpenDenoiser:
    """Attach diffusers' hooks. The paper's retention of a fifth of the steps is kept."""
    settings = {
        "threshold": threshold,
        "max_skip_steps": skips,
        "retention_ratio": 0.2,
        "num_inference_steps": generator.scheduler.steps,
        "mag_ratios": list(calibration.ratios),
    }
    return hooked(generator, "MagCacheConfig", lambda _: settings)


# skips: at most in a row, the first few; threshold: of the accumulated error, below 0 evaluates all.
TECHNIQUE = Technique(
    "magcache",
    "diffusers' MagCacheConfig, after arXiv 2506.09045; Apache-2.0",
    {"skips": (1, 2, 3, 4, 6), "threshold": (-1.0, *THRESHOLDS)},
    apply,
    inside=True,
    calibrated=True,
)
