"""Connections that send no request, or only its beginning, go; they shut nobody out."""

import socket
import threading
import time

import pytest
import uvicorn

from serve import server
from serve.server import Connection
from tests.serve.conftest import httpx

MOST = 6


@pytest.fixture
def address(service):
    """The address of a service behind a server that takes few connections."""
    config = uvicorn.Config(service.client.app, log_level="error", lifespan="off", http=Connection, ws="none",
                            limit_concurrency=MOST)
    running = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()
        running.should_exit = True
        thread.join()


def ask(address):
    url = f"http://{address[0]}:{address[1]}/healthz"
    return httpx.get(url, headers={"Host": "testserver"}, timeout=30).status_code


HEAD = b"GET /healthz HTTP/1.1\r\nHost: testserver\r\n"


@pytest.mark.parametrize(("first", "begun"), [(b"", b""), (b"", HEAD), (HEAD + b"\r\n", HEAD)])
def test_a_head_that_is_not_whole_in_time_ends_its_connection(address, monkeypatch, first, begun):
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)
    with socket.create_connection(address, 30) as idle:
        idle.sendall(first)
        data = b"" if first else b"ok"
        while not data.endswith((b"ok", b'"ok"}')):
            data += idle.recv(1000)
        idle.sendall(begun)
        began = time.monotonic()
        assert idle.recv(1000) == b"" and time.monotonic() - began < 4  # uvicorn's own limit is 5 s


def test_a_slow_body_or_answer_is_not_ended(address, monkeypatch):
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.1)
    with socket.create_connection(address, 30) as slow:
        slow.sendall(b"POST /v1/videos HTTP/1.1\r\nHost: testserver\r\nContent-Length: 4\r\n\r\nab")
        time.sleep(0.5)
        slow.sendall(b"cd")
        assert b"400 Bad Request" in slow.recv(1000)


def test_idle_connections_shut_nobody_out(address):
    idle = [socket.create_connection(address, 30) for _ in range(3 * MOST)]
    assert [ask(address) for _ in range(3)] == [200] * 3
    for each in idle:
        each.close()
