"""Open one request's inputs at its video's size and rate, and read them ahead of the video before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from threading import Event

import numpy as np

from engines.errors import InputError, reading
from generators.contract import Generator
from pipeline.batch.dataset import Request
from pipeline.columns import read_columns
from pipeline.oom_retry import OomRetry
from pipeline.output_form import SkeletonChunks, output_form
from pipeline.video.framing import Framing
from pipeline.video.image import read_image
from pipeline.video.reader import VideoReader
from pipeline.video.skeleton_check import SkeletonCheck

# Bytes of the next request's frames, at the generator's size, that may wait in memory; fewer of one that is
# streamed, since it reads its frames as it needs them.
MOST_AHEAD, MOST_AHEAD_STREAMED = 256 << 20, 8 << 20


@dataclass(frozen=True)
class Limits:
    """The largest inputs that are accepted; a file that is larger by its header is refused before decoding.

    frames: of a skeleton video, whose latents are all in memory while it is sampled. pixels: of one of its
    frames, and of the picture; None: the limits of VideoReader and read_image.
    """

    frames: float = 7_200  # five minutes at 24 frames/s
    pixels: int | None = None


class Source(SkeletonChunks):
    """A request's picture and skeleton video at its video's size and rate; a context manager.

    path: of the video. generator: the one given, at that size, and sparing of memory. fps: of the output.
    image: the picture (1, H, W, 3) uint8. columns: what condition takes of other columns of pairs.csv.
    hashes: of its files when they were opened, see Request.hashes. Iterating gives the skeleton video in
    chunks (n, H, W, 3) uint8. InputError: a file cannot be used, or at the end of an iteration, a file has
    changed since it was opened.
    """

    def __init__(self, request: Request, generator: Generator, limits: Limits = Limits()) -> None:
        self.path, self._request = request.video, request
        self.hashes = request.hashes()
        self._notes: list[str] = []
        pixels = {} if limits.pixels is None else {"max_pixels": limits.pixels}
        with reading(request.image):
            picture = read_image(request.image, notes=self._notes, **pixels)
        with reading(request.video):
            reader = VideoReader(request.video, max_frames=limits.frames, square=True, **pixels)
        sizes = (reader.width, reader.height), picture.shape[1::-1]
        sized, self.fps = output_form(request, generator, *sizes, reader.fps)
        self.generator = generator = OomRetry(sized)
        framing = Framing(generator.fit, picture.shape[1::-1])
        self._notes += [f"{request.image}: {framing.note}"] if framing.note else []
        self.image = generator.fit(picture[None])
        self.columns = read_columns(request, generator, self._notes, **pixels, image=picture)
        super().__init__(reader, generator, self.fps)
        if self.announced > limits.frames:
            raise InputError(f"{request.id}: {self.announced} frames at {self.fps}/s, above {limits.frames}")
        self._check = SkeletonCheck()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading."""
        self._reader.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Give the chunks of the skeleton video, in order."""
        yield from self._check.watch(super().__iter__())
        start = time.perf_counter()
        if changed := self.changed():
            raise InputError(f"{changed} while it was read; let nothing write to it, and run again")
        self.waited += time.perf_counter() - start

    def changed(self) -> str | None:
        """Say which file is not the one any more that was opened; None: all are. InputError: one is gone."""
        paths = {"video": self._request.video, "image": self._request.image, **self._request.pictures}
        for kind, digest in self._request.hashes().items():
            if digest != self.hashes[kind]:
                return f"{paths[kind.removesuffix('_sha256')]}: has changed"
        return None

    @property
    def notes(self) -> list[str]:
        """Sentences for the user on the inputs; complete after the iteration."""
        framed = self.framing.note
        cut = [f"{self._reader.path}: {framed}"] if framed else []
        return [*self._notes, *self._reader.notes, *cut, *filter(None, [self._check.note])]


class Inputs:
    """A run's inputs: a request's source is opened, and the next one's is read while a video is made.

    upcoming: the request to read when the last one opened has been read. No more than one is ahead, with
    MOST_AHEAD bytes of its frames, or MOST_AHEAD_STREAMED; the others are read when its video is made. What
    fails ahead, or changes after it, is opened again in its turn, as if nothing had been read.
    """

    def __init__(self, generator: Generator, limits: Limits, streamed: bool = False) -> None:
        self._generator, self._limits, self._streamed = generator, limits, streamed
        self.upcoming: Request | None = None
        self._ahead: tuple[Request, Future[Source]] | None = None
        self._stop = Event()

    def open(self, request: Request) -> Source:
        """Return the request's source, which may have been read ahead. InputError: a file cannot be used."""
        if self._ahead and self._ahead[0] == request:
            source = self._take()
            if source and _is_current(source):
                return source
        self.drop()
        return Source(request, self._generator, self._limits)

    def read_on(self) -> None:
        """Begin to read the upcoming request."""
        if self.upcoming and not self._ahead:
            self._stop.clear()
            thread = ThreadPoolExecutor(1, "reading")
            self._ahead = self.upcoming, thread.submit(self._read, self.upcoming)
            thread.shutdown(wait=False)

    def drop(self) -> bool:
        """Let go of what was read ahead; tell whether there was something."""
        there, source = self._ahead is not None, self._take()
        if source:
            source.close()
        return there

    def _take(self) -> Source | None:
        """Return what is read ahead so far; None: there is nothing, or it failed."""
        (_, reading), self._ahead = self._ahead or (None, None), None
        self._stop.set()
        if reading is None:
            return None
        wait([reading])
        return None if reading.exception() else reading.result()

    def _read(self, request: Request) -> Source:
        with ExitStack() as failed:
            source = failed.enter_context(Source(request, self._generator, self._limits))
            most = MOST_AHEAD_STREAMED if self._streamed else MOST_AHEAD
            source.read_ahead(most, self._stop.is_set)
            failed.pop_all()
        return source


def _is_current(source: Source) -> bool:
    """Tell whether a source's files are still those that were opened; else it is closed."""
    with suppress(InputError):
        if not source.changed():
            return True
    source.close()
    return False
