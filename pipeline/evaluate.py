"""Evaluate windows and branches of one clip, one after the other, on one engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from engines.spec import Engine
from generators.contract import Constants, Generator
from generators.windows import cut

Part = tuple[int, bool]  # of a step: a window's first frame, and whether the branch is the conditional one


class Clip:
    """What the denoiser answers for parts of a clip; constants: of the clip, padded to its windows."""

    def __init__(self, generator: Generator, engine: Engine, constants: Constants) -> None:
        self._generator, self._engine, self._constants = generator, engine, constants

    def __call__(self, latents: np.ndarray, step: int, parts: Sequence[Part]) -> Iterator[np.ndarray]:
        """The prediction for each part, in order; latents: of the clip at that step."""
        generator = self._generator
        for start, conditional in parts:
            window = cut(latents.ndim, generator.frame_axis, start, generator.windows.length)
            seen = {
                name: array[window] if name in generator.per_frame else array
                for name, array in self._constants.items()
            }
            yield generator.denoise(self._engine, latents[window], step, seen, conditional)
