"""Two servers deliver from one outbox: killed or stopped in mid-delivery, nothing is lost.

Real processes and signals. A turn is a minute; instead of waiting for it the test ends it.
"""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.server_process import ServerProcess, serving, surroundings
from tests.support.api_matrix import patiently
from tests.support.databases import DatabaseServer, Roles, connect

KEY = "webhooks-key-0000000000000000001"


@dataclass(kw_only=True)
class Held:
    """A receiver whose first request is answered when, and as, the test says."""

    port: int = 0
    ids: list[str] = field(default_factory=list)
    let_go: threading.Event = field(default_factory=threading.Event)
    first_status: int = 500
    answered: threading.Event = field(default_factory=threading.Event)

    def came(self, count: int) -> None:
        for _ in patiently():
            if len(self.ids) >= count:
                return


@contextmanager
def _receiver() -> Iterator[Held]:
    held = Held()

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            held.ids.append(self.headers["webhook-id"])
            is_first = len(held.ids) == 1
            if is_first:
                held.let_go.wait(300)
            try:
                self.send_response(held.first_status if is_first else 204)
                self.send_header("Content-Length", "0")
                self.end_headers()
            except OSError:
                pass  # whoever asked is dead
            if is_first:
                held.answered.set()

        def log_message(self, *_: object) -> None:
            """Nothing on the test's output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    held.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield held
    finally:
        held.let_go.set()
        server.shutdown()
        server.server_close()


@dataclass(kw_only=True)
class Yard:
    """A database, and servers on it that deliver to one receiver."""

    roles: Roles
    environ: dict[str, str]
    directory: Path
    receiver: Held

    def server(self, name: str) -> AbstractContextManager[ServerProcess]:
        return serving("--dev", environ=self.environ, log=self.directory / f"{name}.log")

    def registered(self, client: httpx2.Client) -> str:
        url = f"http://127.0.0.1:{self.receiver.port}/"
        body = {"url": url, "events": ["run.succeeded"]}
        made = client.post("/v1/webhook-endpoints", json=body)
        assert made.status_code == 201, made.text
        found = str(made.json()["id"])
        client.post(f"/v1/webhook-endpoints/{found}/test").raise_for_status()
        self.receiver.came(1)
        return found

    def end_the_turn(self) -> None:
        async def end() -> None:
            raw = await connect(self.roles.superuser)
            await raw.execute("UPDATE webhook_delivery SET due_at = now() WHERE state = 'pending'")
            await raw.close()

        asyncio.run(end())

    def delivered(self, client: httpx2.Client, endpoint: str) -> dict[str, Any]:
        for _ in patiently():
            answer = client.get(f"/v1/webhook-endpoints/{endpoint}/deliveries")
            one: dict[str, Any] = answer.raise_for_status().json()["data"][0]
            if one["state"] == "delivered":
                return one
        raise AssertionError


@pytest.fixture
def yard(postgres: DatabaseServer, tmp_path: Path) -> Iterator[Yard]:
    roles = postgres.new_database()
    with _receiver() as receiver:
        environ = surroundings(
            tmp_path / "data",
            MESHFLOW_DATABASE_URL=roles.app,
            MESHFLOW_LEDGER_KEY_DIR=str(tmp_path / "keys"),
            MESHFLOW_API_KEYS=KEY,
            MESHFLOW_WEBHOOK_LOOPBACK_PORTS=str(receiver.port),
        )
        yield Yard(roles=roles, environ=environ, directory=tmp_path, receiver=receiver)


def test_what_a_killed_process_was_delivering_is_delivered_by_another_under_the_same_id(
    yard: Yard,
) -> None:
    with yard.server("first") as first:
        with first.client(KEY) as client:
            endpoint = yard.registered(client)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
    with yard.server("second") as second, second.client(KEY) as client:
        yard.end_the_turn()
        one = yard.delivered(client, endpoint)
    assert (one["attempts"], one["response_status"]) == (2, 204)
    assert len(yard.receiver.ids) == 2
    assert len(set(yard.receiver.ids)) == 1


def test_a_process_that_wakes_after_its_turn_settles_nothing(yard: Yard) -> None:
    with yard.server("first") as first, yard.server("second") as second:
        with first.client(KEY) as client:
            endpoint = yard.registered(client)
        stopped, heir = _who_delivers(yard, first, second)
        stopped.process.send_signal(signal.SIGSTOP)
        yard.end_the_turn()
        with heir.client(KEY) as client:
            before = yard.delivered(client, endpoint)
            yard.receiver.let_go.set()
            assert yard.receiver.answered.wait(120)
            stopped.process.send_signal(signal.SIGCONT)
            for _ in patiently():
                if "somebody else's when it was settled" in stopped.log.read_text():
                    break
            assert yard.delivered(client, endpoint) == before
    assert (before["attempts"], before["response_status"]) == (2, 204)


def _who_delivers(
    yard: Yard, first: ServerProcess, second: ServerProcess
) -> tuple[ServerProcess, ServerProcess]:
    """Whose connection the receiver holds, and the other one."""
    port = f":{yard.receiver.port:04X}"
    for server, other in ((first, second), (second, first)):
        inodes = {
            line.split()[9]
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
            if line.split()[2].endswith(port) and line.split()[3] == "01"
        }
        links = Path(f"/proc/{server.process.pid}/fd").iterdir()
        sockets = {str(link.readlink()) for link in links if link.is_symlink()}
        if any(f"socket:[{inode}]" in sockets for inode in inodes):
            return server, other
    raise AssertionError("nobody delivers")
