"""Runs are driven by workers of their own: killed, restarted and stopped, they lose none.

Real processes, real signals, and a Postgres of this file's own, whose backends are killed.
"""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.embedded.postgres_server import EmbeddedPostgres, start_embedded_postgres
from app.storage import schema
from tests.e2e.server_process import (
    ENTRY,
    PATIENCE_SECONDS,
    ServerProcess,
    serving,
    surroundings,
)
from tests.support.api_matrix import patiently
from tests.support.counted_tools import PLACE, executions, installed_counters
from tests.support.databases import connect, state_directory
from tests.support.fake_messages_api import Call, Scenario, SeenRequest, fake_messages_api, text
from tests.support.fake_messages_api import tool_use as calls

KEY = "workers-key-00000000000000000001"


@dataclass(kw_only=True)
class Yard:
    """A server that drives nothing, its database, and as many workers as are started."""

    database: EmbeddedPostgres
    environ: dict[str, str]
    directory: Path
    server: ServerProcess
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def worker(self) -> "subprocess.Popen[bytes]":
        log = self.directory / f"worker-{len(self.workers)}.log"
        with log.open("wb") as errors:
            started = subprocess.Popen(
                [*ENTRY, "worker"], env=self.environ, stdin=subprocess.DEVNULL, stderr=errors
            )
        self.workers.append(started)
        return started

    def submitted(self, client: httpx2.Client, words: str, **more: object) -> str:
        task = {"instructions": words, "tools": ["count_once"], **more}
        answer = client.post("/v1/runs", json=task)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def begun(self, word: str) -> None:
        for _ in patiently():
            if executions(self.directory)[word]:
                return

    async def crash(self) -> None:
        """Kill one backend: Postgres ends them all, recovers, and takes connections again."""
        raw = await connect(self.database.owner_url)
        found = await raw.fetchval(
            "SELECT pid FROM pg_stat_activity WHERE usename = 'mf_app' LIMIT 1"
        )
        await raw.close()
        os.kill(int(found), signal.SIGKILL)


def _answer(seen: SeenRequest) -> Scenario:
    """A call that counts the task's last word, then its answer."""
    messages = seen.body["messages"]
    given = [block for said in messages for block in said["content"]]
    if any(block["type"] == "tool_result" for block in given):
        return text("Counted.")
    word = str(given[0]["text"]).split()[-1]
    return calls(Call(name="count_once", arguments={"word": word}, call_id=f"toolu_{word}"))


@contextmanager
def _database() -> Iterator[EmbeddedPostgres]:
    state = state_directory()
    server = start_embedded_postgres(state, durable=True)
    try:
        asyncio.run(schema.upgrade(server.owner_url))
        yield server
    finally:
        server.stop()
        shutil.rmtree(state, ignore_errors=True)


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    with ExitStack() as held:
        database = held.enter_context(_database())
        api = held.enter_context(fake_messages_api(_answer))
        environ = surroundings(
            tmp_path / "data",
            MESHFLOW_DATABASE_URL=database.app_url,
            MESHFLOW_LEDGER_KEY_DIR=str(tmp_path / "keys"),
            MESHFLOW_API_KEYS=KEY,
            MESHFLOW_SERVE_WORKERS="off",
            MESHFLOW_LEASE_SECONDS="4",
            MESHFLOW_TOOLS="count_once",
            ANTHROPIC_API_KEY="sk-made-up-for-this-test",
            MESHFLOW_ANTHROPIC_BASE_URL=api.base_url,
            PYTHONPATH=str(installed_counters(tmp_path / "installed")),
            **{PLACE: str(tmp_path)},
        )
        server = held.enter_context(serving(environ=environ, log=tmp_path / "server.log"))
        made = Yard(database=database, environ=environ, directory=tmp_path, server=server)
        try:
            yield made
        finally:
            for process in made.workers:
                if process.poll() is None:
                    process.kill()
                process.wait(PATIENCE_SECONDS)


def _ended(client: httpx2.Client, run_id: str) -> dict[str, Any]:
    for _ in patiently():
        answer = client.get(f"/v1/runs/{run_id}")
        if answer.status_code == 200 and answer.json()["finished_at"] is not None:
            run: dict[str, Any] = answer.json()
            return run
    raise AssertionError


def test_what_waits_is_driven_by_whatever_worker_comes_and_goes_on_after_its_kill(
    yard: Yard,
) -> None:
    with yard.server.client(KEY) as client:
        first = yard.submitted(client, "Count first")
        assert client.get(f"/v1/runs/{first}").json()["status"] == "queued"
        doomed = yard.worker()
        assert _ended(client, first)["status"] == "succeeded"
        (yard.directory / "second.hold").touch()
        second = yard.submitted(client, "Count second")
        yard.begun("second")
        doomed.send_signal(signal.SIGKILL)
        yard.worker()
        assert _ended(client, second)["status"] == "succeeded"
        entries = client.get(f"/v1/runs/{second}/entries").json()["data"]
    told = [entry["outcome"] for entry in entries if entry["kind"] == "tool.finished"]
    assert told == ["outcome_unknown"]
    assert executions(yard.directory) == {"first": 1, "second": 1}


def test_a_worker_that_is_told_to_leave_hands_over_what_it_cannot_end(yard: Yard) -> None:
    with yard.server.client(KEY) as client:
        leaving = yard.worker()
        (yard.directory / "word.hold").touch()
        run_id = yard.submitted(client, "Count word")
        yard.begun("word")
        leaving.send_signal(signal.SIGTERM)
        assert leaving.wait(PATIENCE_SECONDS) == 0
        yard.worker()
        assert _ended(client, run_id)["status"] == "succeeded"


def test_workers_outlive_crashes_of_the_database_under_load_and_nothing_is_lost(
    yard: Yard,
) -> None:
    acknowledged: list[str] = []
    with yard.server.client(KEY) as client:
        workers = [yard.worker(), yard.worker()]
        for number in range(12):
            for attempt, _ in enumerate(patiently()):
                # Of what was refused it is not known whether it is there: it gets its own word.
                task = {"instructions": f"Count w{number}t{attempt}", "tools": ["count_once"]}
                answer = client.post("/v1/runs", json=task)
                if answer.status_code == 202:
                    acknowledged.append(answer.json()["id"])
                    break
            if number in (3, 8):
                asyncio.run(yard.crash())
        states = [_ended(client, run_id)["status"] for run_id in acknowledged]
    assert states == ["succeeded"] * 12
    assert [worker.poll() for worker in workers] == [None, None]
    assert all(count == 1 for count in executions(yard.directory).values())
