"""A run's working copy: sealed, exactly the steps of its ledger, and gone when the run is over."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from app.domain.run import RunId, TenantId
from app.keys.key_store import FileKeyStore
from app.ledger.sealing import SealError, open_work
from app.runs.run_keys import RunKeys
from app.storage.companions import WrappedKey
from tests.integration.gate.gate_scenes import elsewhere, rows
from tests.integration.storage.test_rights import logged_in
from tests.security.tampering_scene import finished_run
from tests.support.api_matrix import Gate, calls, patiently, says, scripted
from tests.support.databases import Roles
from tests.support.live_server import LiveServer, live_server
from tests.support.second_reply import FromTheSecond

PARTS = "SELECT * FROM run_work WHERE run_id = $1 ORDER BY seq"
TASK = "Calculate 6*7 for the patient Erika Mustermann"


@contextmanager
def held_run(roles: Roles) -> Iterator[tuple[LiveServer, UUID, Gate]]:
    """A run that has calculated, and waits for its second reply."""
    gate = Gate()
    script = scripted(
        calls("calculator", expression="6*7"), says("It is 42."), gate=FromTheSecond(gate)
    )
    with live_server(roles, script) as live, live.client() as client:
        public = client.post("/v1/runs", json={"task": TASK}).json()["id"]
        assert gate.reached.wait(60)
        yield live, UUID(public.removeprefix("run_")), gate
        gate.open()
        for _ in patiently():
            if client.get(f"/v1/runs/{public}").json()["status"] == "succeeded":
                break


def _opened(live: LiveServer, part: dict[str, Any], first: dict[str, Any], seq: int) -> Any:
    tenant, run = TenantId(UUID(bytes=part["tenant_id"].bytes)), RunId(part["run_id"])
    keys = RunKeys(FileKeyStore(live.keys, os.urandom), os.urandom)
    wrapped = WrappedKey(kek_id=first["kek_id"], wrapped=first["wrapped"])
    key = keys.open(tenant, run, wrapped)
    return json.loads(open_work(key, part["blob"], log=tenant.bytes, run=run.bytes, seq=seq))


def test_the_working_copy_is_the_steps_of_the_ledger_in_clear_and_sealed(roles: Roles) -> None:
    with held_run(roles) as (live, run_id, _):
        parts = rows(roles, PARTS, run_id)
        kinds = {
            row["seq"]: row["kind"]
            for row in rows(roles, "SELECT seq, kind FROM record WHERE run_id = $1", run_id)
        }
        for part in parts:
            assert b"Mustermann" not in part["blob"]
            assert b"calculator" not in part["blob"]
        task, *later = (_opened(live, part, parts[0], part["seq"]) for part in parts)
        assert (task["instructions"], task["tenant"]) == (TASK, "acme")
        steps = [step for part in later for step in part]
        assert [(kinds[step["seq"]], step["step"]) for step in steps] == [
            ("llm.responded", "reply"),
            ("tool.decided", "begun"),
            ("tool.finished", "result"),
        ]
        assert steps[-1]["content"] == "42"
        with pytest.raises(SealError):
            _opened(live, parts[1], parts[0], parts[1]["seq"] + 1)


def test_nothing_of_it_is_left_when_the_run_is_over_but_the_name_of_its_kek(roles: Roles) -> None:
    with held_run(roles) as (_, run_id, _gate):
        assert len(rows(roles, PARTS, run_id)) > 1
        assert rows(roles, PARTS, run_id)[0]["wrapped"] is not None
    (left,) = rows(roles, PARTS, run_id)
    assert (left["seq"], left["wrapped"], left["blob"]) == (0, None, None)
    assert left["kek_id"].startswith("work/")


def test_a_task_that_was_refused_has_none(roles: Roles) -> None:
    with live_server(roles) as live, live.client("forms") as client:
        body = {"task": "1+1", "capabilities": {"tools": ["no_such_tool"]}}
        answer = client.post("/v1/runs", json=body)
        assert answer.status_code == 403, answer.text
        run_id = UUID(answer.json()["run_id"].removeprefix("run_"))
    assert rows(roles, PARTS, run_id) == []


def test_a_work_key_is_kept_as_long_as_a_run_needs_it(roles: Roles) -> None:
    expire = "SELECT kek FROM results_expire(now() + interval '9 years') AS kek"
    with held_run(roles) as (_, run_id, _gate):
        kek = rows(roles, PARTS, run_id)[0]["kek_id"]
        assert kek in {row["kek"] for row in rows(roles, expire)}
    assert kek not in {row["kek"] for row in rows(roles, expire)}
    rows(roles, "SELECT work_forget($1)::text", [kek])
    assert rows(roles, PARTS, run_id) == []


@pytest.mark.parametrize("op", ["work.open", "work.put", "run.change"])
def test_the_application_keeps_nothing_without_a_record(roles: Roles, op: str) -> None:
    with live_server(roles) as live:
        run = finished_run(live)
    batch = "SELECT tenant_id, batch_id FROM record WHERE run_id = $1 LIMIT 1"
    (place,) = rows(roles, batch, run.run_id)

    async def intrude() -> None:
        async with logged_in(roles.app) as raw:
            with pytest.raises(asyncpg.PostgresError) as refused:
                await raw.execute(
                    "SELECT work_keep($1, $2, $3)",
                    place["tenant_id"],
                    place["batch_id"],
                    json.dumps([{"op": op, "run_id": str(run.run_id), "finished_at": "now"}]),
                )
            assert refused.value.sqlstate == "MF008"

    elsewhere(intrude)
