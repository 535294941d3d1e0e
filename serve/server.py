"""Run the HTTP server over a store of jobs and their workers, until it is stopped."""

from __future__ import annotations

import asyncio
import logging
import socket

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from engines.cli import say
from engines.errors import Exit
from serve.app import Service, make_app
from serve.metrics import Metrics
from serve.settings import ServeSettings
from serve.store import Store
from serve.supervisor import Supervisor

MOST_CONNECTIONS = 500
HEAD_SECONDS = 10.0  # until a request's head is whole
STOP_SECONDS = 2  # for open connections, after SIGTERM


class Connection(H11Protocol):
    """A connection that is closed if a request's head is not whole after HEAD_SECONDS.

    Where all connections are taken, the one that has waited longest for its head makes room.
    """

    _waits: asyncio.TimerHandle | None = None  # for a head

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) >= self.limit_concurrency:
            waiting = [each for each in self.connections if each._waits and each is not self]
            for each in sorted(waiting, key=lambda each: each._waits.when())[:1]:
                each.close()

    def data_received(self, data: bytes) -> None:
        """Handle data; when a head is whole, nothing is waited for."""
        super().data_received(data)
        self._wait()

    def connection_lost(self, error: Exception | None) -> None:
        """Wait no more."""
        super().connection_lost(error)
        self._wait(False)

    def close(self) -> None:
        """Close the connection."""
        self._wait(False)
        self.connections.discard(self)  # at once: its place is free
        self.transport.close()

    def _wait(self, more: bool = True) -> None:
        answered = self.cycle is None or self.cycle.response_complete
        more = more and answered and self.conn.their_state is h11.IDLE
        if more and self._waits is None:
            self._waits = self.loop.call_later(HEAD_SECONDS, self.close)
        elif not more and self._waits is not None:
            self._waits.cancel()
            self._waits = None


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
        h11_max_incomplete_event_size=16_384, http=Connection, ws="none",
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
