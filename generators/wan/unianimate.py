"""UniAnimate-DiT: Wan2.1-I2V-14B with an adapter; tokens of skeletons are added to those of the latents."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from engines.spec import Cadence, ComponentSpec, TensorSpec
from generators.contract import Engines
from generators.pieces import gathered
from generators.wan.config import PATCH, VAE_STRIDE_T
from generators.wan.frame_groups import groups
from generators.wan.generator import Picture, Wan, known
from generators.wan.settings import BlendSettings
from generators.windows import OverlapWindows

if TYPE_CHECKING:
    import torch

PRIVATE = 2  # latent frames at a later window's start that are its own, as upstream


@dataclass(frozen=True)
class UniAnimateSettings(BlendSettings):
    """The settings, by default upstream's. ValueError: windows share less than private frames replace.

    tile_height, tile_width: of the tiles that are decoded, in latents, an even number; 0: the whole.
    """

    guidance: float = 1.5
    half: bool = True
    tile_height: int = 30
    tile_width: int = 52

    half_times = True

    def __post_init__(self) -> None:
        super().__post_init__()
        PrivateStarts(self.length, self.overlap, VAE_STRIDE_T)
        for name in ("tile_height", "tile_width"):
            if (value := getattr(self, name)) < 0 or value % 2:
                raise ValueError(f"{name}: must be an even number of latents, or 0, is {value}")

    @property
    def tile(self) -> tuple[int, int]:
        """The height and width of a tile."""
        return self.tile_height, self.tile_width


@dataclass(frozen=True)
class PrivateStarts(OverlapWindows):
    """The rule in which every window begins with the given picture, so later ones have private first frames.

    Where windows overlap, their predictions are averaged. Each window's skeletons are embedded on their own,
    so the conditions of a clip are those of one window after the other. ValueError: windows share no more
    than private frames replace, which would leave frames in no window.
    """

    filled: bool = True
    even: bool = True

    fixed_overlap = True  # by it follows with which frame each window's skeletons begin

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overlap <= PRIVATE:
            raise ValueError(
                f"windows whose first {PRIVATE} latent frames are their own need {PRIVATE} < overlap < "
                f"length, got overlap {self.overlap} of {self.length}"
            )

    def condition_indices(self, frames: int) -> np.ndarray:
        """List the clip's own latent frames, then those whose place each later window's private ones take."""
        own = super().condition_indices(frames)
        return np.concatenate([own, *(place[:PRIVATE] for place in super().window_indices(frames)[1:])])

    def window_indices(self, frames: int) -> list[np.ndarray]:
        """List each window's (length,) indices among the sampled latent frames."""
        first, *later = super().window_indices(frames)
        end, mine = len(super().condition_indices(frames)), np.arange(PRIVATE)
        return [first] + [
            np.concatenate([end + number * PRIVATE + mine, place[PRIVATE:]])
            for number, place in enumerate(later)
        ]

    def seen(self, place: np.ndarray) -> np.ndarray:
        """Give the indices of a window's conditions; its last frame, never a private one, tells its place."""
        number = -((self.length - 1 - place[-1]) // (self.length - self.overlap))
        return number * self.length + np.arange(self.length)

    def conditions(self, frames: int) -> int:
        """Count the conditions of all windows of a clip."""
        return self.length * self.count(frames)


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
        self, engines: Engines, chunks: Iterable[np.ndarray], image: np.ndarray, *, original: Picture = None
    ) -> dict[str, np.ndarray]:
        """Give pose (1, dim, all windows' F, h/2, w/2), first (1, 20, f, h, w), image_keys, image_values."""
        return gathered(self.condition_pieces(engines, chunks, image, original=original), self.frame_axis)

    def condition_pieces(
        self, engines: Engines, chunks: Iterable[np.ndarray], image: np.ndarray, *, original: Picture = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Compute the same, the pose by windows."""
        length, image = self.settings.length, self.picture(image, original)
        chunks = iter(chunks)
        start = next(chunks)
        first = self.encode(engines, [*known([image]), *self.nothing(length - 1)])
        mask = np.zeros_like(first, shape=(1, VAE_STRIDE_T, *first.shape[2:]))
        mask[:, :, 0] = 1
        posed = engines["reference_pose"](pixels=start[:1])["features"]
        once = {"first": np.concatenate([mask, first], 1) + posed, **self.image_kv(engines, image)}
        for pose in self._tokens(engines, chain([start], chunks)):
            yield {"pose": pose, **once}
            once = {}

    def _tokens(self, engines: Engines, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Embed the skeletons of one window after the other, each as if the clip began with its first."""
        length, stride = self.windows.length, self.windows.length - self.windows.overlap
        window: deque[np.ndarray] = deque(maxlen=length)
        for number, group in enumerate(groups(chunks, length), 1):
            window.append(group)
            fresh = (number - length) % stride if number >= length else 1
            if not fresh:
                yield self._embedded(engines, window)
        if fresh:
            yield self._embedded(engines, window)

    def _embedded(self, engines: Engines, window: Iterable[np.ndarray]) -> np.ndarray:
        first, *others = window
        start = np.repeat(first[-1:], VAE_STRIDE_T, 0)
        return engines["pose"](pixels=np.concatenate([start, *others]))["features"]

    def _own(self) -> tuple[ComponentSpec, ...]:
        frames, (width, height) = self.settings.length, self.size
        extra = self.channels - self.vae.z_dim
        seen = TensorSpec("pixels", (1, height, width, 3), "uint8")
        all_seen = TensorSpec("pixels", (VAE_STRIDE_T * frames, height, width, 3), "uint8")
        tokens = (1, self.network.dim, frames, *(side // PATCH for side in self.latent_size))
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
