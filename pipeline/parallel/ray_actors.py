"""What the workers of a cluster do: read a request's files, run its networks, write its video.

Arrays go from one to the next through Ray's object store, many frames an object; the driver sees receipts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.artifact import file_sha256
from engines.progress import peak_memory_mb
from generators.contract import Generator
from generators.weight_files import licences
from pipeline.batch.dataset import Request
from pipeline.oom_retry import OomRetry
from pipeline.request import Sampling, Seconds, Source, write
from pipeline.runner import Settings, VideoRunner, start_runner
from pipeline.video.reader import VideoWriter

if TYPE_CHECKING:
    from ray import ObjectRef

OBJECT_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Receipt:
    """What a stage gave. arrays: lists of them in the store; facts and seconds: for the manifest line.

    The arrays are chunks (n, H, W, 3) uint8; of what was read, the first is the picture (1, H, W, 3).
    """

    arrays: list[ObjectRef] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    fps: Fraction = Fraction(0)


class Silent:
    """Stands in for Progress where nobody looks."""

    def tick(self) -> None:
        """One more evaluation is done."""

    def grow(self, count: int) -> None:
        """There are so many more."""


@dataclass(frozen=True)
class Opened:
    """A worker is ready. node: Ray's name of its machine; name: for people; identity: a maker's, or none."""

    node: str
    name: str
    identity: dict[str, object]
    said: tuple[str, ...] = ()


def store(arrays: Iterable[np.ndarray]) -> list[ObjectRef]:
    """Put arrays into the store, in lists of OBJECT_BYTES and more: each object costs its users messages."""
    import ray

    references, held = [], []
    for array in arrays:
        held.append(array)
        if sum(each.nbytes for each in held) >= OBJECT_BYTES:
            references.append(ray.put(held))
            held = []
    return [*references, ray.put(held)] if held else references


def stored(receipt: Receipt) -> Iterator[np.ndarray]:
    """The arrays, in order; they lie in the store and must not be written into."""
    import ray

    for reference in receipt.arrays:
        yield from ray.get(reference)


class StoredSource:
    """What was read of a request, like pipeline.request.Source; chunks are the generator's."""

    def __init__(self, receipt: Receipt, generator: Generator) -> None:
        self._receipt, self._generator = receipt, generator
        self.frames, self.waited = 0, 0.0
        self.image = next(stored(receipt))

    def __iter__(self) -> Iterator[np.ndarray]:
        """The chunks, from the first again."""
        self.frames, size, start = 0, self._generator.chunk, time.perf_counter()
        for chunk in islice(stored(self._receipt), 1, None):
            self.waited += time.perf_counter() - start
            self.frames += len(chunk)
            yield from (chunk[at : at + size] for at in range(0, len(chunk), size))
            start = time.perf_counter()


class FileWorker:
    """Reads requests' files and writes videos. Errors: see pipeline.request."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _generator(self) -> Generator:
        """Its rules say what size pictures get."""
        return self._settings.load()

    def open(self) -> Opened:
        """Load the generator."""
        _ = self._generator
        return Opened(*_place("files"), {})

    def read(self, request: Request) -> Receipt:
        """The request's files at the generator's size."""
        seconds = Seconds()
        with seconds("read"), Source(request, self._generator, self._settings.limits) as source:
            arrays = store(chain([source.image], source))
        facts = {
            "fps": str(source.fps),
            "video_sha256": file_sha256(request.video),
            "image_sha256": file_sha256(request.image),
            "notes": source.notes,
        }
        return Receipt(arrays, facts, seconds.stages, source.fps)

    def write(self, made: Receipt, output: Path) -> Receipt:
        """Encode what was made."""
        seconds = Seconds()
        recipe, lossless = self._settings.recipe, self._settings.lossless
        how = {"preset": recipe.preset, "colours": recipe.coded, "lossless": lossless}
        writer = VideoWriter(output, *self._generator.size, made.fps, **how)
        chunks = seconds.of_each(stored(made), "write")
        facts = {"frames_sha256": write(chunks, writer, seconds), "output_sha256": file_sha256(output)}
        return Receipt(facts=facts, seconds=seconds.stages)


class NetworkWorker:
    """Runs a request's networks."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._said = settings, []

    @cached_property
    def _runner(self) -> VideoRunner:
        """Ray may ask a process that takes a lost one's place for a video before `open`."""
        return start_runner(self._settings, self._said.append)

    def open(self) -> Opened:
        """Start the engines; EngineError."""
        runner = self._runner
        said = *self._said, *licences(runner.generator.fingerprint_files)
        return Opened(*_place("networks"), runner.identity, said)

    def make(self, read: Receipt, seed: int) -> Receipt:
        """From skeleton frames and picture to finished frames."""
        runner, seconds = self._runner, Seconds()
        generator, silent = OomRetry(runner.generator), nullcontext(Silent())
        with seconds("read"):
            source = StoredSource(read, generator)
        sampling = Sampling(source, generator, runner.engines, seconds)
        arrays = store(sampling.pixels(seed, runner.options, lambda total: silent))
        facts = {
            **sampling.facts,
            "chunks": generator.chunk_by_stage,
            "notes": [*generator.notes, *sampling.notes],
            "peak_memory_mb": peak_memory_mb(),
            "worker": _place("networks")[1],
        }
        return Receipt(arrays, facts, seconds.stages, read.fps)


def _place(kind: str) -> tuple[str, str]:
    """Where this process runs: Ray's name of the machine, and a name for people."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    return node, f"{kind} process {os.getpid()} on {ray.util.get_node_ip_address()}"
