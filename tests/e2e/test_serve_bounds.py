"""Who has shown no key cannot make the server keep what it is sent, nor wait for ever."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from app.cli.bounded_h11 import BoundedH11
from app.cli.bounded_http import BoundedHttpTools
from tests.e2e.server_process import ServerProcess

MEGABYTE = b"a" * (1 << 20)
MOST_MEGABYTES = 32  # far above the limit and what sockets hold in between
BEGINNINGS = {
    "a path": b"GET /",
    "the name of a header": b"GET /healthz HTTP/1.1\r\nHost: x\r\n",
    "the value of a header": b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: ",
    "the value of a trailer": (
        b"POST /v1/runs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: "
    ),
}


@contextmanager
def _connection(url: str) -> Iterator[socket.socket]:
    place = urlsplit(url)
    assert place.hostname is not None
    assert place.port is not None
    with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
        yield connection


def _flood(connection: socket.socket, piece: bytes) -> None:
    for _ in range(MOST_MEGABYTES):
        connection.sendall(piece)


@pytest.mark.parametrize("name", BEGINNINGS)
def test_a_head_without_end_is_hung_up_on(name: str, dev_server: ServerProcess) -> None:
    with _connection(dev_server.url) as connection:
        connection.sendall(BEGINNINGS[name])
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            _flood(connection, MEGABYTE)


def test_many_small_headers_are_one_large_head(dev_server: ServerProcess) -> None:
    lines = b"".join(b"h%d: %b\r\n" % (number, b"v" * 1000) for number in range(1000))
    with _connection(dev_server.url) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            _flood(connection, lines)


def test_a_large_body_is_not_a_large_head(dev_server: ServerProcess) -> None:
    body = b'{"task":"' + b"x" * 200_000 + b'"}'
    with dev_server.client(dev_server.submit_key) as client:
        headers = {"Content-Type": "application/json"}
        assert client.post("/v1/runs", content=body, headers=headers).status_code == 202


class Hasty(BoundedHttpTools):
    """The same, in a hurry."""

    request_seconds = 0.5


class HastyH11(BoundedH11):
    """What serves without httptools, in a hurry."""

    request_seconds = 0.5


class Answering:
    """Reads the request; /late is answered when the test says so."""

    def __init__(self) -> None:
        self.late = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body", False):
            pass
        if scope["path"] == "/late":
            await asyncio.to_thread(self.late.wait, 60)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


@pytest.fixture
def answering() -> Answering:
    return Answering()


@pytest.fixture(params=[Hasty, HastyH11])
def hasty(answering: Answering, request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the hasty server listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            answering, http=request.param, lifespan="off", log_config=None, timeout_keep_alive=300
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        answering.late.set()
        server.should_exit = True
        thread.join(60)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HTTP/1.1\r\nHo",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHo",
    ],
)
def test_a_request_that_does_not_end_is_hung_up_on(said: bytes, hasty: str) -> None:
    with _connection(hasty) as connection:
        connection.sendall(said)
        while connection.recv(4096):
            pass


def test_an_answer_may_take_longer_than_a_request(hasty: str, answering: Answering) -> None:
    with _connection(hasty) as patient, _connection(hasty) as silent:
        patient.sendall(b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
        assert silent.recv(1) == b""  # the limit has passed for both
        answering.late.set()
        assert patient.recv(4096).startswith(b"HTTP/1.1 204")
