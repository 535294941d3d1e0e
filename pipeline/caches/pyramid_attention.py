"""Pyramid attention broadcast of diffusers: attention is computed at every n-th step, the rest at each.

Zhao et al., 2024. diffusers keeps one state a layer, as if there were one window with both branches in a
batch; see network_hooks.SwappingDenoiser.
"""

from __future__ import annotations

from generators.contract import Generator
from pipeline.caches.network_hooks import SwappingDenoiser, hooked
from pipeline.caches.technique import Technique, up_to_steps
from pipeline.window_denoiser import OpenDenoiser


def apply(generator: Generator, until: float, every: int) -> OpenDenoiser:
    """Attach diffusers' hooks to both kinds of attention, from time 100, its default."""
    settings = {
        "spatial_attention_block_skip_range": every,
        "cross_attention_block_skip_range": every,
        "spatial_attention_timestep_skip_range": (100, until),
        "cross_attention_timestep_skip_range": (100, until),
    }
    return hooked(
        generator,
        "PyramidAttentionBroadcastConfig",
        lambda hooks: {**settings, "current_timestep_callback": lambda: hooks.time},
        SwappingDenoiser,
    )


# until: the greatest time, of 1000, at which attention is kept; every: 1 computes it at each step.
TECHNIQUE = Technique(
    "pyramid-attention",
    "diffusers' PyramidAttentionBroadcastConfig, after arXiv 2408.12588; Apache-2.0",
    {"until": (800.0, 600.0, 400.0, 1001.0), "every": up_to_steps(10)},
    apply,
    inside=True,
)
