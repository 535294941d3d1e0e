"""SeaCache of diffusers: skips while filtered latents have hardly changed, with extrapolated residuals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from generators.contract import Generator
from pipeline.caches.network_hooks import hooked
from pipeline.caches.technique import Technique
from pipeline.window_denoiser import OpenDenoiser

if TYPE_CHECKING:
    import torch

THRESHOLDS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0)


def noisy(module: torch.nn.Module, args: tuple, kwargs: dict) -> list[torch.Tensor]:
    """The part of a transformer's input that becomes the video: the first of its channels.

    The others are conditions, which SeaCache's own text says to leave out. That the presenter has its
    reference picture as a frame before all others changes nothing: it is the same at each step.
    """
    found = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
    return list(found[:, : module.config.out_channels].unbind(0))


def apply(generator: Generator, skips: int, threshold: float) -> OpenDenoiser:
    """Attach diffusers' hooks; the first and the last step are evaluated, as by default.

    TechniqueError: the denoiser does not call the network's forward, whose input they read.
    """
    settings = {"threshold": threshold, "max_consecutive_cached": skips, "raw_vision_callback": noisy}
    return hooked(generator, "SeaCacheConfig", lambda _: settings, forward="seacache")


# skips: at most in a row, where diffusers' own is 2; threshold: of the accumulated relative change.
TECHNIQUE = Technique(
    "seacache",
    "diffusers' SeaCacheConfig, after arXiv 2602.18993; Apache-2.0",
    {"skips": (1, 2, 3, 4, 6), "threshold": THRESHOLDS},
    apply,
    inside=True,
)
