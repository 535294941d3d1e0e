"""Keep a worker process on each device: start it, hear it, replace it when it dies, end it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

from engines.errors import EngineError
from pipeline.parallel.cpu_affinity import shares_of_cores
from pipeline.parallel.worker import Broken, Ended, Refused, Started
from pipeline.parallel.worker_process import start_worker
from serve.metrics import Metrics
from serve.settings import ServeSettings
from serve.store import Store
from serve.watchdog import Took, Watchdog

PAUSE, FULL_PAUSE = 1.0, 10.0  # seconds before a dead worker is replaced; between tries at a full disk
DOUBLINGS = 6  # of that pause, at most, one with each failure to start again
TRIES = 3  # failures of a worker to start, in a row
START = 1_800.0  # seconds that engines may take to start: compiling a large network takes minutes


def pause_after(failures: int) -> float:
    """Return the seconds before a worker that failed to start so many times in a row is tried again."""
    return PAUSE * 2 ** min(max(failures - 1, 0), DOUBLINGS)


class Supervisor:
    """The workers of a service. give_up: is called when none can be started; error then says why."""

    def __init__(
        self, settings: ServeSettings, store: Store, metrics: Metrics, say: Callable[[str], None],
        give_up: Callable[[], None],
    ) -> None:  # fmt: skip
        self._settings, self._store, self._metrics = settings, store, metrics
        self._say, self._give_up, self.error = say, give_up, None
        self._stopping, self._lock = threading.Event(), threading.Lock()
        self._processes: dict[int, subprocess.Popen] = {}
        self.watchdog = Watchdog(settings, store, self.kill)
        metrics.workers = len(settings.devices)
        self._ready: set[int] = set()
        self._failures = dict.fromkeys(range(len(settings.devices)), 0)  # to start, in a row
        self._ever_ready = False  # whether any worker was
        self._threads = [
            threading.Thread(target=self._keep, args=(number, device, cores), daemon=True)
            for number, (device, cores) in enumerate(
                zip(settings.devices, shares_of_cores(len(settings.devices)), strict=True)
            )
        ]

    @property
    def ready(self) -> int:
        """Number of workers whose engines have started."""
        return len(self._ready)

    def start(self) -> None:
        """Start the workers; return at once."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Kill all workers; the next start goes on with their jobs."""
        self._stopping.set()
        for number in list(self._processes):
            self.kill(number)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def kill(self, number: int) -> None:
        """Kill a worker and its ffmpeg; it is replaced unless the service stops."""
        with self._lock, suppress(ProcessLookupError, KeyError):
            os.killpg(self._processes[number].pid, signal.SIGKILL)

    def _keep(self, number: int, device: str, cores: list[int]) -> None:
        """Have a worker run until the service stops or gives up; runs in a thread."""
        name = f"worker {number + 1} on {device}"
        while not self._stopping.is_set():
            refused, why = None, "it died"
            try:
                with self._started(number, device, cores) as connection:
                    refused = self._hear(number, connection)
            except OSError as error:  # no memory, no free descriptor
                why = error
            ran = number in self._ready
            self._end(number)
            self._release(number)
            if self._stopping.is_set():
                return
            self._metrics.deaths.inc()
            with self._lock:
                failures = self._failures[number] = 0 if ran else self._failures[number] + 1
            if self._is_hopeless(number, refused is not None):
                if self.error is None:
                    self.error = refused or EngineError(f"{name} did not start, {failures} times: {why}")
                self._give_up()
                return
            if ran:
                self._say(f"{name} died; another one is started")
            elif failures == 1:  # said once: what follows is the same
                self._say(f"{name} did not start; it is tried again, ever more rarely: {refused or why}")
            self._stopping.wait(pause_after(failures))

    def _is_hopeless(self, number: int, refused: bool) -> bool:
        """Return whether to give up: no worker ever ran and this one cannot, or all have failed TRIES times.

        refused: its engines said why they do not start, which comes again at each try.
        """
        with self._lock:
            if self._ever_ready:
                return min(self._failures.values()) >= TRIES
            return refused or self._failures[number] >= TRIES

    def _release(self, number: int) -> None:
        """Queue again what a dead worker had, as soon as the disk takes that, unless the service stops."""
        while not self._stopping.is_set():
            try:
                for job in self._store.release(number):
                    self._say(f"{job.id}: failed: {job.error}")
                self.watchdog.buried(number)
                return
            except OSError as error:
                self._say(f"what worker {number + 1} had is queued again when that can be written: {error}")
                self._stopping.wait(FULL_PAUSE)

    def _started(self, number: int, device: str, cores: list[int]) -> Connection:
        process, connection = start_worker("serve.worker", "work", cores)
        with self._lock:
            self._processes[number] = process
        if self._stopping.is_set():
            self.kill(number)
        with suppress(OSError):  # a dead process is noticed when it is heard
            connection.send((number, device, self._settings))
        return connection

    def _hear(self, number: int, connection: Connection) -> Exception | None:
        """Handle a worker's messages until it has ended; return why it refused to start, if it did."""
        started = time.monotonic()
        with suppress(EOFError, OSError):
            while True:
                if number not in self._ready and not connection.poll(START):
                    return EngineError(f"worker {number + 1}: its engines have not started in {START:g} s")
                match connection.recv():
                    case Started(messages=messages):
                        with self._lock:
                            self._ready.add(number)
                            self._failures[number], self._ever_ready = 0, True
                        for text in messages:
                            self._say(text)
                        self._say(f"worker {number + 1} is ready ({time.monotonic() - started:.1f} s)")
                    case Refused(error=error):
                        return error
                    case Broken(why=why):
                        self._say(f"worker {number + 1}: {why}")
                    case Took(held=held):
                        self.watchdog.took(number, held)
                    case Ended(line=line, reason=reason):
                        self.watchdog.took(number, None)
                        self._metrics.ended(line, reason)
                        if line:
                            self._say(f"{line['id']}: {line.get('error') or line['status']}")
        return None

    def _end(self, number: int) -> None:
        """Wait for a worker's end, with what it started."""
        self._ready.discard(number)
        self.kill(number)
        with self._lock:
            process = self._processes.pop(number, None)
        if process:
            process.wait()
