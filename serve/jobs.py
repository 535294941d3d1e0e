"""Answer requests on video jobs: accept, show, list, give, cancel, remove."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse

from pipeline.video.info import VideoInfo
from serve.errors import ApiError, not_found
from serve.keys import owner_of
from serve.settings import ServeSettings
from serve.store import OVER, Full, Job, Store, new_id
from serve.streams import GrowingResponse, Streams
from serve.uploads import check, received, save

IDEMPOTENCY = re.compile(r"[\x21-\x7e]{1,200}")
CHECKS = 2  # uploads looked at, at once: each runs an ffmpeg
LIST = re.compile(r"\d{1,3}")


class JobRoutes:
    """The answers under /v1/videos, for one service. streams: those that it gives."""

    def __init__(self, settings: ServeSettings, store: Store) -> None:
        self._settings, self._store = settings, store
        self._checks = anyio.CapacityLimiter(CHECKS)
        self._turns = {owner: anyio.CapacityLimiter(1) for owner in settings.keys}
        self.streams = Streams(store, settings.videos)

    async def create(self, request: Request) -> Response:
        """Accept a job: 202, when its files and row are on the disk; 200 for one known by its key."""
        owner, key = self._owner(request), request.headers.get("idempotency-key")
        if key is not None and not IDEMPOTENCY.fullmatch(key):
            raise ApiError(400, "invalid_key", "Idempotency-Key must be 1 to 200 visible ASCII characters.")
        await run_in_threadpool(self._check_room, owner, key)  # before the body is read
        async with received(request, self._settings) as upload:
            name = new_id()
            folder = self._settings.videos / name
            try:
                files = await run_in_threadpool(save, upload, folder)
                info = await self._checked(owner, folder)
                asked = (upload.recipe, upload.seed, info.frames, str(info.fps), time.time())
                job = await run_in_threadpool(self._accept, Job(name, owner, key, files, *asked))
            finally:
                if await run_in_threadpool(self._store.get, name) is None:
                    await run_in_threadpool(shutil.rmtree, folder, True)
        where = {"Location": f"/v1/videos/{job.id}"}
        return JSONResponse(self.shown(job), 202 if job.id == name else 200, where)

    async def _checked(self, owner: str, folder: Path) -> VideoInfo:
        """Look at an upload's files in its turn; of several keys each has one at a time. ApiError: 400."""
        async with self._turns[owner] if self._settings.keys else nullcontext():
            return await anyio.to_thread.run_sync(check, folder, self._settings, limiter=self._checks)

    def _accept(self, job: Job) -> Job:
        """Queue an upload's job, whose inputs are the hash of its files. ApiError, OSError."""
        inputs = self._settings.inputs_of(job.inputs, job.seed, job.recipe)
        known = self.add(replace(job, inputs=inputs))
        if known.inputs != inputs:
            told = "This Idempotency-Key came with other inputs, or for another generator or recipe"
            raise ApiError(409, "key_reused", f"{told}; take a new one.")
        return known

    def _check_room(self, owner: str, key: str | None) -> None:
        """Refuse who may have no job more, unless it is asked again for one. ApiError: 429."""
        if key is None or not self._store.keyed(owner, key):
            with self._full_told():
                self._store.check_room(owner, self._settings.most_queued, self._settings.most_per_key)

    def add(self, job: Job) -> Job:
        """Queue a job, or return the one that came with its key before. ApiError: 429."""
        with self._full_told():
            return self._store.add(job, self._settings.most_queued, self._settings.most_per_key)

    @contextmanager
    def _full_told(self) -> Iterator[None]:
        """Turn Full into an answer that says when to come again."""
        try:
            yield
        except Full as error:
            wait = max(1, round(self._store.usual_seconds() / len(self._settings.devices)))
            what = "You have as many videos waiting as one key may" if error.own else "The queue is full"
            told = f"{what}. Try again in {wait} s."
            raise ApiError(429, "queue_full", told, {"Retry-After": str(wait)}) from error

    async def listing(self, request: Request) -> Response:
        """List the caller's jobs, newest first unless order=asc: `limit` of them, after the job `after`."""
        owner, query = self._owner(request), request.query_params
        limit, order, after = query.get("limit", "20"), query.get("order", "desc"), query.get("after")
        if not LIST.fullmatch(limit) or not 1 <= int(limit) <= 100 or order not in ("asc", "desc"):
            raise ApiError(400, "invalid_query", "limit must be 1 to 100, and order asc or desc.")
        if after is not None:
            await self._own(after, owner)
        found = await run_in_threadpool(self._store.listed, owner, after, order == "desc", int(limit) + 1)
        data = [self.shown(job) for job in found[: int(limit)]]
        return JSONResponse({"object": "list", "data": data, "has_more": len(found) > len(data)})

    async def get(self, request: Request) -> Response:
        """Show a job."""
        return JSONResponse(self.shown(await self.asked(request)))

    async def content(self, request: Request) -> Response:
        """Give the finished video, or a range of it."""
        job = await self.asked(request)
        if job.state != "completed":
            raise ApiError(409, "not_ready", f"The video is {job.state}. Its events say when it ends.")
        path = self._settings.videos / job.id / f"{job.id}.mp4"
        return FileResponse(path, media_type="video/mp4", filename=path.name)

    async def stream(self, request: Request) -> Response:
        """Give the video while it is made, as fragmented MP4."""
        job = await self.asked(request)
        if job.state in OVER:
            raise ApiError(409, job.state, f"The video was not made: {job.error or 'it was cancelled'}.")
        await self.streams.begin(job)
        return GrowingResponse(self.streams.video(job), media_type="video/mp4")

    async def events(self, request: Request) -> Response:
        """Give the job's progress as server-sent events."""
        job = await self.asked(request)
        return StreamingResponse(self.streams.events(job, self.shown), media_type="text/event-stream")

    async def delete(self, request: Request) -> Response:
        """Cancel a job that has not ended, or remove one that has."""
        job = await self.asked(request)
        if job.open:
            return JSONResponse(self.shown(await run_in_threadpool(self._cancelled, job)))
        await run_in_threadpool(self.remove, job)
        return JSONResponse({"id": job.id, "object": "video.deleted", "deleted": True})

    async def cancel(self, request: Request) -> Response:
        """Cancel a job; one that has ended, perhaps just now, stays as it is."""
        job = await self.asked(request)
        return JSONResponse(self.shown(await run_in_threadpool(self._cancelled, job)))

    def _cancelled(self, job: Job) -> Job:
        """Cancel a job unless it has ended; return it as it is now. ApiError: 404; OSError."""
        stopped = self._store.cancel(job.id)
        now = self._store.get(job.id)
        if now is None:  # it was removed meanwhile
            raise not_found(job.id)
        if stopped and now.worker is None:  # else its worker removes the files, when it has stopped writing
            shutil.rmtree(self._settings.videos / job.id, True)
        return now

    def remove(self, job: Job) -> None:
        """Forget a job that has ended, and its files. OSError."""
        folder = self._settings.videos / job.id
        try:
            self._store.remove(job.id)
        except OSError:  # a full disk: what the files held makes room
            shutil.rmtree(folder, True)
            self._store.remove(job.id)
        shutil.rmtree(folder, True)

    def shown(self, job: Job) -> dict:
        """Return what a caller sees of a job."""
        ran = (job.ended or time.time()) - job.started if job.started else None
        rate = job.made / ran if ran else None
        return {
            "id": job.id,
            "object": "video",
            "status": job.state,
            "progress": 100 if job.state == "completed" else 99 * job.done // max(job.total, 1),
            "recipe": job.recipe,
            "seed": job.seed,
            "created_at": job.created,
            "started_at": job.started,
            "completed_at": job.ended,
            "frames": job.frames,
            "frames_made": job.made,
            "fps": job.fps,
            "first_frame_seconds": job.first,
            "frames_per_second": rate,
            "real_time_factor": float(Fraction(job.fps)) / rate if rate else None,
            "error": {"code": job.code, "message": job.error} if job.error else None,
            "result": json.loads(job.result),
        }

    def _owner(self, request: Request) -> str:
        return owner_of(self._settings.keys, request.headers.get("authorization", ""))

    async def asked(self, request: Request) -> Job:
        """Return the caller's job that a request names. ApiError: 401, 404."""
        return await self._own(request.path_params["id"], self._owner(request))

    async def _own(self, name: str, owner: str) -> Job:
        job = await run_in_threadpool(self._store.get, name)
        if job is None or job.owner != owner:
            raise not_found(name)
        return job
