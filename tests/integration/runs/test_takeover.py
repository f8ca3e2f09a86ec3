"""A run whose process fell silent goes on in another exactly where it was, or it ends."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx2
import pytest

from app import roster
from app.api import run_routes
from app.domain.run import RunId
from app.domain.step import ModelReply
from app.providers.scripted import ScriptedProvider
from app.wiring import Overrides
from tests.integration.gate.gate_scenes import elsewhere
from tests.support.api_matrix import Gate, calls, patiently, says
from tests.support.databases import Roles, connect
from tests.support.live_server import LiveServer, live_server
from tests.support.second_reply import FromTheSecond

SUM = calls("calculator", expression="6*7")
FLIPPED = "set_byte({0}, 20, get_byte({0}, 20) # 1)"
TASK_PART = "SELECT blob FROM run_work WHERE seq = 0 AND run_id = $1"
# It has no place to claim the run again itself; later it leaves it to others for a lease.
PATIENT = {"MESHFLOW_LEASE_SECONDS": "300", "MESHFLOW_MAX_CONCURRENT_RUNS": "1"}
WRITE = calls("write_file", path="a.txt", content="x")


async def _orphaned(roles: Roles, run_id: UUID) -> None:
    """Make a process that was silent for an hour the owner of a run."""
    raw: asyncpg.Connection = await connect(roles.superuser)
    try:
        silent = uuid4()
        await raw.execute(
            "INSERT INTO writer_key (writer_id, public_key, seen_at)"
            " VALUES ($1, $2, now() - interval '1 hour')",
            silent,
            bytes(32),
        )
        await raw.execute("UPDATE runs SET owner = $1 WHERE run_id = $2", silent, run_id)
        await raw.execute(
            "UPDATE pgqueuer SET queue_manager_id = $1, heartbeat = now() - interval '1 hour'"
            " WHERE dedupe_key = $2",
            silent,
            str(run_id),
        )
    finally:
        await raw.close()


@dataclass(kw_only=True)
class Lost:
    """A run that waits for its second reply in a process that others think is gone."""

    client: httpx2.Client
    public: str
    provider: ScriptedProvider
    gate: Gate

    @property
    def run_id(self) -> RunId:
        return RunId(UUID(self.public.removeprefix("run_")))

    def over(self) -> dict[str, Any]:
        for _ in patiently():
            run: dict[str, Any] = self.client.get(f"/v1/runs/{self.public}").json()
            if run["finished_at"] is not None:
                return run
        raise AssertionError

    def entries(self) -> list[dict[str, Any]]:
        proof = self.client.get(f"/v1/runs/{self.public}/verification").json()
        assert proof["verdict"] == "valid", proof
        page = self.client.get(f"/v1/runs/{self.public}/entries", params={"limit": 200})
        found: list[dict[str, Any]] = page.json()["data"]
        return found


@contextmanager
def lost_run(roles: Roles, first: ModelReply, *, hosts: str = "", **body: object) -> Iterator[Lost]:
    gate = Gate()
    provider = ScriptedProvider([first, says("never heard")], before_reply=FromTheSecond(gate))
    patient = {**PATIENT, "MESHFLOW_FETCH_HOSTS": hosts}
    with live_server(roles, _with(provider), **patient) as live, live.client() as client:
        asked = {"task": "Calculate 6*7", **body}
        public = client.post("/v1/runs", json=asked).raise_for_status().json()["id"]
        assert gate.reached.wait(60)
        lost = Lost(client=client, public=public, provider=provider, gate=gate)
        elsewhere(lambda: _orphaned(roles, lost.run_id))
        yield lost
        gate.open()  # the former owner writes nothing more


def _heir(roles: Roles, overrides: Overrides | None = None) -> AbstractContextManager[LiveServer]:
    return live_server(roles, overrides, MESHFLOW_LEASE_SECONDS="4")


def _with(provider: ScriptedProvider) -> Overrides:
    return Overrides(providers={"scripted": provider}, default_model="scripted")


def test_another_process_asks_the_model_exactly_what_the_lost_one_asked(roles: Roles) -> None:
    heir = ScriptedProvider([says("It is 42.")])
    with lost_run(roles, SUM) as lost:
        with _heir(roles, _with(heir)):
            run = lost.over()
        lost.gate.open()
        entries = lost.entries()
        asked, again = lost.provider.requests[1], heir.requests[0]
    assert (run["status"], run["output"]) == ("succeeded", "It is 42.")
    assert run["usage"] == {"input_tokens": 20, "output_tokens": 10, "steps": 2}
    assert again == asked
    kinds = [entry["kind"] for entry in entries]
    assert kinds[-4:] == ["run.resumed", "llm.requested", "llm.responded", "run.finished"]
    assert kinds.count("tool.decided") == 1


def test_who_waits_here_is_told_of_an_end_elsewhere(
    roles: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_routes, "MAX_WAIT_SECONDS", 3600)  # the client hangs up long before
    heir = ScriptedProvider([says("It is 42.")])
    gate = Gate()
    left = ScriptedProvider([SUM, says("never heard")], before_reply=FromTheSecond(gate))
    wait = {"Prefer": "wait=3600"}
    with (
        live_server(roles, _with(left), **PATIENT) as live,
        httpx2.Client(base_url=live.url, headers=live.client().headers, timeout=240) as client,
        ThreadPoolExecutor(1) as beside,
    ):
        asked = beside.submit(client.post, "/v1/runs", json={"task": "6*7"}, headers=wait)
        assert gate.reached.wait(60)
        with live.client() as other:
            public = other.get("/v1/runs").json()["data"][0]["id"]
        run_id = RunId(UUID(public.removeprefix("run_")))
        elsewhere(lambda: _orphaned(roles, run_id))
        with _heir(roles, _with(heir)):
            told = asked.result().json()
        gate.open()
    assert (told["status"], told["output"]) == ("succeeded", "It is 42.")


def test_a_wish_to_cancel_that_nobody_was_there_to_hear_is_heard_by_the_heir(roles: Roles) -> None:
    heir = ScriptedProvider([says("never asked")])
    with lost_run(roles, SUM) as lost:
        assert lost.client.post(f"/v1/runs/{lost.public}/cancel").status_code == 202
        with _heir(roles, _with(heir)):
            assert lost.over()["status"] == "cancelled"
    assert heir.requests == []


def test_a_process_without_its_model_ends_it_with_what_its_records_say_that_it_used(
    roles: Roles,
) -> None:
    with lost_run(roles, SUM) as lost:
        with _heir(roles):
            run = lost.over()
        assert (run["status"], run["error"]) == ("interrupted", {"code": "owner_lost"})
        assert run["usage"] == {"input_tokens": 10, "output_tokens": 5, "steps": 1}
        assert run["cost_micros"] == 105
        lost.gate.open()
        last = lost.entries()[-1]
    assert (last["kind"], last["outcome"]) == ("run.finished", "interrupted:owner_lost")


def test_a_process_under_another_policy_ends_it(roles: Roles) -> None:
    heir = ScriptedProvider([says("never asked")])
    book = roster.rule_book()
    changed = replace(book, bundle=replace(book.bundle, digest="1" * 64))
    other = replace(_with(heir), book=changed)
    with lost_run(roles, SUM) as lost, _heir(roles, other):
        assert lost.over()["error"] == {"code": "owner_lost"}
    assert heir.requests == []


def test_a_process_that_would_not_let_the_task_in_ends_it(roles: Roles) -> None:
    heir = ScriptedProvider([says("never asked")])
    closed = replace(_with(heir), book=replace(roster.rule_book(), run_submit=()))
    with lost_run(roles, SUM) as lost, _heir(roles, closed):
        assert lost.over()["error"] == {"code": "owner_lost"}
    assert heir.requests == []


def test_a_process_without_its_tools_ends_it(roles: Roles) -> None:
    heir = ScriptedProvider([says("never asked")])
    tools = ["calculator", "http_fetch"]
    with (
        lost_run(roles, SUM, hosts="example.com", tools=tools) as lost,
        _heir(roles, _with(heir)),
    ):
        assert lost.over()["error"] == {"code": "owner_lost"}
    assert heir.requests == []


LATER = "INSERT INTO run_work SELECT tenant_id, run_id, 900, NULL, NULL, '\\x00' FROM run_work"


def test_what_a_slow_owner_wrote_after_the_ledger_was_read_is_left_out(roles: Roles) -> None:
    heir = ScriptedProvider([says("It is 42.")])
    with lost_run(roles, SUM) as lost:
        elsewhere(lambda: _tampered(roles, lost.run_id, f"{LATER} WHERE seq = 0 AND run_id = $1"))
        with _heir(roles, _with(heir)):
            assert lost.over()["status"] == "succeeded"


async def _tampered(roles: Roles, run_id: UUID, change: str) -> None:
    raw: asyncpg.Connection = await connect(roles.superuser)
    try:
        await raw.execute(change, run_id)
    finally:
        await raw.close()


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM run_work WHERE run_id = $1",
        "DELETE FROM run_work WHERE run_id = $1 AND seq = (SELECT max(seq) FROM run_work)",
        f"UPDATE run_work SET blob = {FLIPPED.format('blob')} WHERE run_id = $1 AND seq > 0",
        f"UPDATE run_work SET blob = ({TASK_PART}) WHERE run_id = $1 AND seq > 0",
        f"UPDATE run_work SET wrapped = {FLIPPED.format('wrapped')} WHERE run_id = $1 AND seq = 0",
    ],
)
def test_a_working_copy_that_somebody_changed_is_not_gone_on_with(
    roles: Roles, change: str
) -> None:
    heir = ScriptedProvider([says("never asked")])
    with lost_run(roles, SUM) as lost:
        elsewhere(lambda: _tampered(roles, lost.run_id, change))
        with _heir(roles, _with(heir)):
            assert lost.over()["error"] == {"code": "owner_lost"}
    assert heir.requests == []


def test_a_process_that_leaves_hands_its_runs_over(roles: Roles) -> None:
    gate = Gate()
    leaving = ScriptedProvider([SUM, says("never")], before_reply=FromTheSecond(gate))
    heir = ScriptedProvider([says("It is 42.")])
    with live_server(roles, _with(heir)) as other, other.client() as client:
        with live_server(roles, _with(leaving)) as left, left.client() as asking:
            public = asking.post("/v1/runs", json={"task": "Calculate 6*7"}).json()["id"]
            assert gate.reached.wait(60)
        for _ in patiently():
            run = client.get(f"/v1/runs/{public}").json()
            if run["finished_at"] is not None:
                break
    assert (run["status"], run["output"]) == ("succeeded", "It is 42.")
