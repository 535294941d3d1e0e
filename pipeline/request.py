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

from engines.errors import reading
from engines.progress import Progress, peak_memory_mb
from generators.contract import Constants, Engines, Generator
from pipeline.batch.dataset import Request, hash_output
from pipeline.output_form import taking_size
from pipeline.recipe import BASELINE, Recipe
from pipeline.sampler import Sampler, evaluations
from pipeline.sampler_state import LESS_EXACT, SamplerState
from pipeline.source import Inputs, Limits, Source
from pipeline.stopwatch import Seconds
from pipeline.video.image import read_image
from pipeline.video.reader import VideoReader, VideoWriter
from pipeline.window_denoiser import OpenDenoiser
from pipeline.write_frames import write_frames

StartProgress = Callable[[int], Progress]
# Gives a video's chunks on; it is told their width and height, and the frames per second.
Watch = Callable[[Iterable[np.ndarray], tuple[int, int], Fraction], Iterable[np.ndarray]]


@dataclass(frozen=True)
class Options:
    """The settings that videos are made with.

    lossless: the file keeps every RGB value, see VideoWriter. open_denoiser: opens what evaluates the windows
    of a clip; None: the recipe's. sampling: what samples a request; None: Sampling. watch: sees the frames as
    they are made. overlap: frames are written, and the next request is read, while others are made.
    """

    recipe: Recipe = BASELINE
    lossless: bool = False
    limits: Limits = Limits()
    open_denoiser: OpenDenoiser | None = None
    sampling: Callable[[Source, Generator, Engines, Seconds], Sampling] | None = None
    watch: Watch | None = None
    overlap: bool = True


def make_video(
    request: Request,
    output: Path,
    generator: Generator,
    engines: Engines,
    start_progress: StartProgress,
    options: Options = Options(),
    inputs: Inputs | None = None,
) -> dict:
    """Generate one video; return the fields that its manifest line gets.

    generator: the one that recipe.adapt() returned. inputs: may have read the request ahead, and reads on
    when it has been conditioned. Of the fields, actions are the letters of the plan that ran, for each window
    where windows continue one another; guard_fired, why the guard had the base model's plan run, and where;
    chunks, frames at a time after memory ran out, by stage. Skeletons are read, and pixels written, in
    chunks: only latents grow in memory with a clip. InputError: an input cannot be used.
    OutputError: the video cannot be written. MemoryError. FloatingPointError: numbers are not finite.
    """
    seconds, started, recipe = Seconds(), time.perf_counter(), options.recipe
    inputs = inputs or Inputs(generator, options.limits)
    with seconds("read"):
        source = inputs.open(request)
    own_size, generator = generator.size, source.generator
    how = {"preset": recipe.preset, "colours": recipe.coded, "lossless": options.lossless}
    with source, taking_size(generator.size, own_size):
        sampling = (options.sampling or Sampling)(source, generator, engines, seconds)
        if options.overlap:
            inputs.read_on()
        pixels = _noting_first(sampling.pixels(request.seed, options, start_progress), first := [])
        if options.watch:
            pixels = options.watch(pixels, generator.size, source.fps)
        writer = VideoWriter(output, *generator.size, source.fps, **how)
        content = write_frames(pixels, writer, seconds, options.overlap)
    return {
        "fps": str(source.fps),
        **sampling.facts,
        "chunks": generator.chunk_by_stage,
        "frames_sha256": content,
        "output_sha256": hash_output(output),
        **source.hashes,
        "notes": [*source.notes, *generator.notes, *sampling.notes],
        "first_frame_seconds": round(first[0] - started, 4),
        "seconds": seconds.rounded(),
        "read_ahead_seconds": round(source.ahead, 4),
        "total_seconds": round(time.perf_counter() - started, 4),
        "peak_memory_mb": peak_memory_mb(),
    }


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
