"""Wan2.1-Fun-V1.1-Control, 1.3B and 14B: pose latents beside the noisy ones, the picture as a first frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from engines.spec import ComponentSpec, TensorSpec
from generators.contract import Engines
from generators.pieces import gathered
from generators.resize import opencv
from generators.wan.config import VAE_STRIDE_T
from generators.wan.frame_groups import groups
from generators.wan.generator import Picture, Wan, known
from generators.wan.settings import BlendSettings
from generators.windows import OverlapWindows


@dataclass(frozen=True)
class FunControlSettings(BlendSettings):
    """The settings, by default VideoX-Fun's, whose sampler takes its config's shift, not its script's.

    fps: frames are left out until about so many a second are left, upstream until 16; 0: none.
    """

    shift: float = 5.0
    guidance: float = 6.0
    sampler: str = "flow-diffusers"
    half: bool = True
    fps: int = 0


class FunControl(Wan):
    """Wan2.1-Fun-Control. Clips longer than a window are blended: upstream has no rule for them."""

    name = "wan-fun-control"
    Settings = FunControlSettings
    network_maker, denoiser = "fun_control_network", "FunControl"
    channels = 48

    def _windows(self) -> OverlapWindows:
        return OverlapWindows(self.settings.length, self.settings.overlap, VAE_STRIDE_T, filled=True)

    def output_fps(self, fps: Fraction) -> Fraction:
        """Leave frames out as upstream does if asked to: every one of fps // settings.fps."""
        return fps / max(1, int(fps // self.settings.fps)) if self.settings.fps else fps

    def fit(self, pixels: np.ndarray) -> np.ndarray:
        """Stretch skeletons to the output's size, as upstream does with OpenCV."""
        return opencv(pixels, *self.size)

    def condition(
        self, engines: Engines, chunks: Iterable[np.ndarray], image: np.ndarray, *, original: Picture = None
    ) -> dict[str, np.ndarray]:
        """Compute pose (1, 16, F, h, w), reference (1, 16, h, w), image_keys and image_values."""
        return gathered(self.condition_pieces(engines, chunks, image, original=original), self.frame_axis)

    def condition_pieces(
        self, engines: Engines, chunks: Iterable[np.ndarray], image: np.ndarray, *, original: Picture = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Compute the same, the pose by latent frames."""
        reference = self.encode(engines, known([self.picture(image, original)]))[:, :, 0]
        seen = image if original is None else original  # upstream shows CLIP the picture as it is
        once = {"reference": reference, **self.image_kv(engines, seen)}
        for pose in self.encode_pieces(engines, known(groups(chunks, self.settings.length))):
            yield {"pose": pose, **once}
            once = {}

    def _own(self) -> tuple[ComponentSpec, ...]:
        frames, channels = self.settings.length, self.vae.z_dim
        pose = TensorSpec("pose", (1, channels, frames, *self.latent_size))
        return (self._denoise(frames, pose, TensorSpec("reference", (1, channels, *self.latent_size))),)
