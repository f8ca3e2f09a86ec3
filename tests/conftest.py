"""What every test gets: one event loop backend, no way off this machine, a database if it asks."""

import socket
from collections.abc import Iterator

import pytest

from tests.support.databases import DatabaseServer, Roles, database_server


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


class OffMachineConnectError(AssertionError):
    """A test tried to leave the machine."""


@pytest.fixture(autouse=True, scope="session")
def _no_connection_leaves_this_machine() -> Iterator[None]:
    real = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = address[0] if isinstance(address, tuple) else str(address)
            if host not in ("127.0.0.1", "::1", "localhost"):
                raise OffMachineConnectError(host)
        real(self, address)  # type: ignore[arg-type]  # socket's own address type is private

    socket.socket.connect = guarded  # type: ignore[method-assign,assignment]  # the guard is the point
    yield
    socket.socket.connect = real  # type: ignore[method-assign]  # put back


@pytest.fixture(scope="session")
def postgres() -> Iterator[DatabaseServer]:
    """A real Postgres with a migrated template: one for all tests of this process."""
    with database_server() as server:
        yield server


@pytest.fixture(scope="module")
def roles(postgres: DatabaseServer) -> Roles:
    """A migrated database of the module's own, by who logs in."""
    return postgres.new_database()
