"""Repeat an encoding or decoding stage with fewer frames at a time when memory runs out, and note that."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import numpy as np

from engines.spare_memory import release
from generators.contract import Engines, Generator

STAGES = frozenset({"condition", "decode"})


class OomRetry:
    """A generator wrapper, for one request, that halves the chunk when a stage raises MemoryError.

    It goes down to one frame at a time, in stages that go by the chunk (see Generator.chunked); every other
    attribute is that of the wrapped generator. The frames stay the same but for the last bits of sums, one
    8-bit level at most: a stage begins anew, and decoding leaves out the frames it has given already.
    original: the wrapped generator. chunk_by_stage: for each stage where memory ran out, the chunk (frames at
    a time) from then on. notes: a sentence on each retry.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator = self.original = generator
        self.chunk_by_stage: dict[str, int] = {}
        self.notes: list[str] = []

    def __getattr__(self, name: str) -> object:
        """Return the wrapped generator's attribute."""
        return getattr(self._generator, name)

    def condition(
        self, engines: Engines, chunks: Iterable[np.ndarray], image: np.ndarray, **columns: object
    ) -> dict[str, np.ndarray]:
        """Return the generator's conditions, see Generator.condition.

        chunks: can be iterated again, and then gives chunks of this generator's new size.
        """
        while True:
            try:
                return self._generator.condition(engines, chunks, image, **columns)
            except MemoryError as error:
                why = self._why("condition", error)
            # Out of the handler, for the error holds what the failed work had in memory.
            self._step_down("condition", why)

    def decode(self, engines: Engines, latents: np.ndarray) -> Iterator[np.ndarray]:
        """Give the generator's pixels, see Generator.decode."""
        given = 0
        while True:
            try:
                for pixels in without_first(self._generator.decode(engines, latents), given):
                    given += len(pixels)
                    yield pixels
                return
            except MemoryError as error:
                why = self._why("decode", error)
            self._step_down("decode", why)

    def _why(self, stage: str, error: MemoryError) -> str:
        """Return the error's text; raise the error again if a smaller chunk would change nothing."""
        if self._generator.chunk == 1 or stage not in getattr(self._generator, "chunked", STAGES):
            raise error
        return str(error) or "no reason given"

    def _step_down(self, stage: str, why: str) -> None:
        release()  # of the larger chunk, for libraries that could not have it
        self._generator = copy.copy(self._generator)
        self._generator.chunk //= 2
        self.chunk_by_stage[stage] = self._generator.chunk
        again = f"done again {self._generator.chunk} frames at a time"
        self.notes.append(f"memory ran out in {stage} ({why}); {again}")


def without_first(chunks: Iterable[np.ndarray], frames: int) -> Iterator[np.ndarray]:
    """Give the chunks without their first `frames` frames."""
    for chunk in chunks:
        if len(chunk) > frames:
            yield chunk[frames:]
        frames = max(0, frames - len(chunk))
