"""Run the HTTP server over a store of jobs and their workers, until it is stopped."""

from __future__ import annotations

import logging
import socket

import uvicorn

from engines.cli import say
from engines.errors import Exit
from serve.app import Service, make_app
from serve.metrics import Metrics
from serve.settings import ServeSettings
from serve.store import Store
from serve.supervisor import Supervisor

MOST_CONNECTIONS = 500
STOP_SECONDS = 2  # for open connections, after SIGTERM


class Server(uvicorn.Server):
    """A server that ends its streams first when it is stopped, which else it would have to cancel."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then all else."""
        self.config.app.state.streams.stopping = True
        await super().shutdown(sockets)


def ends_early(record: logging.LogRecord) -> bool:
    """Return whether a line of the log says that a body has no end, as that of a broken stream."""
    return "without completing response" in record.getMessage()


def answer(settings: ServeSettings, store: Store, listener: socket.socket) -> Exit:
    """Answer requests on a socket until the service is stopped."""
    metrics = Metrics(store)
    supervisor = Supervisor(settings, store, metrics, say, lambda: setattr(server, "should_exit", True))
    metrics.ready = lambda: supervisor.ready
    app = make_app(Service(settings, store, metrics, supervisor), say)
    server = Server(uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, proxy_headers=False, lifespan="on",
        limit_concurrency=MOST_CONNECTIONS, timeout_graceful_shutdown=STOP_SECONDS,
        h11_max_incomplete_event_size=16_384, http="h11", ws="none",
    ))  # fmt: skip
    logging.getLogger("uvicorn.error").addFilter(lambda record: not ends_early(record))
    host, port = listener.getsockname()[:2]
    say(f"http://{f'[{host}]' if ':' in host else host}:{port}/  (Ctrl-C stops it)")
    try:
        server.run(sockets=[listener])
    finally:
        supervisor.stop()
    if supervisor.error is not None:
        raise supervisor.error
    return Exit.OK
