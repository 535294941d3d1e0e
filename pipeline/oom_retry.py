"""What is done when memory runs out: the same work again, fewer frames at a time, never without a word."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import numpy as np

from generators.contract import Engines, Generator


class OomRetry:
    """A generator that halves its chunk while encoding or decoding ends in MemoryError, down to one frame.

    In all else it is the generator that it is given, for one request. The frames that come out are the same
    but for the last bits of sums, a level at most: a stage begins anew, and decoding leaves out what it has
    given already. rungs: by the stage where memory ran out, the frames at work at once from then on. notes: a
    sentence on each rung.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self.chunk_by_stage: dict[str, int] = {}
        self.notes: list[str] = []

    def __getattr__(self, name: str) -> object:
        """What it does not answer itself."""
        return getattr(self._generator, name)

    def condition(
        self, engines: Engines, chunks: Iterable[np.ndarray], image: np.ndarray
    ) -> dict[str, np.ndarray]:
        """As the generator's. chunks can be iterated again, by what is this generator's chunk then."""
        while True:
            try:
                return self._generator.condition(engines, chunks, image)
            except MemoryError as error:
                why = self._why(error)
            # Out of the handler, for the error holds what the failed work had in memory.
            self._step_down("condition", why)

    def decode(self, engines: Engines, latents: np.ndarray) -> Iterator[np.ndarray]:
        """As the generator's."""
        given = 0
        while True:
            try:
                for pixels in without_first(self._generator.decode(engines, latents), given):
                    given += len(pixels)
                    yield pixels
                return
            except MemoryError as error:
                why = self._why(error)
            self._step_down("decode", why)

    def _why(self, error: MemoryError) -> str:
        """What it said; the error again if there is no rung below."""
        if self._generator.chunk == 1:
            raise error
        return str(error) or "no reason given"

    def _step_down(self, stage: str, why: str) -> None:
        self._generator = copy.copy(self._generator)
        self._generator.chunk //= 2
        self.chunk_by_stage[stage] = self._generator.chunk
        again = f"done again {self._generator.chunk} frames at a time"
        self.notes.append(f"memory ran out in {stage} ({why}); {again}")


def without_first(chunks: Iterable[np.ndarray], frames: int) -> Iterator[np.ndarray]:
    """Chunks after that many frames."""
    for chunk in chunks:
        if len(chunk) > frames:
            yield chunk[frames:]
        frames = max(0, frames - len(chunk))
