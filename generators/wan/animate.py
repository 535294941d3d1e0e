"""Wan2.2-Animate-14B: pose latents as tokens; each window goes on from the last frames of the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engines.spec import ComponentSpec, TensorSpec
from generators.contract import Constants, Engines
from generators.resize import letterbox
from generators.wan.config import VAE_STRIDE_T, AnimateSize
from generators.wan.frame_groups import groups, mirrored
from generators.wan.generator import Picture, Wan, known
from generators.wan.settings import Settings
from generators.windows import ContinuationWindows

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class AnimateSettings(Settings):
    """The settings, by default upstream's. keep: frames taken over from the window before, 1 or 5."""

    width: int = 720
    height: int = 1280
    frames: int = 77
    keep: int = 1
    steps: int = 20
    sampler: str = "unipc"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep % VAE_STRIDE_T != 1 or not 0 < self.keep < self.frames:
            raise ValueError(f"keep: must be 1, 5, 9 ... and less than frames, is {self.keep}")


class Animate(Wan):
    """Wan2.2-Animate. A window samples one latent frame more, which is the picture, and is not shown.

    A face video is not asked for: the face branch sees black, as the model's unconditional branch does. The
    frames taken over are to half a level here; upstream they are in bfloat16, which is to half or a quarter.
    """

    name = "wan-animate"
    Settings = AnimateSettings
    network_maker, denoiser = "animate_network", "Animate"
    Size = AnimateSize
    channels = 36
    per_frame = frozenset()

    def _windows(self) -> ContinuationWindows:
        return ContinuationWindows(self.settings.length + 1, self.settings.keep, VAE_STRIDE_T, extra=1)

    def fit(self, pixels: np.ndarray) -> np.ndarray:
        """Scale pictures to lie within the output's size, on black, as upstream does."""
        return letterbox(pixels, *self.size)

    def condition(
        self, engines: Engines, chunks: Iterable[np.ndarray], image: np.ndarray, *, original: Picture = None
    ) -> dict[str, np.ndarray]:
        """Give pose (1, 16, F of all windows, h, w), reference (1, 20, 1, h, w), image_keys, image_values."""
        reference = self.encode(engines, known([image]))
        mask = np.ones_like(reference, shape=(1, VAE_STRIDE_T, *reference.shape[2:]))
        clips = mirrored(chunks, self.settings.frames, self.settings.keep)
        pose = np.concatenate([self.encode(engines, known(groups([clip]))) for clip in clips], 2)
        return {
            "pose": pose,
            "reference": np.concatenate([mask, reference], 1),
            **self.image_kv(engines, image),
        }

    def carry(
        self, engines: Engines, constants: Constants, window: int, tail: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """Make the window's pose, and in `begin` the picture and what is known of its first frames."""
        length = self.settings.length
        blank = np.zeros((1, self.size[1], self.size[0], 3), np.uint8)
        given = [(blank, 0.0)] if tail is None else [*known(groups([tail]), 2.0)]
        latents = self.encode(engines, [*given, *self.nothing(length - len(given))])
        mask = np.zeros_like(latents, shape=(1, VAE_STRIDE_T, *latents.shape[2:]))
        if tail is not None:
            mask[:, :, : len(given)] = 1
        begin = np.concatenate([constants["reference"], np.concatenate([mask, latents], 1)], 2)
        own = constants["pose"][:, :, window * length : (window + 1) * length]
        seen = {name: constants[name] for name in ("image_keys", "image_values")}
        return {"pose": own, "begin": begin, **seen}

    def noise(self, frames: int, seed: int) -> np.ndarray:
        """Draw (1, 16, frames, h, w), window after window."""
        shape, draw = (1, self.vae.z_dim, self.windows.length, *self.latent_size), self.normal(seed)
        return np.concatenate([draw(shape) for _ in range(frames // self.windows.length)], 2)

    def decode(self, engines: Engines, latents: np.ndarray) -> Iterator[np.ndarray]:
        """Decode one window, without the picture's frame."""
        return super().decode(engines, latents[:, :, 1:])

    def _own(self) -> tuple[ComponentSpec, ...]:
        length, channels = self.settings.length, self.vae.z_dim
        pose = TensorSpec("pose", (1, channels, length, *self.latent_size))
        begin = TensorSpec("begin", (1, self.channels - channels, length + 1, *self.latent_size))
        return (self._denoise(length + 1, pose, begin),)

    def _denoiser(self, network: torch.nn.Module, prompts: torch.Tensor) -> torch.nn.Module:
        from generators.wan import transformer

        return transformer.Animate(network, prompts, self.settings.frames)
