"""Make one request's video: read, condition, denoise, decode and write, with the seconds of each stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np

from engines.errors import InputError, reading
from engines.progress import Progress, peak_memory_mb
from generators.contract import Constants, Engines, Generator
from pipeline.batch.dataset import Request, hash_output
from pipeline.columns import read_columns
from pipeline.oom_retry import OomRetry
from pipeline.output_form import SkeletonChunks, output_form, taking_size
from pipeline.recipe import BASELINE, Recipe
from pipeline.sampler import Sampler, evaluations
from pipeline.sampler_state import LESS_EXACT, SamplerState
from pipeline.stopwatch import Seconds
from pipeline.video.framing import Framing
from pipeline.video.image import read_image
from pipeline.video.reader import VideoReader, VideoWriter
from pipeline.video.skeleton_check import SkeletonCheck
from pipeline.window_denoiser import OpenDenoiser
from pipeline.write_frames import write_frames

StartProgress = Callable[[int], Progress]
# Gives a video's chunks on; it is told their width and height, and the frames per second.
Watch = Callable[[Iterable[np.ndarray], tuple[int, int], Fraction], Iterable[np.ndarray]]


@dataclass(frozen=True)
class Limits:
    """The largest inputs that are accepted; a file that is larger by its header is refused before decoding.

    frames: of a skeleton video, whose latents are all in memory while it is sampled. pixels: of one of its
    frames, and of the picture; None: the limits of VideoReader and read_image.
    """

    frames: float = 7_200  # five minutes at 24 frames/s
    pixels: int | None = None


@dataclass(frozen=True)
class Options:
    """The settings that videos are made with.

    lossless: the file keeps every RGB value, see VideoWriter. open_denoiser: opens what evaluates the windows
    of a clip; None: the recipe's. sampling: what samples a request; None: Sampling. watch: sees the frames as
    they are made.
    """

    recipe: Recipe = BASELINE
    lossless: bool = False
    limits: Limits = Limits()
    open_denoiser: OpenDenoiser | None = None
    sampling: Callable[[Source, Generator, Engines, Seconds], Sampling] | None = None
    watch: Watch | None = None


def make_video(
    request: Request,
    output: Path,
    generator: Generator,
    engines: Engines,
    start_progress: StartProgress,
    options: Options = Options(),
) -> dict:
    """Generate one video; return the fields that its manifest line gets.

    generator: the one that recipe.adapt() returned. Of the fields, actions are the letters of the steps that
    ran, for each window where windows continue one another; guard_fired, why the guard switched to the base
    model's plan; chunks, frames at a time after memory ran out, by stage. Skeletons are read, and
    pixels written, in chunks: only latents grow in memory with a clip. InputError: an input cannot be used.
    OutputError: the video cannot be written. MemoryError. FloatingPointError: numbers are not finite.
    """
    seconds, started, recipe = Seconds(), time.perf_counter(), options.recipe
    with seconds("read"):
        source = Source(request, generator, options.limits)
    own_size, generator = generator.size, source.generator
    how = {"preset": recipe.preset, "colours": recipe.coded, "lossless": options.lossless}
    with source, taking_size(generator.size, own_size):
        sampling = (options.sampling or Sampling)(source, generator, engines, seconds)
        pixels = _noting_first(sampling.pixels(request.seed, options, start_progress), first := [])
        if options.watch:
            pixels = options.watch(pixels, generator.size, source.fps)
        writer = VideoWriter(output, *generator.size, source.fps, **how)
        content = write_frames(pixels, writer, seconds)
    return {
        "fps": str(source.fps),
        **sampling.facts,
        "chunks": generator.chunk_by_stage,
        "frames_sha256": content,
        "output_sha256": hash_output(output),
        **request.hashes(),
        "notes": [*source.notes, *generator.notes, *sampling.notes],
        "first_frame_seconds": round(first[0] - started, 4),
        "seconds": seconds.rounded(),
        "total_seconds": round(time.perf_counter() - started, 4),
        "peak_memory_mb": peak_memory_mb(),
    }


class Source:
    """A request's picture and skeleton video at its video's size and rate; a context manager.

    path: of the video. generator: the one given, at that size, and sparing of memory. fps: of the output.
    image: the picture (1, H, W, 3) uint8. columns: what condition takes of other columns of pairs.csv.
    Iterating gives the skeleton video in chunks (n, H, W, 3) uint8. InputError: a file cannot be used.
    """

    def __init__(self, request: Request, generator: Generator, limits: Limits = Limits()) -> None:
        self.path = request.video
        self._notes: list[str] = []
        pixels = {} if limits.pixels is None else {"max_pixels": limits.pixels}
        with reading(request.image):
            picture = read_image(request.image, notes=self._notes, **pixels)
        with reading(request.video):
            self._reader = VideoReader(request.video, max_frames=limits.frames, square=True, **pixels)
        sizes = (self._reader.width, self._reader.height), picture.shape[1::-1]
        sized, self.fps = output_form(request, generator, *sizes, self._reader.fps)
        self.generator = generator = OomRetry(sized)
        framing = Framing(generator.fit, picture.shape[1::-1])
        self._notes += [f"{request.image}: {framing.note}"] if framing.note else []
        self.image = generator.fit(picture[None])
        self.columns = read_columns(request, generator, self._notes, **pixels, image=picture)
        self._chunks = SkeletonChunks(self._reader, generator, self.fps)
        if self.announced > limits.frames:
            raise InputError(f"{request.id}: {self.announced} frames at {self.fps}/s, above {limits.frames}")
        self._check = SkeletonCheck()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Give the chunks of the skeleton video, in order."""
        return self._check.watch(self._chunks)

    @property
    def frames(self) -> int:
        """Number of skeleton frames read so far."""
        return self._chunks.frames

    @property
    def announced(self) -> int:
        """Number of frames by the file's packets, before they are read."""
        return self._chunks.announced

    @property
    def waited(self) -> float:
        """Seconds spent on reading the skeleton video so far."""
        return self._chunks.waited

    @property
    def notes(self) -> list[str]:
        """Sentences for the user on the inputs; complete after the iteration."""
        framed = self._chunks.framing.note
        cut = [f"{self._reader.path}: {framed}"] if framed else []
        return [*self._notes, *self._reader.notes, *cut, *filter(None, [self._check.note])]


class Sampling:
    """One request's run through the networks: conditioned at once, sampled and decoded when asked for.

    source: is read to its end. FloatingPointError: the conditions are not finite.
    """

    def __init__(self, source: Source, generator: Generator, engines: Engines, seconds: Seconds) -> None:
        self._generator, self._engines, self._seconds = generator, engines, seconds
        with seconds("condition"):
            self._constants = generator.condition(engines, source, source.image, **source.columns)
        seconds.move(source.waited, "condition", "read")
        self._frames = source.frames
        check_finite(self._constants)
        self._states: list[SamplerState] = []
        self._more, self._recipe = 0, BASELINE

    @property
    def facts(self) -> dict[str, object]:
        """Fields for the manifest line; complete after all pixels were taken."""
        return {
            "frames": self._frames,
            "size": list(self._generator.size),
            "actions": " ".join(state.taken for state in self._states),
            "guard_fired": self._unlike,
        }

    @property
    def notes(self) -> list[str]:
        """Sentences for the user on the guard; complete after all pixels were taken."""
        if not self._unlike:
            return []
        where = f" in {len(self._unlike)} of its {len(self._states)} windows" if len(self._states) > 1 else ""
        videos = self._recipe.steps.guard.videos
        return [
            f"is unlike the {videos} videos that recipe {self._recipe.name} was tuned on{where}: "
            f"{self._unlike[0]}; made by all steps of the base model there, {self._more} evaluations more"
        ]

    @property
    def _unlike(self) -> list[str]:
        return [state.unlike for state in self._states if state.unlike]

    def pixels(self, seed: int, options: Options, start_progress: StartProgress) -> Iterator[np.ndarray]:
        """Give the video's pixels in chunks (n, H, W, 3) uint8.

        StepPlanError: the recipe's plan does not fit the scheduler. FloatingPointError: not finite latents.
        """
        with self._sampler(options, start_progress) as sampler:
            segments = sampler.segments(self._constants, self._frames, seed)
            for segment in self._seconds.of_each(segments, "denoise"):
                self._states.append(segment.state)
                yield from self._seconds.of_each(segment.pixels, "decode")

    @contextmanager
    def _sampler(self, options: Options, start_progress: StartProgress) -> Iterator[Sampler]:
        """Give the recipe's sampler, with a progress bar that grows where the guard fires."""
        generator, self._recipe = self._generator, options.recipe
        plan, open_denoiser = options.recipe.steps, options.open_denoiser or options.recipe.open_denoiser
        with start_progress(evaluations(generator, self._frames, plan)) as progress:

            def more(count: int) -> None:
                self._more += count
                progress.grow(count)

            yield Sampler(generator, self._engines, plan, open_denoiser, progress.tick, more)


def check_finite(constants: Constants) -> None:
    """FloatingPointError: a number of these conditions is not finite."""
    for name, array in constants.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise FloatingPointError(f"{name}, which the denoiser needs, is not finite: {LESS_EXACT}")


def _noting_first(chunks: Iterable[np.ndarray], times: list[float]) -> Iterator[np.ndarray]:
    """Give the chunks; append the time at which the first has come."""
    for chunk in chunks:
        if not times:
            times.append(time.perf_counter())
        yield chunk


def read_opening(request: Request, generator: Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Read at most count frames (F, H, W, 3) and the picture (H, W, 3), fitted, to measure on. InputError."""
    with reading(request.image):
        image = generator.fit(read_image(request.image, notes=[])[None])[0]
    with reading(request.video), VideoReader(request.video, square=True) as reader:
        return np.stack([generator.fit(frame[None])[0] for frame in islice(reader, count)]), image
