"""A process that makes videos for another one: it starts engines, takes requests from a pipe, and reports."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection

from engines.errors import EngineError, Exit, VivaceError
from generators.weight_files import licences
from pipeline.batch.run_folder import MADE
from pipeline.runner import start_runner

REFUSALS = (VivaceError, MemoryError, FloatingPointError)
TICK = 0.2  # seconds between two words on progress
WATCH = 1.0  # seconds between two looks whether the parent lives


@dataclass(frozen=True)
class Started:
    """Engines run. identity: the Maker's; said: what starting them had to say."""

    identity: dict
    said: list[str]


@dataclass(frozen=True)
class Refused:
    """Engines cannot run: the error, which a script knows how to end with."""

    error: Exception


@dataclass(frozen=True)
class Counted:
    """So many of a video's evaluations are done."""

    count: int
    total: int


@dataclass(frozen=True)
class Ended:
    """What came of a video: its manifest line, and why it failed or OK."""

    line: dict
    reason: Exit


@dataclass(frozen=True)
class Broken:
    """An engine failed in a way that may have spoilt it: this process ends."""

    why: str


class Counting:
    """Stands in for Progress, and reports to the other process now and then."""

    def __init__(self, connection: Connection, total: int) -> None:
        self._connection, self._total, self._count, self._told = connection, total, 0, 0.0

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is left open."""

    def tick(self) -> None:
        """One more evaluation is done."""
        self._count += 1
        if time.monotonic() - self._told >= TICK:
            self._told = time.monotonic()
            self._connection.send(Counted(self._count, self._total))

    def grow(self, count: int) -> None:
        """There are so many more evaluations."""
        self._total += count


def serve(descriptor: int, parent: int) -> None:
    """Take Settings and a folder, then requests until there is None. It ends with its parent, at once."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(Exit.TERMINATED))
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with Connection(descriptor) as connection:
        settings, out = connection.recv()
        said: list[str] = []
        try:
            maker = start_runner(settings, said.append)
        except REFUSALS as error:
            connection.send(Refused(error))
            return
        connection.send(Started(maker.identity, [*said, *licences(maker.generator.fingerprint_files)]))
        try:
            while (request := connection.recv()) is not None:
                with suppress(OSError):  # the video's writer says what is wrong
                    (out / MADE).mkdir(exist_ok=True)
                connection.send(Ended(*maker(request, out, partial(Counting, connection), MADE)))
        except EngineError as error:
            connection.send(Broken(str(error)))


def _end_with(parent: int) -> None:
    """Kill this process and its ffmpeg when its parent has died: nobody would take what it makes."""
    while os.getppid() == parent:
        time.sleep(WATCH)
    os.killpg(0, signal.SIGKILL)
