"""UniAnimate-DiT: Wan2.1-I2V-14B with an adapter; tokens of skeletons are added to those of the latents."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engines.spec import Cadence, ComponentSpec, TensorSpec
from generators.contract import Engines
from generators.pieces import gathered
from generators.wan.config import VAE_STRIDE_T
from generators.wan.frame_groups import groups
from generators.wan.generator import Wan, known
from generators.wan.settings import BlendSettings
from generators.windows import OverlapWindows

if TYPE_CHECKING:
    import torch

HALO = 2  # latent frames at either side that the pose network's features depend on: 7 frames of the video


@dataclass(frozen=True)
class UniAnimateSettings(BlendSettings):
    """The settings, by default upstream's. ValueError: windows share less than private frames replace."""

    guidance: float = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overlap < 2 * HALO:
            raise ValueError(f"overlap: must be {2 * HALO} latent frames or more, is {self.overlap}")


@dataclass(frozen=True)
class PrivateStarts(OverlapWindows):
    """The rule in which every window begins with the given picture, so later ones have private first frames.

    These see the conditions of the frames whose place they take, which the window before shows.
    """

    private: int = HALO

    def condition_indices(self, frames: int) -> np.ndarray:
        """List the clip's own latent frames, then each later window's private ones."""
        own = super().condition_indices(frames)
        return np.concatenate([own, *(place[: self.private] for place in super().window_indices(frames)[1:])])

    def window_indices(self, frames: int) -> list[np.ndarray]:
        """List each window's (length,) indices among the sampled latent frames."""
        first, *later = super().window_indices(frames)
        end, mine = len(super().condition_indices(frames)), np.arange(self.private)
        return [first] + [
            np.concatenate([end + number * self.private + mine, place[self.private :]])
            for number, place in enumerate(later)
        ]


class UniAnimate(Wan):
    """UniAnimate-DiT. Upstream draws private frames' noise unseeded: only clips of one window can be equal.

    The picture's own skeleton is not asked for: the video's first one stands for it.
    """

    name = "wan-unianimate"
    Settings = UniAnimateSettings
    network_maker, denoiser = "unianimate_network", "UniAnimate"
    channels = 36
    adapted = True

    def _windows(self) -> OverlapWindows:
        return PrivateStarts(self.settings.length, self.settings.overlap, VAE_STRIDE_T)

    def condition(
        self, engines: Engines, chunks: Iterable[np.ndarray], image: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Give pose (1, dim, F, h/2, w/2), first (1, 20, F of a window, h, w), image_keys, image_values."""
        return gathered(self.condition_pieces(engines, chunks, image), self.frame_axis)

    def condition_pieces(
        self, engines: Engines, chunks: Iterable[np.ndarray], image: np.ndarray
    ) -> Iterator[dict[str, np.ndarray]]:
        """Compute the same, the pose by windows."""
        length = self.settings.length
        fours = _fours(groups(chunks, length))
        start = next(fours)
        first = self.encode(engines, [*known([image]), *self.nothing(length - 1)])
        mask = np.zeros_like(first, shape=(1, VAE_STRIDE_T, *first.shape[2:]))
        mask[:, :, 0] = 1
        posed = engines["reference_pose"](pixels=start[:1])["features"]
        once = {"first": np.concatenate([mask, first], 1) + posed, **self.image_kv(engines, image)}
        for pose in self._tokens(engines, start, fours):
            yield {"pose": pose, **once}
            once = {}

    def _tokens(
        self, engines: Engines, start: np.ndarray, fours: Iterator[np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Compute tokens of all skeletons, window by window, without those that its cuts touch."""
        length, window = self.settings.length, deque([start])
        begun = fresh = 0
        for group in fours:
            window.append(group)
            fresh += begun
            if len(window) > length:
                window.popleft()
            if len(window) == length and (not begun or fresh == length - 2 * HALO):
                found = self._stretch(engines, window)
                yield found[:, :, HALO * begun : length - HALO]
                begun, fresh = 1, 0
        if fresh:
            found = self._stretch(engines, window)
        yield found[:, :, length - HALO - fresh :]

    def _stretch(self, engines: Engines, window: Iterable[np.ndarray]) -> np.ndarray:
        return engines["pose"](pixels=np.concatenate(list(window)))["features"]

    def _own(self) -> tuple[ComponentSpec, ...]:
        frames, (width, height) = self.settings.length, self.size
        extra = self.channels - self.vae.z_dim
        seen = TensorSpec("pixels", (1, height, width, 3), "uint8")
        all_seen = TensorSpec("pixels", (VAE_STRIDE_T * frames, height, width, 3), "uint8")
        tokens = (1, self.network.dim, frames, *self.token_size)
        added = TensorSpec("features", (1, extra, 1, *self.latent_size))
        first = TensorSpec("first", (1, extra, frames, *self.latent_size))
        return (
            ComponentSpec("reference_pose", Cadence.REQUEST, (seen,), (added,)),
            ComponentSpec("pose", Cadence.WINDOW, (all_seen,), (TensorSpec("features", tokens),)),
            self._denoise(frames, TensorSpec("pose", tokens), first),
        )

    def build(self, component: str) -> torch.nn.Module:
        """Build the component with the weights of base model and adapter."""
        from generators.wan.conditioning import PoseTokens, ReferencePose

        if component == "pose":
            return PoseTokens(self._loaded().dwpose_embedding).eval()
        if component == "reference_pose":
            return ReferencePose(self._loaded().randomref_embedding_pose).eval()
        return super().build(component)


def _fours(groups: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Group four by four; the first frame stands for the three that are missing before it."""
    for group in groups:
        yield group if len(group) == VAE_STRIDE_T else np.repeat(group, VAE_STRIDE_T, 0)
