"""Run a worker process, which starts engines, takes requests from a pipe, makes their videos, and reports."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection

from engines.errors import BROKEN, EngineError, Exit, VivaceError, describe_error
from generators.weight_files import licences
from pipeline.batch.run_folder import MADE
from pipeline.runner import start_runner

REFUSALS = (VivaceError, MemoryError, FloatingPointError)
TICK = 0.2  # seconds between two messages on progress
WATCH = 1.0  # seconds between two checks whether the parent lives


@dataclass(frozen=True)
class Started:
    """A message: engines run. identity: VideoRunner's. messages: the lines that starting them printed."""

    identity: dict
    messages: list[str]


@dataclass(frozen=True)
class Refused:
    """A message: engines cannot run, or a video shows that none can be made. error: carries the exit code."""

    error: Exception


@dataclass(frozen=True)
class Counted:
    """A message: `count` of a video's `total` evaluations are done."""

    count: int
    total: int


@dataclass(frozen=True)
class Ended:
    """A message: a video has ended. line: its manifest line. reason: OK, or why it failed."""

    line: dict
    reason: Exit


@dataclass(frozen=True)
class Broken:
    """A message: an engine failed and may be unusable, so this process ends."""

    why: str


@dataclass(frozen=True)
class Crashed:
    """A message: an error that nobody foresaw ends this process. why: its class, text and line."""

    why: str


class PipeProgress:
    """A stand-in for Progress that sends Counted messages to the parent, at most one every TICK seconds."""

    def __init__(self, connection: Connection, total: int) -> None:
        self._connection, self._total, self._count, self._sent = connection, total, 0, 0.0

    def __enter__(self) -> PipeProgress:
        return self

    def __exit__(self, *error: object) -> None:
        """Do nothing: there is nothing to close."""

    def tick(self) -> None:
        """Count one more evaluation as done."""
        self._count += 1
        if time.monotonic() - self._sent >= TICK:
            self._sent = time.monotonic()
            self._connection.send(Counted(self._count, self._total))

    def grow(self, count: int) -> None:
        """Add `count` to the evaluations to be done."""
        self._total += count


def serve(descriptor: int, parent: int) -> None:
    """Run a worker on a pipe: receive Settings and the output folder, then requests until None.

    With each comes the one to read meanwhile, or None. descriptor: of the pipe. parent: its process id; when
    the parent dies, this process is killed.
    """
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with _unwound_by_signals(), Connection(descriptor) as connection:
        settings, out = connection.recv()
        messages: list[str] = []
        try:
            runner = start_runner(settings, messages.append)
        except REFUSALS as error:
            connection.send(Refused(error))
            return
        connection.send(Started(runner.identity, [*messages, *licences(runner.generator.fingerprint_files)]))
        progress = partial(PipeProgress, connection)
        try:
            while (given := connection.recv()) is not None:
                request, upcoming = given
                with suppress(OSError):  # the video's writer raises an error that says what is wrong
                    (out / MADE).mkdir(exist_ok=True)
                connection.send(Ended(*runner(request, out, progress, MADE, upcoming)))
        except EngineError as error:
            connection.send(Broken(str(error)))
        except VivaceError as error:  # ends the run, as in one process
            connection.send(Refused(error))
        except BROKEN as error:
            with suppress(OSError):  # the parent may be gone
                connection.send(Crashed(describe_error(error)))
            raise
        finally:
            runner.close()


@contextmanager
def _unwound_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGINT unwind the block; after it they are ignored, as the process ends by itself."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(Exit.TERMINATED))
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)


def _end_with(parent: int) -> None:
    """Wait until the parent has died, then kill this process and its ffmpeg: nobody would use the videos."""
    while os.getppid() == parent:
        time.sleep(WATCH)
    os.killpg(0, signal.SIGKILL)
