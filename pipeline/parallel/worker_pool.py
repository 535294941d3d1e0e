"""Make videos in several processes on one machine, each with its own engines and its share of the cores.

They are plain subprocesses that talk over a pipe instead of a multiprocessing pool: each is a session of its
own, so that its ffmpeg always ends with it; its cores are set before NumPy, torch or an engine count them;
and one that dies is noticed at once, replaced, and its video tried once more.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path

from engines.errors import EngineError, Exit, not_a_file
from engines.progress import Progress
from pipeline.batch.batch import Jobs
from pipeline.batch.dataset import Request
from pipeline.parallel.cpu_affinity import shares_of_cores
from pipeline.parallel.worker import Broken, Counted, Crashed, Ended, Refused, Started
from pipeline.parallel.worker_process import is_stopped, start_worker
from pipeline.runner import Settings
from pipeline.video.mp4_boxes import frames_in_header

TRIES = 2  # of a video whose worker dies
NEARLY = 0.75  # of the longest waiting video's length: such count as the longest too
STOPPED = 30.0  # seconds that a stopped worker (SIGSTOP) may take to go on; then it is ended
LOOK = 5.0  # seconds between two looks at whether workers are stopped
GRACE = 4.0  # seconds for a worker that is terminated to remove its half-written video

OpenJobs = Callable[[Mapping[str, object]], Jobs]


def run_workers(
    settings: Settings, devices: Sequence[str], out: Path, open_jobs: OpenJobs, say: Callable[[str], None]
) -> Jobs:
    """Make the videos that are not finished, longest first, with one worker per device; return the jobs.

    open_jobs: opens the jobs for the identity of the first worker that has started. EngineError, and other
    errors of starting engines: no worker can start. DiskError. Errors of open_jobs. However this ends, no
    worker process is left.
    """
    pool = _Pool(settings, out, open_jobs, say)
    try:
        shares = shares_of_cores(len(devices))
        for number, (device, cores) in enumerate(zip(devices, shares, strict=True)):
            pool.start(Worker(number, replace(settings, device=device), out, cores))
        pool.work()
        return pool.jobs
    finally:
        pool.stop()


def longest_first(requests: Sequence[Request]) -> dict[Request, int]:
    """Sort requests by the frame counts in the videos' headers; by file size if one header has none.

    Return these numbers by request. Videos that cannot be opened come last: their worker says why.
    """
    measured = {request: _at_file(frames_in_header, request.video) for request in requests}
    if None in measured.values():
        measured = {request: _at_file(os.path.getsize, request.video) for request in requests}
    return dict(sorted(measured.items(), key=lambda item: item[1], reverse=True))


def _at_file(measure: Callable[[Path], int | None], path: Path) -> int | None:
    """Measure a file; 0 for what is not a file any more, or cannot be opened."""
    try:
        return 0 if not_a_file(path) else measure(path)
    except OSError:
        return 0


class Worker:
    """A process that makes videos for this one.

    name: for messages. request: the one it is working on. upcoming: the one that it reads ahead. why, crash:
    why it ends, by what it or this process has foreseen, or by an error that nobody has.
    """

    def __init__(self, number: int, settings: Settings, out: Path, cores: list[int]) -> None:
        self.number, self.settings, self.cores = number, settings, cores
        self.name = f"worker {number + 1} on {settings.device}"
        self.request = self.upcoming = None
        self.ready, self.why, self.crash = False, "", ""
        self._bar: Progress | None = None
        self._stopped_at: float | None = None
        self.process, self.connection = start_worker("pipeline.parallel.worker", "serve", cores, os.getpid())
        self._send((settings, out))

    def give(self, request: Request | None, upcoming: Request | None = None) -> None:
        """Send a request to make; None: there are no more, and the process ends. upcoming: to read ahead."""
        self.request, self.upcoming = request, upcoming
        self._send(request and (request, upcoming))

    def show(self, label: str, counted: Counted) -> None:
        """Show the progress of its video."""
        if self._bar is None:
            self._bar = Progress(label, counted.total, position=self.number).__enter__()
        self._bar.grow(counted.total - self._bar.total)
        self._bar.reach(counted.count)

    def hide(self) -> None:
        """Remove the progress bar: its video has ended."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.__exit__()

    def end_if_stopped(self) -> None:
        """Kill the process if it was stopped and has not gone on for STOPPED seconds."""
        if not is_stopped(self.process.pid):
            self._stopped_at = None
        elif self._stopped_at is None:
            self._stopped_at = time.monotonic()
        elif time.monotonic() - self._stopped_at > STOPPED:
            self.why = f"was stopped for {STOPPED:g} s and ended"
            self.process.kill()

    def end(self, seconds: float) -> tuple[str, Exit]:
        """Wait at most `seconds` for the process to end, then kill it with its ffmpeg.

        Return how it ended, in words and as an exit code.
        """
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        status = self.process.wait()
        self.connection.close()
        self.hide()
        if self.why:
            return self.why, Exit.ENVIRONMENT
        if status < 0:  # a system that runs out of memory sends SIGKILL
            reason = Exit.EXHAUSTED if status == -signal.SIGKILL else Exit.BUG
            return f"was ended by {signal.Signals(-status).name}", reason
        crash = f" ({self.crash})" if self.crash else ""
        return f"ended with status {status}{crash}", Exit.BUG

    def _send(self, message: object) -> None:
        with suppress(OSError):  # a dead process is noticed when its answer is received
            self.connection.send(message)


class _Pool:
    """The living workers, and the queue of requests that no worker has taken yet."""

    def __init__(
        self, settings: Settings, out: Path, open_jobs: OpenJobs, say: Callable[[str], None]
    ) -> None:
        self._settings, self._out, self._open_jobs, self._say = settings, out, open_jobs, say
        self._workers: list[Worker] = []
        self._queue: deque[Request] = deque()
        self._lengths: dict[Request, int] = {}
        self._deaths: defaultdict[str, list[str]] = defaultdict(list)
        self.jobs: Jobs | None = None

    def start(self, worker: Worker) -> None:
        """Add a worker to listen to."""
        self._workers.append(worker)

    def work(self) -> None:
        """Handle messages until all workers have ended."""
        while self._workers:
            ready = wait([worker.connection for worker in self._workers], LOOK)
            for worker in self._workers:
                worker.end_if_stopped()
            for worker in [each for each in self._workers if each.connection in ready]:
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    self._gone(worker)
                else:
                    self._heard(worker, message)

    def stop(self) -> None:
        """End all living workers: by SIGTERM, and after GRACE seconds by SIGKILL."""
        for worker in self._workers:
            worker.process.terminate()
        until = time.monotonic() + GRACE
        for worker in self._workers:
            worker.end(max(0.0, until - time.monotonic()))

    def _heard(self, worker: Worker, message: object) -> None:
        """Handle a worker's message. DiskError.

        Raises a worker's error if no worker has started before it, or if a video is what it was raised at.
        """
        match message:
            case Started():
                self._opened(worker, message)
                worker.ready = True
                self._give(worker)
            case Refused():
                if self.jobs is None or worker.ready:
                    raise message.error
                worker.why = f"cannot start ({message.error})"
            case Counted():
                worker.show(self.jobs.label(worker.request.id), message)
            case Broken():
                worker.why = f"failed ({message.why})"
            case Crashed():
                worker.crash = message.why
            case Ended():
                worker.hide()
                line = self.jobs.taken(message.line, worker.name)
                if message.reason is Exit.OK:
                    line["notes"] = [*line["notes"], *self._deaths[line["id"]]]
                self.jobs.ended(line, message.reason)
                self._give(worker)

    def _give(self, worker: Worker) -> None:
        """Give a worker one of the longest videos that wait: the one it has read, or one that no other reads.

        With it goes the next one that no other reads, to be read meanwhile.
        """
        first = list(islice(self._queue, 2 * len(self._workers) + 2))  # what workers read is among them
        least = NEARLY * self._lengths[first[0]] if first else 0
        longest = [request for request in first if self._lengths[request] >= least]
        others = [each.upcoming for each in self._workers if each is not worker]
        ranked = sorted(longest, key=lambda each: (each != worker.upcoming, each in others))  # stable
        request = next(iter(ranked), None)
        if request:
            self._queue.remove(request)
        worker.give(request, next((each for each in first if each not in (request, *others)), None))

    def _opened(self, worker: Worker, message: Started) -> None:
        """Open the jobs for the first worker that has started; check the identity of others. EngineError."""
        if self.jobs is None:
            for text in message.messages:
                self._say(text)
            self.jobs = self._open_jobs(message.identity)
            self._lengths = longest_first(self.jobs.todo)
            self._queue.extend(self._lengths)
        else:
            self.jobs.check(message.identity, worker.name)

    def _gone(self, worker: Worker) -> None:
        """Handle the end of a worker: replace it if it died at a video, which is tried once more.

        EngineError: it ended before it could start, no other worker is left, and there are videos to make.
        """
        self._workers.remove(worker)
        (why, reason), request = worker.end(GRACE), worker.request
        if request is None and worker.ready:
            return
        if request is None:
            if not self._workers and (self.jobs is None or self._queue):
                raise EngineError(f"{worker.name} {why} before it could make a video")
            self._say(f"{worker.name} {why}; going on without it")
            return
        deaths = self._deaths[request.id]
        deaths.append(f"{worker.name} {why} while it made this video")
        if len(deaths) == TRIES:
            self.jobs.lost(request, "; ".join(deaths), reason)
        else:
            self._say(f"{self.jobs.label(request.id)}: {deaths[0]}; it is tried once more")
            self._queue.appendleft(request)
        if self._queue:
            self.start(Worker(worker.number, worker.settings, self._out, worker.cores))
