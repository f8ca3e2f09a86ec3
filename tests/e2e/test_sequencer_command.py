"""`meshflow sequencer` keeps the logs of servers that cannot, and leaves when told to."""

import asyncio
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import httpx2
import pytest

from tests.e2e.server_process import ENTRY, PATIENCE_SECONDS, run_command, surroundings
from tests.support.databases import DatabaseServer, Roles, connect
from tests.support.live_server import live_server

NO_MORE_THAN_SECONDS = 60


@contextmanager
def sequencing(environ: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [*ENTRY, "sequencer"],
        env=environ,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE_SECONDS)
        assert process.stderr is not None
        process.stderr.close()


def value_of(roles: Roles, query: str) -> int:
    async def ask() -> int:
        raw: asyncpg.Connection = await connect(roles.superuser)
        try:
            found: int = await raw.fetchval(query)
            return found
        finally:
            await raw.close()

    return asyncio.run(ask())


def wait_for(roles: Roles, query: str, at_least: int) -> None:
    ends_at = time.monotonic() + NO_MORE_THAN_SECONDS
    while value_of(roles, query) < at_least:
        assert time.monotonic() < ends_at, query


@pytest.fixture
def alone(postgres: DatabaseServer) -> Roles:
    return postgres.new_database()


def test_it_sequences_signs_and_retires_its_key_when_it_leaves(alone: Roles) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="mf-seq-") as made,
        live_server(alone, MESHFLOW_METRICS_PORT="0") as live,
    ):
        environ = surroundings(
            Path(made) / "data",
            MESHFLOW_DATABASE_URL=alone.app,
            MESHFLOW_SEQUENCER_DATABASE_URL=alone.sequencer,
            MESHFLOW_LEDGER_KEY_DIR=str(live.keys),
        )
        with live.client() as client:
            answer = client.post("/v1/runs", json={"task": "1+1"}, headers={"Prefer": "wait=20"})
            assert answer.json()["status"] == "succeeded"
        before = value_of(alone, "SELECT count(*) FROM writer_key WHERE retired_at NOTNULL")
        with sequencing(environ) as process:
            wait_for(alone, "SELECT count(*) FROM leaf", 5)
            wait_for(alone, "SELECT count(*) FROM checkpoint WHERE anchor_run NOTNULL", 1)
            wait_for(alone, "SELECT count(*) FROM checkpoint WHERE anchor_run ISNULL", 1)
            assert _metric(live.metrics_url, "meshflow_ledger_size") >= 2
            keys = run_command("ledger", "keys", environ=environ)
            assert keys.code == 0, keys.err
            assert [line.split()[0] for line in keys.out.splitlines()] == ["log", "#meshflow/v1"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_SECONDS) == 143
        after = value_of(alone, "SELECT count(*) FROM writer_key WHERE retired_at NOTNULL")
        assert after == before + 1


def _metric(url: str | None, name: str) -> float:
    with httpx2.Client(base_url=url or "", trust_env=False, timeout=30) as client:
        answer = client.get("/metrics")
        assert answer.status_code == 200, answer.text
        lines = dict(
            line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#")
        )
        return float(lines[name])


def test_without_the_sequencers_login_it_says_what_is_missing(alone: Roles) -> None:
    with tempfile.TemporaryDirectory(prefix="mf-seq-") as made:
        environ = surroundings(Path(made) / "data", MESHFLOW_DATABASE_URL=alone.app)
        done = run_command("sequencer", environ=environ)
        assert done.code == 2
        assert "MESHFLOW_SEQUENCER_DATABASE_URL" in done.err
        done = run_command("ledger", "recover", "--lost", "1", environ=environ)
        assert done.code == 2
        assert "MESHFLOW_OWNER_DATABASE_URL" in done.err


def test_a_recovery_of_a_ledger_that_is_not_halted_is_refused(alone: Roles) -> None:
    with tempfile.TemporaryDirectory(prefix="mf-seq-") as made:
        environ = surroundings(
            Path(made) / "data",
            MESHFLOW_DATABASE_URL=alone.app,
            MESHFLOW_OWNER_DATABASE_URL=alone.owner,
        )
        done = run_command("ledger", "recover", "--lost", "unknown", environ=environ)
        assert done.code == 2, done.err
        assert "not halted" in done.err
