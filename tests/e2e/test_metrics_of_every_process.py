"""Worker, sequencer and eraser tell their figures on a port of their own, as a server does."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.e2e.server_process import ENTRY, PATIENCE_SECONDS, serving, surroundings
from tests.support.api_matrix import patiently
from tests.support.counted_tools import PLACE, executions, installed_counters
from tests.support.databases import DatabaseServer
from tests.support.fake_messages_api import Call, Scenario, SeenRequest, fake_messages_api, text
from tests.support.fake_messages_api import tool_use as calls
from tests.support.live_server import key_directory_of

KEY = "metrics-key-00000000000000000001"
COMMON = {"meshflow_ledger_size", "meshflow_database_answers", "meshflow_webhook_outbox"}


@contextmanager
def _telling(command: str, environ: dict[str, str], log: Path) -> Iterator["Told"]:
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*ENTRY, command],
            env={**environ, "MESHFLOW_METRICS_PORT": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("metrics "), log.read_text()
        yield Told(process, line.split()[1])
    finally:
        process.kill()
        process.wait(PATIENCE_SECONDS)
        process.stdout.close()


class Told:
    """A process and where it tells its figures."""

    def __init__(self, process: "subprocess.Popen[str]", url: str) -> None:
        self.process = process
        self._url = url

    def figures(self) -> dict[str, float]:
        with httpx2.Client(trust_env=False, timeout=60) as client:
            for _ in patiently():
                try:
                    answer = client.get(self._url).raise_for_status()
                except httpx2.ConnectError:
                    continue  # it has said where, and does not listen yet
                break
        lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


@pytest.mark.parametrize("command", ["sequencer", "eraser"])
def test_a_process_that_keeps_or_erases_tells_its_figures(
    postgres: DatabaseServer, tmp_path: Path, command: str
) -> None:
    roles = postgres.new_database()
    environ = surroundings(
        tmp_path / "data",
        MESHFLOW_DATABASE_URL=roles.app,
        MESHFLOW_SEQUENCER_DATABASE_URL=roles.sequencer,
        MESHFLOW_ERASER_DATABASE_URL=roles.eraser,
        MESHFLOW_ERASURE_KEY_FILE=str(tmp_path / "erasing" / "key"),
        MESHFLOW_LEDGER_KEY_DIR=str(key_directory_of(roles)),
    )
    with _telling(command, environ, tmp_path / "process.log") as told:
        for _ in patiently():
            if told.figures()["meshflow_database_answers"] == 1:
                break
        assert told.figures().keys() >= COMMON


def _answer(seen: SeenRequest) -> Scenario:
    given = [block for said in seen.body["messages"] for block in said["content"]]
    if any(block["type"] == "tool_result" for block in given):
        return text("Counted.")
    return calls(Call(name="count_once", arguments={"word": "word"}, call_id="toolu_1"))


def test_a_worker_counts_an_unknown_outcome(postgres: DatabaseServer, tmp_path: Path) -> None:
    roles = postgres.new_database()
    (tmp_path / "word.hold").touch()
    with ExitStack() as stack:
        api = stack.enter_context(fake_messages_api(_answer))
        environ = surroundings(
            tmp_path / "data",
            MESHFLOW_DATABASE_URL=roles.app,
            MESHFLOW_LEDGER_KEY_DIR=str(tmp_path / "keys"),
            MESHFLOW_API_KEYS=KEY,
            MESHFLOW_SERVE_WORKERS="off",
            MESHFLOW_TOOLS="count_once",
            MESHFLOW_LEASE_SECONDS="2",
            ANTHROPIC_API_KEY="sk-made-up-for-this-test",
            MESHFLOW_ANTHROPIC_BASE_URL=api.base_url,
            PYTHONPATH=str(installed_counters(tmp_path / "installed")),
            **{PLACE: str(tmp_path)},
        )
        server = stack.enter_context(serving(environ=environ, log=tmp_path / "server.log"))
        client = stack.enter_context(server.client(KEY))
        doomed = stack.enter_context(_telling("worker", environ, tmp_path / "doomed.log"))
        task = {"instructions": "Count.", "tools": ["count_once"]}
        run = client.post("/v1/runs", json=task).raise_for_status().json()["id"]
        for _ in patiently():
            if executions(tmp_path)["word"]:
                break
        assert doomed.figures()["meshflow_unknown_outcomes_total"] == 0
        doomed.process.kill()
        heir = stack.enter_context(_telling("worker", environ, tmp_path / "heir.log"))
        for _ in patiently():
            if client.get(f"/v1/runs/{run}").json()["status"] == "succeeded":
                break
        assert heir.figures()["meshflow_unknown_outcomes_total"] == 1
