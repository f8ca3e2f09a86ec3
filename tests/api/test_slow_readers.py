"""A reader that does not read keeps nothing from anybody, and not for ever."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.cli import listening
from app.cli.listening import bound
from app.main import create_app
from tests.support.api_matrix import finished, patiently
from tests.support.databases import DatabaseServer
from tests.support.live_server import KEYS, LiveServer, serving, settings_for

READERS = 24  # the pool has 16 connections
LONG = "word " * 50_000
PARTS = 3  # 750 kB: far more than the buffers between the two take


@pytest.fixture
def long_run(api_databases: DatabaseServer, tmp_path: Path) -> Iterator[tuple[LiveServer, str]]:
    """A server, and a finished run whose events are long."""
    roles = api_databases.new_database()
    app = create_app(settings_for(tmp_path, roles))
    with serving(app, send_buffer_bytes=4096) as url:
        server = LiveServer(url=url, app=app, roles=roles, directory=tmp_path)
        with server.client() as client:
            run = finished(client, {"data": [{"content": LONG}] * PARTS, "instructions": "Sum"})
        yield server, run["id"]


def unread_stream(server: LiveServer, run_id: str) -> socket.socket:
    """A stream that has begun and is not read any further."""
    place = urlsplit(server.url)
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.settimeout(60)
    reader.connect((place.hostname, place.port))
    head = f"GET /v1/runs/{run_id}/events HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEYS['acme']}\r\n\r\n"
    reader.sendall(head.encode())
    assert reader.recv(12) == b"HTTP/1.1 200"
    return reader


def test_readers_that_do_not_read_hold_no_connection_of_the_pool(
    long_run: tuple[LiveServer, str],
) -> None:
    server, run_id = long_run
    with ExitStack() as stack, server.client() as client:
        for _ in range(READERS):
            stack.enter_context(unread_stream(server, run_id))
        for _ in range(READERS):
            assert client.get(f"/v1/runs/{run_id}").status_code == 200
        assert finished(client, {"task": "6*7"})["status"] == "succeeded"
        seats = server.app.state.services.seats
        assert seats._taken.total() == READERS
    for _ in patiently():  # they have gone, and what they held with them
        if not seats._taken:
            break


def test_the_kernel_cuts_off_a_peer_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert listening.SLOW_READER_SECONDS == 60
    monkeypatch.setattr(listening, "SLOW_READER_SECONDS", 0.5)
    with bound("127.0.0.1", 0, must_stay=True) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            accepted.settimeout(60)
            with pytest.raises(TimeoutError) as cut:
                accepted.sendall(b"x" * 100_000_000)
    assert cut.value.errno == errno.ETIMEDOUT, "the kernel's, not the test's own"
