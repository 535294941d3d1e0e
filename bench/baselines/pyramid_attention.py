"""Pyramid attention broadcast of diffusers: attention is computed at every n-th step, the rest at each.

Zhao et al., 2024. diffusers keeps one state a layer, as if there were one window with both
branches in a batch; see hooked.Swapped.
"""

from __future__ import annotations

from bench.baselines.hooked import Swapped, from_diffusers
from bench.baselines.rival import Knobs, Rival
from generators.contract import Generator


def knobs(generator: Generator) -> Knobs:
    """until: the greatest time, of 1000, at which attention is kept; every: 1 computes it at each step."""
    return {"until": (800, 600, 400, 1001), "every": tuple(range(1, min(generator.scheduler.steps, 10) + 1))}


def wrap(generator: Generator, until: float, every: int) -> Generator:
    """The generator with diffusers' hooks on both kinds of attention, from time 100, its default."""
    wrapped = Swapped(generator, lambda transformer: transformer.enable_cache(config))
    config = from_diffusers("PyramidAttentionBroadcastConfig")(
        spatial_attention_block_skip_range=int(every),
        cross_attention_block_skip_range=int(every),
        spatial_attention_timestep_skip_range=(100, until),
        cross_attention_timestep_skip_range=(100, until),
        current_timestep_callback=lambda: wrapped.time,
    )
    return wrapped


RIVAL = Rival(
    "pyramid-attention", "diffusers' PyramidAttentionBroadcastConfig, after arXiv 2408.12588; Apache-2.0",
    knobs, wrap, inside=True,
)  # fmt: skip
