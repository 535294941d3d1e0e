"""TaylorSeer of diffusers: between evaluations a Taylor series foretells what the last layer gives.

Liu et al., 2025; their own code is GPL-3 and not used here. This is diffusers' lite mode, which skips whole
blocks. Its other mode finds nothing to attach to in Wan's network by default: it asks for modules whose whole
name matches "^blocks.*attn", and they are named blocks.0.attn1 (diffusers 0.42.1).
"""

from __future__ import annotations

from bench.baselines.hooked import Hooked, from_diffusers
from bench.baselines.rival import Knobs, Rival
from generators.contract import Generator


def knobs(generator: Generator) -> Knobs:
    """order: of the series; interval: steps from one evaluation to the next, 1 evaluates all."""
    return {"order": (1, 2, 0), "interval": tuple(range(1, min(generator.scheduler.steps, 10) + 1))}


def wrap(generator: Generator, order: int, interval: int) -> Generator:
    """The generator with diffusers' hooks; evaluated before them as often as the series has terms."""
    import torch

    config = from_diffusers("TaylorSeerCacheConfig")(
        cache_interval=int(interval),
        disable_cache_before_step=int(order) + 1,
        max_order=int(order),
        taylor_factors_dtype=torch.float32,
        use_lite_mode=True,
    )
    return Hooked(generator, lambda transformer: transformer.enable_cache(config))


RIVAL = Rival(
    "taylorseer", "diffusers' TaylorSeerCacheConfig, after arXiv 2503.06923; Apache-2.0", knobs, wrap,
    inside=True,
)  # fmt: skip
