"""First-block cache of diffusers: where the first block's residual hardly changed, the others' is kept."""

from __future__ import annotations

from bench.baselines.hooked import Hooked, from_diffusers
from bench.baselines.rival import Knobs, Rival
from generators.contract import Generator

# No value is below the least change that a network makes, so 0 evaluates all.
THRESHOLDS = (0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0)


def knobs(generator: Generator) -> Knobs:
    """threshold: of the relative change of the first block's residual since the last evaluation."""
    return {"threshold": THRESHOLDS}


def wrap(generator: Generator, threshold: float) -> Generator:
    """The generator with diffusers' hooks."""
    config = from_diffusers("FirstBlockCacheConfig")(threshold=threshold)
    return Hooked(generator, lambda transformer: transformer.enable_cache(config))


RIVAL = Rival(
    "first-block-cache", "diffusers' FirstBlockCacheConfig, after ParaAttention; Apache-2.0", knobs, wrap,
    inside=True,
)  # fmt: skip
