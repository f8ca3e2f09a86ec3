"""Nothing acknowledged is lost when the server or its Postgres is killed at random moments.

A client in a process of its own logs every 202 and every event it received. MESHFLOW_PROOF=1 raises
the kills from 4 to 20.
"""

import os
import random  # noqa: TID251 - seeded, so that a failing order of kills can be had again
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e import kill_nine_client
from tests.e2e.server_process import ServerProcess, serving, surroundings

MANY_KILLS = 20
KILLS = MANY_KILLS if os.getenv("MESHFLOW_PROOF") == "1" else 4
SEED = 20260731
KEY = "kill-nine-key-000000000000000001"
MOST_SECONDS_TO_SETTLE = 60
MOST_SECONDS_TO_RESTART = 60
TERMINAL = {"succeeded", "failed", "blocked", "cancelled", "expired", "interrupted"}


@dataclass(kw_only=True)
class Stage:
    """A deployment that is killed: its server changes, its directories stay."""

    directory: Path
    servers: ExitStack = field(default_factory=ExitStack)
    starts: int = 0

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    @property
    def url_file(self) -> Path:
        return self.directory / "url"

    @property
    def client_log(self) -> Path:
        return self.directory / "client.log"

    def start(self) -> ServerProcess:
        """A server on the same data and keys, ready; the client is told where it is."""
        self.servers.close()  # reaps the one before, dead or alive
        self.starts += 1
        environ = surroundings(
            self.data_dir,
            MESHFLOW_API_KEYS=KEY,
            MESHFLOW_LEDGER_KEY_DIR=str(self.directory / "keys"),
        )
        log = self.directory / f"server-{self.starts}.log"
        server = self.servers.enter_context(serving("--dev", environ=environ, log=log))
        draft = self.url_file.with_suffix(".new")
        draft.write_text(server.url, encoding="utf-8")
        draft.replace(self.url_file)
        self.wait_until_ready(server)
        return server

    def wait_until_ready(self, server: ServerProcess) -> None:
        """Return when the server says that it can serve."""
        until = time.monotonic() + MOST_SECONDS_TO_RESTART
        with server.client() as client:
            while client.get("/readyz").status_code != httpx2.codes.OK:
                assert server.process.poll() is None, server.log.read_text(encoding="utf-8")
                assert time.monotonic() < until, "the server did not become ready"
                time.sleep(0.05)

    def postmaster(self) -> int:
        """The process id of the embedded Postgres now."""
        (found,) = (self.data_dir / "postgres").rglob("postmaster.pid")
        return int(found.read_text(encoding="utf-8").partition("\n")[0])

    def wait_for_lines(self, more: int) -> None:
        """Return when the client has logged `more` lines since now, so each kill hits live work."""
        wanted = self.lines() + more
        until = time.monotonic() + MOST_SECONDS_TO_RESTART
        while self.lines() < wanted:
            assert time.monotonic() < until, "the client got nothing acknowledged"
            time.sleep(0.01)

    def lines(self) -> int:
        return self.client_log.read_bytes().count(b"\n")


@contextmanager
def posting_client(stage: Stage) -> Iterator[subprocess.Popen[bytes]]:
    """The client process; it is told to end by the end of its input."""
    program = Path(kill_nine_client.__file__)
    stage.client_log.touch()
    with subprocess.Popen(
        [sys.executable, str(program), str(stage.url_file), KEY, str(stage.client_log)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture
def stage() -> Iterator[Stage]:
    directory = Path(tempfile.mkdtemp(prefix="mf-k9-")).resolve()
    directory.chmod(0o711)  # the database's user passes through
    made = Stage(directory=directory)
    with made.servers:
        yield made
    shutil.rmtree(directory)


def kill_at_random_points(stage: Stage, kills: int) -> None:
    """Servers and postmasters in turn, each while the client's runs are under way."""
    chance = random.Random(SEED)
    server = stage.start()
    with posting_client(stage) as client:
        for number in range(kills):
            stage.wait_for_lines(chance.randrange(1, 90))
            time.sleep(chance.random() * 0.25)  # the point within a run, not a wait for anything
            if number % 2 == 0:
                server.process.kill()
                server.process.wait()
                server = stage.start()
            else:
                os.kill(stage.postmaster(), signal.SIGKILL)
                stage.wait_until_ready(server)
            assert client.poll() is None
        # More than four runs have records, so that at least one of them came to its end.
        stage.wait_for_lines(120)
    # One kill of both at once, and the last start.
    os.kill(stage.postmaster(), signal.SIGKILL)
    server.process.kill()
    server.process.wait()


def all_runs(client: httpx2.Client) -> dict[str, str]:
    """Every run of the tenant, with its status."""
    found: dict[str, str] = {}
    cursor: Mapping[str, str] = {}
    while True:
        page = client.get("/v1/runs", params={"limit": "200", **cursor}).raise_for_status().json()
        found |= {run["id"]: run["status"] for run in page["data"]}
        if not page["has_more"]:
            return found
        cursor = {"cursor": page["next_cursor"]}


def settled_runs(client: httpx2.Client) -> dict[str, str]:
    """Every run once none is under way any more."""
    until = time.monotonic() + MOST_SECONDS_TO_SETTLE
    while True:
        found = all_runs(client)
        if set(found.values()) <= TERMINAL:
            return found
        assert time.monotonic() < until, Counter(found.values())
        time.sleep(0.5)


def entries_of(client: httpx2.Client, run_id: str) -> list[dict[str, Any]]:
    answer = client.get(f"/v1/runs/{run_id}/entries", params={"limit": "200"})
    page = answer.raise_for_status().json()
    assert not page["has_more"]
    entries: list[dict[str, Any]] = page["data"]
    return entries


def logged(stage: Stage, word: str) -> list[list[str]]:
    """The words after `word` of each of its lines in the client's log."""
    lines = stage.client_log.read_text(encoding="utf-8").splitlines()
    return [line.split()[1:] for line in lines if line.startswith(f"{word} ")]


def test_what_was_acknowledged_outlives_kills_of_the_server_and_of_postgres(stage: Stage) -> None:
    kill_at_random_points(stage, KILLS)
    with stage.start().client(KEY) as client:
        runs = settled_runs(client)
        acknowledged = {words[0] for words in logged(stage, "run")}
        assert logged(stage, "lost") == []
        assert acknowledged - runs.keys() == set()
        entries = {run_id: entries_of(client, run_id) for run_id in runs}
        for run_id in runs:
            verification = client.get(f"/v1/runs/{run_id}/verification").raise_for_status().json()
            assert verification["verdict"] == "valid", (run_id, verification)
    events = logged(stage, "event")
    for run_id, seq, record_hash in events:
        assert int(seq) < len(entries[run_id]), (run_id, seq)
        assert entries[run_id][int(seq)]["record_hash"] == record_hash, (run_id, seq)
    finals = {
        run_id: [e["seq"] for e in found if e["kind"] == kill_nine_client.FINAL_EVENT]
        for run_id, found in entries.items()
    }
    assert {run_id: seqs for run_id, seqs in finals.items() if len(seqs) != 1} == {}
    print(  # what the proof is worth
        f"{KILLS} kills, {len(acknowledged)} runs acknowledged of {len(runs)}, {len(events)} events"
        f", {dict(Counter(runs.values()))}, {len(logged(stage, 'refused'))} refused"
    )
    # Worth something only if runs came to their end and, of many kills, some met runs under way.
    assert "succeeded" in runs.values()
    kinds = Counter(entry["kind"] for found in entries.values() for entry in found)
    assert KILLS < MANY_KILLS or kinds["run.resumed"]
    assert len(events) > len(acknowledged) > KILLS
