"""Give a job's video and progress while it is made; a client that goes away ends its stream, not the job."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from anyio import CapacityLimiter, to_thread
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Send

from engines.errors import OutputError
from pipeline.video.live_writer import write_late
from serve.settings import LIVE, WATCHED
from serve.store import Job, Store

LOOK = 0.05  # seconds between two looks at what has grown
BEAT = 15.0  # seconds after which a silent stream of events shows that it lives
BLOCK = 1 << 18
LATE = 2  # growing files written at once after their jobs' ends: each runs an ffmpeg
LAST = 9999  # the number of such a file, which is newer than those of all tries


class StreamBroken(Exception):
    """Raised when a stream ends before its video does."""


class GrowingResponse(StreamingResponse):
    """An answer whose body stays without its end if the stream breaks, so that its client sees that."""

    async def stream_response(self, send: Send) -> None:
        """Send the chunks; the server closes the connection of a body without an end."""
        with suppress(StreamBroken):
            await super().stream_response(send)


@dataclass(frozen=True)
class Look:
    """What one look at a job found: its row, and its newest growing file and that one's bytes."""

    job: Job | None
    path: Path | None = None
    size: int = 0


def newest_live(folder: Path) -> Path | None:
    """Return a job's newest growing file; None: it has none."""
    return max(folder.glob("live-*.mp4"), default=None)


class Growing:
    """A reader of the newest of a job's growing files.

    When a worker died, the next one begins a new file. Equal frames give equal bytes, so a reader goes on in
    it where it was, after checking that what it gave so far is there too.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path, self._offset, self._given = folder, None, 0, hashlib.sha256()

    def has_more(self, look: Look) -> bool:
        """Return whether a look found what was not given yet."""
        return look.path is not None and (look.path != self._path or look.size > self._offset)

    def whole(self) -> bool:
        """Return whether all of the newest file was given."""
        newest = newest_live(self._folder)
        try:
            return newest is not None and (newest, newest.stat().st_size) == (self._path, self._offset)
        except FileNotFoundError:
            return False

    def more(self) -> bytes | None:
        """Return what has come, at most a block; None: another file began that does not continue this one."""
        newest = newest_live(self._folder)
        try:
            if newest is None or (newest != self._path and newest.stat().st_size < self._offset):
                return b""
            with newest.open("rb") as file:
                if newest != self._path:
                    if hashlib.sha256(file.read(self._offset)).digest() != self._given.digest():
                        return None
                    self._path = newest
                file.seek(self._offset)
                data = file.read(BLOCK)
        except FileNotFoundError:  # the job was cancelled
            return b""
        self._offset += len(data)
        self._given.update(data)
        return data


def want(job: Job, folder: Path) -> bool:
    """Have the job's worker begin the growing file; return whether that has to be written late."""
    if job.open:
        with suppress(FileNotFoundError):  # the job was removed
            (folder / WATCHED).touch()
    return job.state == "completed" and newest_live(folder) is None


def write_now(job: Job, folder: Path) -> None:
    """Write the growing file of a job that ended without one. OutputError."""
    with suppress(FileNotFoundError):  # the job was removed
        if want(job, folder):  # else another viewer had it written
            write_late(folder / f"{job.id}.mp4", folder / LIVE.format(job.attempt, LAST))


class Streams:
    """The streams of a service's jobs. stopping: set it, and all end.

    However many watch a job, its row and files are looked at once in LOOK seconds.
    """

    def __init__(self, store: Store, videos: Path) -> None:
        self._store, self._videos, self.stopping = store, videos, False
        self._late = CapacityLimiter(LATE)
        self._looks: dict[str, tuple[float, asyncio.Task[Look]]] = {}  # with when they began

    async def begin(self, job: Job) -> None:
        """Have the job's growing file begun, or written if the job has ended without one. OutputError."""
        folder = self._videos / job.id
        if await run_in_threadpool(want, job, folder):
            await to_thread.run_sync(write_now, job, folder, limiter=self._late)

    async def video(self, job: Job) -> AsyncIterator[bytes]:
        """Give the bytes of a job's growing file until it is whole. StreamBroken: it will not be."""
        growing = Growing(self._videos / job.id)
        while not self.stopping:
            look = await self._look(job.id)
            if look.job is None:
                break
            if not look.job.open:
                with suppress(OutputError):  # then it is not whole
                    await self.begin(look.job)
            data = b""
            if not look.job.open or growing.has_more(look):
                while data := await run_in_threadpool(growing.more):
                    yield data
            if data is None or not look.job.open:
                if look.job.state == "completed" and await run_in_threadpool(growing.whole):
                    return
                break
            await asyncio.sleep(LOOK)
        raise StreamBroken

    async def events(self, job: Job, shown: Callable[[Job], dict]) -> AsyncIterator[str]:
        """Give server-sent events: progress, first_frame, at last completed, failed, cancelled or deleted."""
        last, first, spoke = None, False, time.monotonic()
        while not self.stopping:
            now = (await self._look(job.id)).job
            if now is None:
                yield _event("deleted", {"id": job.id})
                return
            if now.first is not None and not first:
                first = True
                yield _event("first_frame", shown(now))
            if not now.open:
                yield _event(now.state, shown(now))
                return
            if now != last:
                last, spoke = now, time.monotonic()
                yield _event("progress", shown(now))
            elif time.monotonic() - spoke > BEAT:
                spoke = time.monotonic()
                yield ": still here\n\n"
            await asyncio.sleep(2 * LOOK)

    async def _look(self, name: str) -> Look:
        """Look at a job, or share a look that is younger than LOOK seconds. OSError."""
        now = time.monotonic()
        self._looks = {each: look for each, look in self._looks.items() if now - look[0] < LOOK}
        if name not in self._looks:
            self._looks[name] = now, asyncio.create_task(run_in_threadpool(self._found, name))
        return await asyncio.shield(self._looks[name][1])

    def _found(self, name: str) -> Look:
        job = self._store.get(name)  # first: the file of a job that has ended does not grow
        path = newest_live(self._videos / name)
        try:
            return Look(job, path, path.stat().st_size if path else 0)
        except FileNotFoundError:  # of an earlier attempt
            return Look(job)


def _event(kind: str, data: dict) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
