"""Run a worker process: it starts an engine for each recipe, keeps them, and makes one job after another.

Its parent may be killed at any moment, and so may it: a job counts as made when its row says so.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from shutil import rmtree

import numpy as np

from engines.errors import Exit, OutputError, VivaceError
from pipeline.batch.dataset import Request
from pipeline.parallel.worker import REFUSALS, TICK, Broken, Ended, Refused, Started
from pipeline.runner import VideoRunner, start_runner
from pipeline.video.live_writer import LiveVideo
from pipeline.video.writer import remove_unfinished
from serve.judged import compare
from serve.settings import LIVE, WATCHED, ServeSettings
from serve.store import Job, Store
from serve.uploads import without_paths
from serve.watchdog import Took

IDLE = 0.05  # seconds between two looks into an empty queue
SHOWN = (
    "generator", "backend", "precision", "frames", "size", "actions", "frames_sha256", "output_sha256",
    "video_sha256", "image_sha256", "first_frame_seconds", "total_seconds", "seconds",
)  # fmt: skip


class JobLost(Exception):
    """Raised when a job was cancelled or has ended otherwise, so that making it stops."""


class JobProgress:
    """A stand-in for Progress that writes to the table, every TICK seconds. JobLost, at such a moment."""

    def __init__(self, store: Store, job: Job) -> None:
        self._store, self._job = store, job
        self._tries, self._done, self._total, self._made, self._first, self._sent = 0, 0, 0, 0, None, 0.0
        self._live: LiveVideo | None = None

    def __call__(self, total: int) -> JobProgress:
        """Begin a try at the video, of so many evaluations."""
        self._done, self._total, self._made = 0, total, 0
        return self

    def __enter__(self) -> JobProgress:
        return self

    def __exit__(self, *error: object) -> None:
        """Do nothing: there is nothing to close."""

    def tick(self) -> None:
        """Count one more evaluation as done."""
        self._done += 1
        if self._live:
            self._live.feed()
        self.send(TICK)

    def grow(self, count: int) -> None:
        """Add evaluations to be done."""
        self._total += count

    def watch(
        self, folder: Path, chunks: Iterable[np.ndarray], size: tuple[int, int], fps: Fraction
    ) -> Iterator[np.ndarray]:
        """Give the frames on, count them, and write the file that grows, from when somebody watches."""
        self._tries += 1
        self.close()
        growing = folder / LIVE.format(self._job.attempt, self._tries)
        self._live = LiveVideo(growing, size, fps, (folder / WATCHED).exists)
        with self._live as live:
            for chunk in chunks:
                with suppress(OutputError):  # its stream breaks off, which close tells; the video goes on
                    live.write(chunk)
                self._made += len(chunk)
                if self._first is None:
                    self._first = time.time() - self._job.started
                    self.send(0)
                self.send(TICK)
                yield chunk

    def close(self, whole: bool = False) -> str | None:
        """End the growing file, if there is one; if it should be whole, return why it is not."""
        why = None
        if self._live is not None:
            try:
                if whole:
                    self._live.wait()
            except OutputError as error:
                why = f"the video is whole, its stream broke off: {error}"
            self._live.close()
            self._live = None
        return why

    def send(self, every: float) -> None:
        """Write to the table unless that was done within the last seconds. JobLost."""
        if time.monotonic() - self._sent >= every:
            self._sent = time.monotonic()
            with suppress(OSError):  # a full disk: whether the job has ended is found out later
                if not self._store.progress(self._job, self._done, self._total, self._made, self._first):
                    raise JobLost


def work(descriptor: int) -> None:
    """Run a worker on a pipe, which brings its number, its device and the service's settings.

    When the other end of the pipe closes, this process is killed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the service, which then closes the pipe
    with Connection(descriptor) as connection:
        number, device, settings = connection.recv()
        threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
        try:
            said: list[str] = []
            named = {name: settings.run_settings(name, device) for name in settings.recipes}
            runners = {name: start_runner(each, said.append) for name, each in named.items()}
        except REFUSALS as error:
            connection.send(Refused(error))
            return
        connection.send(Started({name: runner.identity for name, runner in runners.items()}, said))
        try:
            store = Store(settings.database)
            while True:
                if asked := store.comparisons.claim(number):
                    connection.send(Took(asked))
                    compare(asked, store, settings)
                    connection.send(Took(None))
                elif job := store.claim(number):
                    connection.send(Took(job))
                    connection.send(make(job, store, runners.get(job.recipe), settings))
                else:
                    for runner in runners.values():
                        runner.close()
                    time.sleep(IDLE)
        except (VivaceError, OSError) as error:
            connection.send(Broken(str(error)))


def make(job: Job, store: Store, runner: VideoRunner | None, settings: ServeSettings) -> Ended:
    """Make a job's video and end the job; remove its files if it was cancelled meanwhile. EngineError.

    runner: of its recipe; None: the service was started again without that recipe.
    """
    if runner is None:
        store.end(job, "failed", None, "unknown_recipe", f"Recipe {job.recipe} is not offered any more.")
        return Ended({}, Exit.USAGE)
    folder, progress = settings.videos / job.id, JobProgress(store, job)
    runner.options = replace(runner.options, watch=partial(progress.watch, folder))
    later = store.upcoming(len(settings.devices))
    upcoming = request_of(later, settings) if later and later.recipe == job.recipe else None
    line, reason = {}, Exit.INTERRUPTED
    with suppress(JobLost):
        folder.mkdir(exist_ok=True)  # it is there, unless someone else removed it: then the video is missing
        remove_unfinished(folder)
        remove_growing(folder)  # of earlier attempts
        line, reason = runner(request_of(job, settings), folder, progress, upcoming=upcoming)
        progress.send(0)
        if reason is Exit.OK:
            broken = progress.close(whole=True)
            if broken:  # who asks later gets a stream of the finished video
                remove_growing(folder)
            notes = [without_paths(note, folder) for note in filter(None, [*line["notes"], broken])]
            store.end(job, "completed", {**{key: line[key] for key in SHOWN}, "notes": notes})
        else:
            store.end(job, "failed", None, reason.name.lower(), without_paths(line["error"], folder))
    progress.close()
    left = store.get(job.id)
    if left is None or left.state == "cancelled":
        rmtree(folder, ignore_errors=True)
    return Ended(line, reason)


def remove_growing(folder: Path) -> None:
    """Remove a job's growing files."""
    for growing in folder.glob("live-*"):
        growing.unlink()


def request_of(job: Job, settings: ServeSettings) -> Request:
    """Return what a job's video is made of."""
    folder = settings.videos / job.id
    return Request(job.id, folder / "video", folder / "image", job.seed)


def _end_with(connection: Connection) -> None:
    """Wait until the other end of the pipe closes, then kill this process and its ffmpeg."""
    with suppress(EOFError, OSError):
        connection.recv()
    os.killpg(0, signal.SIGKILL)
