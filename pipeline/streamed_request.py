"""Make one request's video piece by piece: its first frames are written before the last are read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from engines.errors import InputError
from generators.contract import Engines, Generator, GeneratorError, offers_streaming
from generators.windows import ContinuationWindows
from pipeline.recipe import BASELINE
from pipeline.request import Options, Sampling, StartProgress, check_finite
from pipeline.sampler import Sampler, first_frames
from pipeline.source import Source
from pipeline.stopwatch import Seconds
from pipeline.streaming import StreamedClip


class StreamedSampling(Sampling):
    """One request's run through the networks, which reads, samples and decodes as its pixels are asked for.

    What is in memory does not grow with the clip. InputError: the file has fewer frames than its packets.
    """

    def __init__(self, source: Source, generator: Generator, engines: Engines, seconds: Seconds) -> None:
        self._source, self._generator, self._engines, self._seconds = source, generator, engines, seconds
        self._frames, self._states, self._more, self._recipe = source.announced, [], 0, BASELINE
        self._chunks = iter(source)

    def pixels(self, seed: int, options: Options, start_progress: StartProgress) -> Iterator[np.ndarray]:
        """Give the video's pixels in chunks, the bytes of Sampling.pixels."""
        spent = Seconds()
        with self._sampler(options, start_progress) as sampler:
            latents = spent.of_each(self._latents(sampler, seed, spent), "denoise")
            decoded = self._generator.decode_pieces(self._engines, latents)
            yield from spent.of_each(first_frames(decoded, self._frames), "decode")
        self._account(spent.stages)
        if next(self._chunks, None) is not None or self._source.frames != self._frames:
            raise self._other_count()

    def _latents(self, sampler: Sampler, seed: int, spent: Seconds) -> Iterator[np.ndarray]:
        conditions = spent.of_each(self._conditions(), "condition")
        clip = StreamedClip(sampler, conditions, self._frames, seed)
        self._states.append(clip)
        yield from clip.latents()

    def _conditions(self) -> Iterator[dict[str, np.ndarray]]:
        source, generator = self._source, self._generator
        given = self._engines, self._chunks, source.image
        for piece in generator.condition_pieces(*given, **source.columns):
            check_finite(piece)
            yield piece
        for _ in self._chunks:  # to count the file's frames
            pass
        if source.frames == self._frames:
            raise GeneratorError(
                f"condition_pieces: the conditions end before the clip of {self._frames} frames does; let it "
                "encode all chunks, a last one not full too"
            )
        raise self._other_count()

    def _other_count(self) -> InputError:
        return InputError(
            f"{self._source.path}: has not the {self._frames} frames of its packets; leave --stream out"
        )

    def _account(self, spent: dict[str, float]) -> None:
        """Add each stage's own seconds: decoding asks for latents, these for conditions, these for frames."""
        inner = {"decode": spent["denoise"], "denoise": spent["condition"], "condition": self._source.waited}
        for stage, seconds in {**spent, "read": self._source.waited}.items():
            self._seconds.add(stage, seconds - inner.get(stage, 0.0))


def sampling_of(source: Source, generator: Generator, engines: Engines, seconds: Seconds) -> Sampling:
    """Return what streams a request, as far as its generator can.

    Windows that continue one another come one by one anyway. Where a generator does not make conditions and
    pixels piece by piece, or draws noise at its steps, the video is sampled at once, and a note says so.
    """
    given = source, generator, engines, seconds
    if isinstance(generator.windows, ContinuationWindows):
        return Sampling(*given)
    if offers_streaming(generator) and not getattr(generator.scheduler, "stochastic", False):
        return StreamedSampling(*given)
    generator.notes.append(f"{generator.name} does not make its frames piece by piece: they come at the end")
    return Sampling(*given)
