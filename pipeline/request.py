"""One request's way from skeleton video and picture to a finished mp4, with the seconds of each stage."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from engines.artifact import file_sha256
from generators.contract import Engines, Generator
from optimize.recipe import BASELINE, Recipe
from pipeline.data import Request
from pipeline.memory import peak_memory_mb
from pipeline.picture import read_image
from pipeline.progress import Progress
from pipeline.sample import evaluations, pieces
from pipeline.video import VideoReader, VideoWriter

StartProgress = Callable[[int], Progress]


@dataclass
class Seconds:
    """Wall seconds by stage; a stage entered twice adds up."""

    stages: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count the time inside the block towards that stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stages[stage] = self.stages.get(stage, 0.0) + time.perf_counter() - start

    def move(self, seconds: float, source: str, target: str) -> None:
        """Count seconds towards another stage than the one they were measured in."""
        self.stages[source] -= seconds
        self.stages[target] = self.stages.get(target, 0.0) + seconds


def make_video(
    request: Request,
    output: Path,
    generator: Generator,
    engines: Engines,
    start_progress: StartProgress,
    recipe: Recipe = BASELINE,
    lossless: bool = False,
) -> dict:
    """Generate one video; returns what its manifest line says of it.

    generator: as recipe.adapt() has it. lossless: the file keeps every RGB value, see VideoWriter. In the
    line, actions are what the steps did, window by window where these follow on one another; guard_fired,
    those which the step plan would have skipped. The skeleton video is read and the result decoded and
    written in chunks: memory grows with a clip by its latents only. InputError if an input cannot be used,
    OutputError if the video cannot be written.
    """
    seconds, notes, started = Seconds(), [], time.perf_counter()
    with seconds("read"):
        image = generator.fit(read_image(request.image, notes=notes)[None])
        reader = VideoReader(request.video)
    with reader:
        chunks = SkeletonChunks(reader, generator)
        with seconds("condition"):
            constants = generator.condition(engines, chunks, image)
    seconds.move(chunks.waited, "condition", "read")
    frames, plan, walks = chunks.frames, recipe.steps, []
    content = hashlib.sha256()
    with (
        VideoWriter(output, *generator.size, reader.fps, preset=recipe.preset, lossless=lossless) as writer,
        start_progress(evaluations(generator, frames, plan)) as progress,
    ):
        made = pieces(generator, engines, constants, frames, request.seed, plan, progress.tick)
        for piece in _timed(made, seconds, "denoise"):
            walks.append(piece.walk)
            for pixels in _timed(piece.pixels, seconds, "decode"):
                with seconds("write"):
                    for frame in pixels:
                        content.update(frame)
                        writer.write(frame)
        finishing = time.perf_counter()
    seconds.stages["write"] += time.perf_counter() - finishing
    return {
        "frames": frames,
        "fps": str(reader.fps),
        "size": list(generator.size),
        "actions": " ".join(walk.taken for walk in walks),
        "guard_fired": [step for walk in walks for step in walk.fired],
        "frames_sha256": content.hexdigest(),
        "output_sha256": file_sha256(output),
        "video_sha256": file_sha256(request.video),
        "image_sha256": file_sha256(request.image),
        "notes": [*notes, *reader.notes],
        "seconds": {stage: round(s, 4) for stage, s in seconds.stages.items()},
        "total_seconds": round(time.perf_counter() - started, 4),
        "peak_memory_mb": peak_memory_mb(),
    }


def read_opening(request: Request, generator: Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first frames (at most count, H, W, 3) and the picture (H, W, 3) at the generator's size.

    For measuring, which needs no whole clip. InputError if a file cannot be used.
    """
    image = generator.fit(read_image(request.image, notes=[])[None])[0]
    with VideoReader(request.video) as reader:
        return np.stack([generator.fit(frame[None])[0] for frame in islice(reader, count)]), image


class SkeletonChunks:
    """A skeleton video's frames at the generator's size, in its chunks, counted while they are read."""

    def __init__(self, reader: VideoReader, generator: Generator) -> None:
        self._reader, self._generator = reader, generator
        self.frames, self.waited = 0, 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        """Chunks (n, H, W, 3) uint8; waited adds up the seconds spent on reading them."""
        source = iter(self._reader)
        while True:
            start = time.perf_counter()
            chunk = [self._generator.fit(frame[None]) for frame in islice(source, self._generator.chunk)]
            self.waited += time.perf_counter() - start
            if not chunk:
                return
            self.frames += len(chunk)
            yield np.concatenate(chunk)


def _timed(source: Iterator[np.ndarray], seconds: Seconds, stage: str) -> Iterator[np.ndarray]:
    """The items of source, the time waited for each counted towards the stage."""
    while True:
        with seconds(stage):
            item = next(source, None)
        if item is None:
            return
        yield item
