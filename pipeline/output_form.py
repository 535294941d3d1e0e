"""Give a request's video its size and rate, where a generator has others than its own and the skeleton's."""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import islice

import numpy as np

from engines.errors import InputError, reading
from engines.spec import ShapeError
from generators.contract import Generator
from generators.resize import Fit
from pipeline.batch.dataset import Request
from pipeline.columns import cells
from pipeline.video.framing import Framing
from pipeline.video.image import MAX_PIXELS
from pipeline.video.reader import VideoReader
from pipeline.video.times import RATES

Size = tuple[int, int]  # width, height


def output_form(
    request: Request, generator: Generator, video: Size, picture: Size, fps: Fraction
) -> tuple[Generator, Fraction]:
    """Return the generator at the size that a request's video gets, and that video's frames per second.

    They are its own size and the skeleton's rate, unless it has output_size or output_fps. video, picture,
    fps: of the inputs. InputError: what these say is no size or rate.
    """
    size = chosen(request, generator, "output_size", video, picture) or generator.size
    rate = chosen(request, generator, "output_fps", fps)
    sized = at_size(generator, check_size(generator, size))
    return sized, fps if rate is None else check_rate(generator, rate)


def chosen(request: Request, generator: Generator, member: str, *given: object) -> object:
    """Return what a generator's optional member says of a request's video; None if it has none."""
    if not hasattr(generator, member):
        return None
    columns = cells(request, generator, member)
    try:
        return getattr(generator, member)(*given, **columns)
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"{request.id}: {generator.name}.{member} cannot use {columns}: {error}") from error


def check_size(generator: Generator, size: object) -> Size:
    """Return a size that a file can have. InputError: it is none."""
    if tuple(size) == tuple(generator.size):
        return generator.size
    if len(size) != 2 or not all(int(side) == side and side >= 2 and side % 2 == 0 for side in size):
        raise InputError(f"{generator.name}: output_size gives {size}; an even width and height are needed")
    if math.prod(size) > MAX_PIXELS:
        raise InputError(f"{generator.name}: output_size gives {size}, above {MAX_PIXELS} pixels")
    return int(size[0]), int(size[1])


def check_rate(generator: Generator, rate: object) -> Fraction:
    """Return a rate that a file can have, to a denominator of 1001. InputError: it is none."""
    if not RATES[0] <= rate <= RATES[1]:
        raise InputError(
            f"{generator.name}: output_fps gives {rate}; {RATES[0]} to {RATES[1]} can be written"
        )
    return Fraction(rate).limit_denominator(1001)


def at_size(generator: Generator, size: Size) -> Generator:
    """Return a generator that makes videos of that size: itself, or a copy."""
    if size == generator.size:
        return generator
    sized = copy.copy(generator)
    sized.size = size
    if isinstance(sized.fit, Fit):
        sized.fit = replace(sized.fit, size=size)
    return sized


@contextmanager
def taking_size(size: Size, own: Size) -> Iterator[None]:
    """Make a network's refusal of a size that is not the generator's own an InputError, inside a block."""
    try:
        yield
    except ShapeError as error:
        if size == own:
            raise
        raise InputError(
            f"the video would be {size[0]} x {size[1]}, and {error}: networks take other sizes than "
            f"{own[0]} x {own[1]} only where components name their sides, with a DimRange"
        ) from error


class SkeletonChunks:
    """A skeleton video at the generator's size, in chunks of generator.chunk frames.

    fps: the rate that it is brought to; None: its own. announced: number of frames by the file's packets.
    frames: of those given since the last start. waited: seconds spent on reading, over all iterations.
    ahead: seconds spent before them. framing: what fitting does to the frames, by the first of each chunk.
    """

    def __init__(self, reader: VideoReader, generator: Generator, fps: Fraction | None = None) -> None:
        self._reader, self._generator, self._fps = reader, generator, fps or reader.fps
        self.announced = math.ceil(reader.info.ends(self._fps)[-1])
        self.frames, self.waited, self.ahead = 0, 0.0, 0.0
        self.framing = Framing(generator.fit, (reader.width, reader.height))
        self._begun: Iterator[np.ndarray] | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        """Give the chunks (n, H, W, 3) uint8, from the first one again."""
        source, self._begun, self.frames = self._begun or self._chunks(), None, 0
        while True:
            start = time.perf_counter()
            chunk = next(source, None)
            self.waited += time.perf_counter() - start
            if chunk is None:
                return
            self.frames += len(chunk)
            yield chunk

    def read_ahead(self, most: int, stopped: Callable[[], bool]) -> None:
        """Read chunks of about `most` bytes, or until stopped; the next iteration goes on from there."""
        start, source, held = time.perf_counter(), self._chunks(), deque()
        while sum(chunk.nbytes for chunk in held) < most and not stopped():
            chunk = next(source, None)
            if chunk is None:
                break
            held.append(chunk)
        self._begun, self.ahead = _in_turn(held, source), time.perf_counter() - start

    def _chunks(self) -> Iterator[np.ndarray]:
        source = self._frames()
        while True:
            chunk = []
            for frame in islice(source, self._generator.chunk):
                if not chunk:
                    self.framing.look(frame)
                chunk.append(self._generator.fit(frame[None]))
            if not chunk:
                return
            yield np.concatenate(chunk)

    def _frames(self) -> Iterator[np.ndarray]:
        with reading(self._reader.path):
            yield from self._reader.at_rate(self._fps)


def _in_turn(held: deque[np.ndarray], rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Give what is held, and let go of it, then the rest."""
    while held:
        yield held.popleft()
    yield from rest
