"""Define the actors of a Ray cluster: one kind reads requests and writes videos, one runs the networks.

Arrays pass between actors through Ray's object store, many frames in an object; the driver sees receipts.
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

from engines.progress import peak_memory_mb
from generators.contract import Generator
from generators.weight_files import licences
from pipeline.batch.dataset import Request, hash_output
from pipeline.oom_retry import OomRetry
from pipeline.output_form import at_size, taking_size
from pipeline.request import Sampling
from pipeline.runner import Settings, VideoRunner, start_runner
from pipeline.source import Source
from pipeline.stopwatch import Seconds
from pipeline.video.reader import VideoWriter
from pipeline.write_frames import write_frames

if TYPE_CHECKING:
    from ray import ObjectRef

OBJECT_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Receipt:
    """The result of a stage. facts and seconds: for the manifest line.

    arrays: references to lists of chunks (n, H, W, 3) uint8 in the object store. The first chunk that READ
    gives is the picture (1, H, W, 3). size, fps: of the video. columns: of Source.
    """

    arrays: list[ObjectRef] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    fps: Fraction = Fraction(0)
    size: tuple[int, int] = (0, 0)
    columns: dict[str, object] = field(default_factory=dict)


class NoProgress:
    """A stand-in for Progress that shows nothing."""

    def tick(self) -> None:
        """Ignore that an evaluation is done."""

    def grow(self, count: int) -> None:
        """Ignore that `count` more evaluations are to be done."""


@dataclass(frozen=True)
class Opened:
    """The report of a worker that is ready.

    node: Ray's name of its machine. name, pid: of its process. identity: VideoRunner's; empty for a file
    worker. messages: the lines that starting it printed.
    """

    node: str
    name: str
    identity: dict[str, object]
    messages: tuple[str, ...] = ()
    pid: int = field(default_factory=os.getpid)


def store(arrays: Iterable[np.ndarray]) -> list[ObjectRef]:
    """Put arrays into the object store, in lists of OBJECT_BYTES or more: each object costs messages."""
    import ray

    references, held = [], []
    for array in arrays:
        held.append(array)
        if sum(each.nbytes for each in held) >= OBJECT_BYTES:
            references.append(ray.put(held))
            held = []
    return [*references, ray.put(held)] if held else references


def stored(receipt: Receipt) -> Iterator[np.ndarray]:
    """Give a receipt's arrays, in order; they are memory of the object store and must not be written to."""
    import ray

    for reference in receipt.arrays:
        yield from ray.get(reference)


class StoredSource:
    """A request's picture and skeleton video from the store; a counterpart of pipeline.request.Source.

    image: the picture (1, H, W, 3) uint8. frames, waited: frames given, and seconds spent on fetching them.
    """

    def __init__(self, receipt: Receipt, generator: Generator) -> None:
        self._receipt, self._generator = receipt, generator
        self.frames, self.waited = 0, 0.0
        self.image, self.columns = next(stored(receipt)), receipt.columns

    def __iter__(self) -> Iterator[np.ndarray]:
        """Give the skeleton video from the start, in chunks (n, H, W, 3) uint8 of the generator's size."""
        self.frames, size, start = 0, self._generator.chunk, time.perf_counter()
        for chunk in islice(stored(self._receipt), 1, None):
            self.waited += time.perf_counter() - start
            self.frames += len(chunk)
            yield from (chunk[at : at + size] for at in range(0, len(chunk), size))
            start = time.perf_counter()


class FileWorker:
    """An actor that reads requests' files and writes videos. Errors: those of pipeline.request."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _generator(self) -> Generator:
        """The generator, whose fit() brings pictures to its size."""
        return self._settings.load()

    def open(self) -> Opened:
        """Load the generator, and report that this worker is ready."""
        _ = self._generator
        return Opened(*_node_and_name("files"), {})

    def read(self, request: Request) -> Receipt:
        """Read the request's files, scale them to the generator's size, and put them into the store."""
        seconds = Seconds()
        with seconds("read"), Source(request, self._generator, self._settings.limits) as source:
            arrays = store(chain([source.image], source))
        facts = {
            "fps": str(source.fps),
            **source.hashes,
            "notes": source.notes,
        }
        return Receipt(arrays, facts, seconds.stages, source.fps, source.generator.size, source.columns)

    def write(self, made: Receipt, output: Path) -> Receipt:
        """Encode the frames of a receipt to the file `output`."""
        seconds = Seconds()
        recipe, lossless = self._settings.recipe, self._settings.lossless
        how = {"preset": recipe.preset, "colours": recipe.coded, "lossless": lossless}
        writer = VideoWriter(output, *made.size, made.fps, **how)
        chunks = seconds.of_each(stored(made), "write")
        facts = {"frames_sha256": write_frames(chunks, writer, seconds), "output_sha256": hash_output(output)}
        return Receipt(facts=facts, seconds=seconds.stages)


class NetworkWorker:
    """An actor that runs the networks for requests."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._messages = settings, []

    @cached_property
    def _runner(self) -> VideoRunner:
        """The runner, started when first needed: after a restart, Ray may call `make` before `open`."""
        return start_runner(self._settings, self._messages.append, resident=False)

    def open(self) -> Opened:
        """Start the engines, and report that this worker is ready. EngineError."""
        runner = self._runner
        messages = *self._messages, *licences(runner.generator.fingerprint_files)
        return Opened(*_node_and_name("networks"), runner.identity, messages)

    def make(self, read: Receipt, seed: int) -> Receipt:
        """Make the frames of a video from its skeleton video and picture, and put them into the store."""
        runner, seconds = self._runner, Seconds()
        generator, progress = OomRetry(at_size(runner.generator, read.size)), nullcontext(NoProgress())
        with seconds("read"):
            source = StoredSource(read, generator)
        with taking_size(read.size, runner.generator.size):
            sampling = Sampling(source, generator, runner.engines, seconds)
            arrays = store(sampling.pixels(seed, runner.options, lambda total: progress))
        facts = {
            **sampling.facts,
            "chunks": generator.chunk_by_stage,
            "notes": [*generator.notes, *sampling.notes],
            "peak_memory_mb": peak_memory_mb(),
            "worker": _node_and_name("networks")[1],
        }
        return Receipt(arrays, facts, seconds.stages, read.fps, read.size)


def _node_and_name(kind: str) -> tuple[str, str]:
    """Return Ray's name of this machine, and this worker's name for messages."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    return node, f"{kind} process {os.getpid()} on {ray.util.get_node_ip_address()}"
