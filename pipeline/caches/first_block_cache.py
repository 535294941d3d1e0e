"""First-block cache of diffusers: where the first block's residual hardly changed, the others' is kept."""

from __future__ import annotations

from generators.contract import Generator
from pipeline.caches.network_hooks import hooked
from pipeline.caches.technique import Technique
from pipeline.window_denoiser import OpenDenoiser

# Of the relative change since the last evaluation, which is never 0: at that threshold all is evaluated.
THRESHOLDS = (0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0)


def apply(generator: Generator, threshold: float) -> OpenDenoiser:
    """Attach diffusers' hooks."""
    return hooked(generator, "FirstBlockCacheConfig", lambda _: {"threshold": threshold})


TECHNIQUE = Technique(
    "first-block-cache",
    "diffusers' FirstBlockCacheConfig, after ParaAttention; Apache-2.0",
    {"threshold": THRESHOLDS},
    apply,
    inside=True,
)
