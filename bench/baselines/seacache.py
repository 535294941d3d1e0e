"""SeaCache of diffusers: skips while filtered latents have hardly changed, with extrapolated residuals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.baselines.hooked import Hooked, from_diffusers
from bench.baselines.rival import Knobs, Rival
from generators.contract import Generator

if TYPE_CHECKING:
    import torch

THRESHOLDS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0)


def knobs(generator: Generator) -> Knobs:
    """skips: at most in a row (diffusers' own is 2); threshold: of the accumulated relative change."""
    return {"skips": (1, 2, 3, 4, 6), "threshold": THRESHOLDS}


def noisy(module: torch.nn.Module, args: tuple, kwargs: dict) -> list[torch.Tensor]:
    """Of a transformer's input, the part that becomes the video: the first of its channels.

    The others are conditions, which SeaCache's own text says to leave out. That the presenter has its
    reference picture as a frame before all others changes nothing: it is the same at each step.
    """
    found = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
    return list(found[:, : module.config.out_channels].unbind(0))


def wrap(generator: Generator, skips: int, threshold: float) -> Generator:
    """The generator with diffusers' hooks; the first and the last step are evaluated, as by default."""
    config = from_diffusers("SeaCacheConfig")(
        threshold=threshold, max_consecutive_cached=int(skips), raw_vision_callback=noisy
    )
    return Hooked(generator, lambda transformer: transformer.enable_cache(config))


RIVAL = Rival(
    "seacache", "diffusers' SeaCacheConfig, after arXiv 2602.18993; Apache-2.0", knobs, wrap, inside=True
)
