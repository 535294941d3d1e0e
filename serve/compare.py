"""Answer requests to compare a video with the base model's: have that made, both judged, show the verdict."""

from __future__ import annotations

import json
import shutil
import threading
import time

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serve.errors import ApiError, not_found
from serve.jobs import JobRoutes
from serve.settings import ServeSettings
from serve.store import OVER, Job, Store, new_id
from serve.uploads import link


class ComparisonRoutes:
    """The answers under /v1/videos/{id}/comparison, for one service."""

    def __init__(self, settings: ServeSettings, store: Store, jobs: JobRoutes) -> None:
        self._settings, self._store, self._jobs = settings, store, jobs
        self._lock = threading.Lock()  # so that two requests make one base run

    async def ask(self, request: Request) -> Response:
        """Ask for a comparison, and for a base run if there is none: 202; 200 if that was done before."""
        job = await self._jobs.asked(request)
        shown, new = await run_in_threadpool(self._ask, job)
        return JSONResponse(shown, 202 if new else 200)

    async def get(self, request: Request) -> Response:
        """Show a comparison; one that was not asked for says whether a base run of the same inputs exists."""
        return JSONResponse(await run_in_threadpool(self._shown, await self._jobs.asked(request)))

    def _ask(self, job: Job) -> tuple[dict, bool]:
        """Return a comparison as it is shown, and whether it is a new one. ApiError: 404, 409, 429."""
        with self._lock:
            shown = self._shown(job)
            if shown["status"] not in ("not_asked", "failed"):
                return shown, False
            if job.state in OVER:
                raise ApiError(409, job.state, f"The video was not made: {job.error or 'it was cancelled'}.")
            if self._settings.base is None:
                told = "The base model is not offered here: give --recipe baseline.toml to the service too."
                raise ApiError(409, "no_base", told)
            if job.recipe == self._settings.base:
                told = "This is the base model's video. Compare one of another recipe."
                raise ApiError(409, "is_base", told)
            if not self._same_generator(job):
                told = "This video was made by a generator that is not the service's any more. Make it again."
                raise ApiError(409, "other_generator", told)
            try:
                base = self._base_of(job) or self._new_base(job)
            except FileNotFoundError as error:  # it was removed meanwhile
                raise not_found(job.id) from error
            if not self._store.comparisons.ask(job.id, base.id):
                raise not_found(job.id)
            return self._shown(job), True

    def _base_of(self, job: Job) -> Job | None:
        """Return the base run of a job's inputs, if there is one."""
        if self._settings.base in (None, job.recipe) or job.state in OVER or not self._same_generator(job):
            return None
        return self._store.alike(job.owner, self._inputs(job))

    def _inputs(self, job: Job) -> str:
        return self._settings.inputs_of(job.inputs.partition(" ")[0], job.seed, self._settings.base)

    def _same_generator(self, job: Job) -> bool:
        """Return whether a job was asked of the service's generator as it is now."""
        return job.inputs.split(" ")[1] == self._settings.generator_hash

    def _new_base(self, job: Job) -> Job:
        name = new_id()
        asked = (self._settings.base, job.seed, job.frames, job.fps)
        folder = self._settings.videos / name
        try:
            link(self._settings.videos / job.id, folder)
            return self._jobs.add(Job(name, job.owner, None, self._inputs(job), *asked, created=time.time()))
        finally:
            if self._store.get(name) is None:
                shutil.rmtree(folder, True)

    def _shown(self, job: Job) -> dict:
        """Return what a caller sees of a job's comparison."""
        found = self._store.comparisons.get(job.id)
        base = self._store.get(found.base) if found else self._base_of(job)
        state, error = (found.state, found.error) if found else ("not_asked", None)
        over = next((each for each in (job, base) if found and each and each.state in OVER), None)
        if state == "queued" and over:
            which = "video" if over is job else "base model's video"
            state, error = "failed", f"The {which} was not made: {over.error or 'it was cancelled'}."
        return {
            "object": "video.comparison",
            "video": job.id,
            "status": state,
            "base": self._jobs.shown(base) if base else None,
            "error": {"code": "not_compared", "message": error} if state == "failed" else None,
            "result": json.loads(found.result) if found else None,
        }
