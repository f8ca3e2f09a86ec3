"""Live servers of the whole application for black-box tests, and an ear at their log."""

import logging
import threading
from collections.abc import Iterator

import httpx2
import pytest

from app.wiring import Overrides
from tests.support.databases import DatabaseServer, database_server
from tests.support.egress_field import field_beside
from tests.support.egress_tls import field_tls
from tests.support.live_server import LiveServer, live_server


@pytest.fixture(scope="session")
def api_databases() -> Iterator[DatabaseServer]:
    """One database server for all tests of this folder."""
    with database_server() as server:
        yield server


@pytest.fixture(scope="session")
def live(api_databases: DatabaseServer) -> Iterator[LiveServer]:
    """A server with the offline model that nobody changes."""
    with (
        field_beside(*field_tls()) as field,
        live_server(api_databases.new_database(), Overrides(egress=field.parts)) as server,
    ):
        yield server


@pytest.fixture
def acme(live: LiveServer) -> Iterator[httpx2.Client]:
    """A client with every scope."""
    with live.client("acme") as client:
        yield client


# Planted in bad input; whoever repeats it can be seen.
MARK = "zqPlantedMark773190448261"


class ServerLog(logging.Handler):
    """Everything that other threads than the test's own have logged."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._here = threading.current_thread().name
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.threadName != self._here:
            self.lines.append(self.format(record))


@pytest.fixture
def server_log() -> Iterator[ServerLog]:
    """The log of the servers while the test runs, at its most talkative."""
    root, handler = logging.getLogger(), ServerLog()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.setLevel(before)
    root.removeHandler(handler)


def assert_mute(response: httpx2.Response, log: ServerLog) -> None:
    """Nothing of what was planted is in the answer or in the log."""
    told = response.text + str(response.headers.multi_items())
    assert MARK not in told
    assert "773190448261" not in told
    assert not any("773190448261" in line for line in log.lines)
