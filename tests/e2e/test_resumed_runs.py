"""A run whose process is killed or stopped goes on in another, and nothing is done twice.

Two servers on one database, real signals, and tools that count in a file outside of it.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.server_process import ServerProcess, serving
from tests.support.api_matrix import patiently
from tests.support.counted_tools import NAMES, PLACE, executions, installed_counters
from tests.support.fake_messages_api import (
    Call,
    Scenario,
    SeenRequest,
    fake_messages_api,
    text,
    tool_use,
)

KEY = "resumed-key-00000000000000000001"
LEASE_SECONDS = 2
TASK = {"instructions": "Count.", "tools": list(NAMES)}


@dataclass(kw_only=True)
class Twins:
    """Two servers that share everything: the first drives the run, the second is there."""

    first: ServerProcess
    second: ServerProcess
    counted: Path
    requests: list[SeenRequest]

    def begun(self, word: str) -> None:
        for _ in patiently():
            if executions(self.counted)[word]:
                return

    def hold(self, word: str) -> Path:
        held = self.counted / f"{word}.hold"
        held.touch()
        return held


def _scripted(*turns: Scenario) -> Callable[[SeenRequest], Scenario]:
    """Which turn it is stands in the request: how many results the model has been given."""

    def answer(seen: SeenRequest) -> Scenario:
        given = [block for said in seen.body["messages"] for block in said["content"]]
        return turns[len([1 for block in given if block["type"] == "tool_result"])]

    return answer


def _counts(name: str, word: str) -> Scenario:
    return tool_use(Call(name=name, arguments={"word": word}, call_id=f"toolu_{word}"))


@pytest.fixture
def twins(
    request: pytest.FixtureRequest, environ: dict[str, str], stage: Path, tmp_path: Path
) -> Iterator[Twins]:
    counted = tmp_path / "counted"
    counted.mkdir()
    scratch = installed_counters(tmp_path / "installed")
    with fake_messages_api(request.param) as api, ExitStack() as servers:
        told = {
            **environ,
            "MESHFLOW_API_KEYS": KEY,
            "MESHFLOW_LEASE_SECONDS": str(LEASE_SECONDS),
            "MESHFLOW_TOOLS": ",".join(NAMES),
            "ANTHROPIC_API_KEY": "sk-made-up-for-this-test",
            "MESHFLOW_ANTHROPIC_BASE_URL": api.base_url,
            "PYTHONPATH": str(scratch),
            PLACE: str(counted),
        }
        first, second = (
            servers.enter_context(serving(environ=told, log=stage / f"twin-{name}.log"))
            for name in ("first", "second")
        )
        yield Twins(first=first, second=second, counted=counted, requests=api.requests)


def _ended(client: httpx2.Client, run_id: str) -> dict[str, Any]:
    for _ in patiently():
        run: dict[str, Any] = client.get(f"/v1/runs/{run_id}").raise_for_status().json()
        if run["finished_at"] is not None:
            return run
    raise AssertionError


def _entries(client: httpx2.Client, run_id: str) -> list[dict[str, Any]]:
    page = client.get(f"/v1/runs/{run_id}/entries", params={"limit": 200})
    entries: list[dict[str, Any]] = page.raise_for_status().json()["data"]
    verdict = client.get(f"/v1/runs/{run_id}/verification").raise_for_status().json()["verdict"]
    assert verdict == "valid"
    return entries


THREE = _scripted(
    _counts("count_once", "one"), _counts("count_once", "two"), text("Two are counted.")
)
SAFE = _scripted(
    _counts("count_pure", "one"), _counts("count_again", "two"), text("Two are counted.")
)


@pytest.mark.parametrize("twins", [THREE], indirect=True)
def test_an_effectful_call_that_was_under_way_at_the_kill_is_told_as_unknown_and_not_repeated(
    twins: Twins,
) -> None:
    twins.hold("two")
    with twins.first.client(KEY) as client:
        run_id = client.post("/v1/runs", json=TASK).json()["id"]
    twins.begun("two")
    twins.first.process.send_signal(signal.SIGKILL)
    with twins.second.client(KEY) as client:
        run = _ended(client, run_id)
        entries = _entries(client, run_id)
    assert (run["status"], run["output"]) == ("succeeded", "Two are counted.")
    kinds = [entry["kind"] for entry in entries]
    assert kinds.count("run.resumed") == 1
    results = [entry for entry in entries if entry["kind"] == "tool.finished"]
    assert [entry["outcome"] for entry in results] == ["ok", "outcome_unknown"]
    assert entries[results[1]["intent"]]["kind"] == "tool.decided"
    assert executions(twins.counted) == {"one": 1, "two": 1}
    said = str(twins.requests[-1].body["messages"])
    assert "counted one" in said
    assert "outcome of this call is unknown" in said


@pytest.mark.parametrize("twins", [SAFE], indirect=True)
@pytest.mark.parametrize("word", ["one", "two"])
def test_a_pure_or_idempotent_call_is_made_again(twins: Twins, word: str) -> None:
    held = twins.hold(word)
    with twins.first.client(KEY) as client:
        run_id = client.post("/v1/runs", json=TASK).json()["id"]
    twins.begun(word)
    twins.first.process.send_signal(signal.SIGKILL)
    held.unlink()
    with twins.second.client(KEY) as client:
        run = _ended(client, run_id)
        entries = _entries(client, run_id)
    assert run["status"] == "succeeded"
    assert [e["outcome"] for e in entries if e["kind"] == "tool.finished"] == ["ok", "ok"]
    other = ({"one", "two"} - {word}).pop()
    assert executions(twins.counted) == {word: 2, other: 1}
    assert executions(twins.counted, "ended") == {"one": 1, "two": 1}


@pytest.mark.parametrize("twins", [THREE], indirect=True)
def test_a_process_that_wakes_after_its_lease_writes_nothing_and_does_nothing_more(
    twins: Twins,
) -> None:
    held = twins.hold("one")
    with twins.first.client(KEY) as client:
        run_id = client.post("/v1/runs", json=TASK).json()["id"]
    twins.begun("one")
    twins.first.process.send_signal(signal.SIGSTOP)
    with twins.second.client(KEY) as client:
        before = _ended(client, run_id)
        entries = _entries(client, run_id)
        assert before["status"] == "succeeded"
        held.unlink()
        twins.first.process.send_signal(signal.SIGCONT)
        for _ in patiently():
            if executions(twins.counted, "ended")["one"]:  # it is awake, and its call comes back
                break
        with twins.first.client(KEY) as woken:
            # It lives, and drives what it is given now.
            again = woken.post("/v1/runs", json={**TASK, "tools": []}).json()["id"]
            _ended(woken, again)
        assert client.get(f"/v1/runs/{run_id}").json()["entries"] == before["entries"]
        assert _entries(client, run_id) == entries
    outcomes = [entry["outcome"] for entry in entries if entry["kind"] == "tool.finished"]
    assert outcomes == ["outcome_unknown", "ok"]
    assert executions(twins.counted) == {"one": 1, "two": 1}
