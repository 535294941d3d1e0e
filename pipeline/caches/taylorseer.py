"""TaylorSeer of diffusers: between evaluations a Taylor series foretells what the last layer gives.

Liu et al., 2025; their own code is GPL-3 and not used here. This is diffusers' lite mode, which skips whole
blocks. Its other mode finds nothing to attach to in Wan's network by default: it asks for modules whose whole
name matches "^blocks.*attn", and they are named blocks.0.attn1 (diffusers 0.42.1).
"""

from __future__ import annotations

from generators.contract import Generator
from pipeline.caches.network_hooks import hooked
from pipeline.caches.technique import Technique, up_to_steps
from pipeline.window_denoiser import OpenDenoiser


def apply(generator: Generator, order: int, interval: int) -> OpenDenoiser:
    """Attach diffusers' hooks; before they skip, as many steps are evaluated as the series has terms."""

    def settings(_: object) -> dict[str, object]:
        import torch

        return {
            "cache_interval": interval,
            "disable_cache_before_step": order + 1,
            "max_order": order,
            "taylor_factors_dtype": torch.float32,
            "use_lite_mode": True,
        }

    return hooked(generator, "TaylorSeerCacheConfig", settings)


# order: of the series; interval: steps from one evaluation to the next, 1 evaluates all.
TECHNIQUE = Technique(
    "taylorseer",
    "diffusers' TaylorSeerCacheConfig, after arXiv 2503.06923; Apache-2.0",
    {"order": (1, 2, 0), "interval": up_to_steps(10)},
    apply,
    inside=True,
)
