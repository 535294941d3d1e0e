"""Put the service's routes together, with what guards them all."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from bench.report import PAGE as REPORT_PAGE
from engines.cli import SAMPLE
from engines.errors import DISK_FULL, InputError
from pipeline.batch.dataset import find_requests
from serve.clock import PAUSE, Clock
from serve.compare import ComparisonRoutes
from serve.errors import ApiError
from serve.jobs import JobRoutes
from serve.keys import owner_of
from serve.metrics import Metrics
from serve.settings import ServeSettings
from serve.store import Store
from serve.supervisor import Supervisor
from serve.uploads import BodyLimit

PAGE = Path(__file__).parent / "page"
PAGE_FILES = {
    "/": PAGE / "index.html",
    **{f"/{name}": PAGE / name for name in ("page.css", "page.js", "compare.js", "icon.svg")},
    **{f"/{name}": REPORT_PAGE / name for name in ("player.css", "elements.js", "player.js")},
}
ROUND = 1.0  # seconds between two rounds of looking after the jobs
PATIENCE = 10  # rounds that are left out after one that failed
CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx, before this, gives streams on as they come
}


@dataclass(frozen=True)
class Service:
    """What the routes work on."""

    settings: ServeSettings
    store: Store
    metrics: Metrics
    supervisor: Supervisor


def make_app(service: Service, say: Callable[[str], None]) -> Starlette:
    """Return the service's app, with its streams in its state. say: is told of jobs that took too long."""
    settings, jobs = service.settings, JobRoutes(service.settings, service.store)
    comparisons = ComparisonRoutes(settings, service.store, jobs)
    videos, one = "/v1/videos", "/v1/videos/{id}"
    routes = [
        Route(videos, jobs.create, methods=["POST"]),
        Route(videos, jobs.listing),
        Route(one, jobs.get),
        Route(one, jobs.delete, methods=["DELETE"]),
        Route(f"{one}/cancel", jobs.cancel, methods=["POST"]),
        Route(f"{one}/content", jobs.content),
        Route(f"{one}/stream", jobs.stream),
        Route(f"{one}/events", jobs.events),
        Route(f"{one}/comparison", comparisons.ask, methods=["POST"]),
        Route(f"{one}/comparison", comparisons.get),
        *_facts(service),
        *_page(),
    ]
    layers = [Middleware(Guard, hosts=settings.hosts), Middleware(BodyLimit, most=settings.most_bytes)]

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.supervisor.start()
        task = asyncio.create_task(look_after(service, jobs, say))
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    app = Starlette(routes=routes, middleware=layers, exception_handlers=HANDLERS, lifespan=lifespan)
    app.state.streams = jobs.streams
    return app


class Guard:
    """A layer that adds HEADERS, and refuses requests for other hosts, or from pages of other sites.

    A page of another site can make its visitor's browser send requests to this machine.
    """

    def __init__(self, app: Callable, hosts: Sequence[str]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Pass a request on if its Host is one of ours, and its Origin, if any, the same."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        asked = Headers(scope=scope)
        host, origin = asked.get("host", ""), asked.get("origin")

        async def guarded(message: dict) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        app = self._app
        if "*" not in self._hosts and re.sub(r":\d+$", "", host) not in self._hosts:
            app = await _refused(None, ApiError(400, "other_host", "Not a name of this service; see --name."))
        elif origin is not None and origin.partition("://")[2] != host:
            app = await _refused(None, ApiError(403, "other_origin", "Other sites cannot use this service."))
        await app(scope, receive, guarded)


async def _refused(request: Request | None, error: HTTPException | ApiError) -> Response:
    if not isinstance(error, ApiError):  # one of Starlette's own
        code = CODES.get(error.status_code, "refused")
        told = f"{error.detail}. See docs/serve.md for what there is."
        error = ApiError(error.status_code, code, told, error.headers)
    body = {"error": {"code": error.code, "message": error.detail}}
    return JSONResponse(body, error.status_code, error.headers)


async def _broken(request: Request, error: Exception) -> Response:
    return await _refused(
        request, ApiError(500, "internal", "The server failed; its log says why. Try again.")
    )


async def _full(request: Request, error: OSError) -> Response:
    if error.errno not in DISK_FULL:
        raise error
    return await _refused(request, ApiError(507, "disk_full", "The server's disk is full. Try again later."))


HANDLERS = {HTTPException: _refused, ApiError: _refused, OSError: _full, 500: _broken}


def _facts(service: Service) -> list[Route]:
    settings, supervisor = service.settings, service.supervisor

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(request: Request) -> Response:
        await run_in_threadpool(service.store.counts)
        status = 200 if supervisor.ready else 503
        return JSONResponse({"workers_ready": supervisor.ready, "workers": len(settings.devices)}, status)

    async def metrics(request: Request) -> Response:
        owner_of(settings.keys, request.headers.get("authorization", ""))
        text = await run_in_threadpool(service.metrics.text)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def recipes(request: Request) -> Response:
        owner_of(settings.keys, request.headers.get("authorization", ""))
        named = settings.recipes.items()
        data = [{"id": name, "object": "recipe", "note": recipe.note} for name, recipe in named]
        limits = {
            "bytes": settings.most_bytes, "frames": settings.limits.frames, "pixels": settings.limits.pixels
        }  # fmt: skip
        generator = await run_in_threadpool(lambda: settings.generator_name)  # loaded by the first who asks
        more = {"generator": generator, "base": settings.base, "limits": limits}
        return JSONResponse({"object": "list", "data": data, **more})

    return [
        Route("/healthz", health),
        Route("/readyz", ready),
        Route("/metrics", metrics),
        Route("/v1/recipes", recipes),
    ]


def _page() -> list[Route]:
    """Return the routes of the page and of the bundled samples, by name, which need no key."""
    try:
        samples = {request.id: request for request in find_requests(SAMPLE).requests}
    except InputError:  # a checkout without data/
        samples = {}

    def file(path: Path) -> Callable:
        async def give(request: Request) -> Response:
            return FileResponse(path)

        return give

    async def listing(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": list(samples)})

    files = {**PAGE_FILES}
    for name, request in samples.items():
        files |= {f"/samples/{name}/video": request.video, f"/samples/{name}/image": request.image}
    return [Route("/samples", listing), *(Route(path, file(where)) for path, where in files.items())]


async def look_after(
    service: Service, jobs: JobRoutes, say: Callable[[str], None], every: float = ROUND
) -> None:
    """End jobs that run for too long, and remove those that ended long ago, until cancelled."""
    clock = Clock()
    while True:
        try:
            await _look(service, jobs, clock, say)
        except OSError as error:  # a full disk: what is removed next time makes room
            say(f"jobs are looked after again in {every * PATIENCE:g} s: {error}")
            await asyncio.sleep(every * (PATIENCE - 1))
        await asyncio.sleep(every)


async def _look(service: Service, jobs: JobRoutes, clock: Clock, say: Callable[[str], None]) -> None:
    """Look after the jobs once. OSError."""
    kept = service.settings.keep_seconds
    now = clock.now(min(PAUSE, kept))
    if now is not None:  # and no later look at the clock counts: it may jump in between
        for job in await run_in_threadpool(service.store.expired, now - kept):
            await run_in_threadpool(jobs.remove, job)
    for text in await run_in_threadpool(service.supervisor.watchdog.look):
        say(text)
