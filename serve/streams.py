"""Give a job's video and progress while it is made; a client that goes away ends its stream, not the job."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

from anyio import CapacityLimiter, to_thread
from starlette.concurrency import run_in_threadpool

from pipeline.video.live_writer import write_late
from serve.settings import LIVE, WATCHED
from serve.store import Job, Store

LOOK = 0.05  # seconds between two looks at what has grown
BEAT = 15.0  # seconds after which a silent stream of events shows that it lives
BLOCK = 1 << 18


class Growing:
    """A reader of the newest of a job's growing files.

    When a worker died, the next one begins a new file. Equal frames give equal bytes, so a reader goes on in
    it where it was, after checking that what it gave so far is there too.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path, self._offset, self._given = folder, None, 0, hashlib.sha256()

    def more(self) -> bytes | None:
        """Return what has come, at most a block; None: another file began that does not continue this one."""
        newest = max(self._folder.glob("live-*.mp4"), default=None)
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


def want(job: Job, folder: Path) -> None:
    """Have the job's worker begin the growing file; write it here if the job ended without one."""
    with suppress(FileNotFoundError):  # the job was removed
        if job.open:
            (folder / WATCHED).touch()
        elif job.state == "completed" and not any(folder.glob("live-*.mp4")):
            write_late(folder / f"{job.id}.mp4", folder / LIVE.format(job.attempt, 1))


async def growing_video(
    store: Store, job: Job, folder: Path, limiter: CapacityLimiter
) -> AsyncIterator[bytes]:
    """Give the bytes of a job's growing file until the job has ended and all was given.

    limiter: of the threads in which files may be written late.
    """
    growing = Growing(folder)
    while True:
        now = await run_in_threadpool(store.get, job.id)
        if now and not now.open:
            await to_thread.run_sync(want, now, folder, limiter=limiter)
        while data := await run_in_threadpool(growing.more):
            yield data
        if data is None or now is None or not now.open:
            return
        await asyncio.sleep(LOOK)


async def events(store: Store, job: Job, shown: Callable[[Job], dict]) -> AsyncIterator[str]:
    """Give server-sent events: progress, first_frame, and at last completed, failed, cancelled or deleted."""
    last, first, spoke = None, False, time.monotonic()
    while True:
        now = await run_in_threadpool(store.get, job.id)
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


def _event(kind: str, data: dict) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
