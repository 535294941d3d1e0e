"""Evaluate windows and branches of one clip, one after the other, on one engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from engines.spec import Engine
from generators.contract import Constants, Generator

Part = tuple[np.ndarray, bool]  # of a step: a window's places, and whether the branch is the conditional one


class Clip:
    """What the denoiser answers for parts of a clip.

    constants: of the clip. sources: for each latent frame whose constants it sees, as a window rule has them.
    """

    def __init__(
        self, generator: Generator, engine: Engine, constants: Constants, sources: np.ndarray
    ) -> None:
        self._generator, self._engine = generator, engine
        self._constants, self._sources = constants, sources
        self._cut: tuple[bytes, dict[str, np.ndarray]] | None = None  # both branches see the same

    def __call__(self, latents: np.ndarray, step: int, parts: Sequence[Part]) -> Iterator[np.ndarray]:
        """The prediction for each part, in order; latents: of the clip at that step."""
        generator = self._generator
        for place, conditional in parts:
            window = latents.take(place, generator.frame_axis)
            yield generator.denoise(self._engine, window, step, self._seen(place), conditional)

    def _seen(self, place: np.ndarray) -> dict[str, np.ndarray]:
        """The constants of one window; beyond their last frame that is repeated."""
        generator, source = self._generator, self._sources[place]
        if self._cut is not None and self._cut[0] == place.tobytes():
            return self._cut[1]
        self._cut = None  # a window's constants may be large: one at a time
        seen = {
            name: array.take(np.minimum(source, array.shape[generator.frame_axis] - 1), generator.frame_axis)
            if name in generator.per_frame
            else array
            for name, array in self._constants.items()
        }
        self._cut = place.tobytes(), seen
        return seen
