"""Without walls nothing is silent: the health routes, the log and every record of a run say it."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.gate.gate_scenes import ANSWER, rows, run_to_end, served_by_the_fake
from tests.support import fake_messages_api as fake
from tests.support.databases import DatabaseServer, Roles, database_server
from tests.support.fake_messages_api import Call
from tests.support.live_server import live_server

# Every kind of record that a run can have, and what a start writes into the operator log.
_KINDS = {
    "admin.opened",
    "key.writer",
    "run.submitted",
    "run.started",
    "llm.requested",
    "llm.responded",
    "tool.decided",
    "tool.finished",
    "run.cancel_requested",
    "run.finished",
}


@pytest.fixture(scope="module")
def databases() -> Iterator[DatabaseServer]:
    with database_server() as server:
        yield server


@pytest.fixture
def roles(databases: DatabaseServer) -> Roles:
    return databases.new_database()


def _headers(roles: Roles) -> list[dict[str, Any]]:
    found = rows(roles, "select header from record")
    return [json.loads(bytes(row["header"])) for row in found]


@pytest.mark.parametrize("mode", ["strict", "off-unsafe"])
def test_records_of_every_kind_say_how_tools_were_confined(roles: Roles, mode: str) -> None:
    program = Call(name="python", arguments={"code": "print(1)"}, call_id="toolu_1")
    unknown = Call(name="nothing_like_it", arguments={}, call_id="toolu_2")
    script = [fake.tool_use(program, unknown), fake.text(ANSWER), fake.silent()]
    with (
        served_by_the_fake(roles, script, MESHFLOW_SANDBOX=mode) as (live, api),
        live.client() as client,
    ):
        run_to_end(client, {"instructions": "Work it out."})
        held = client.post("/v1/runs", json={"task": "Wait."}).json()
        while len(api.requests) < 3:  # the model is being asked, and will not answer
            client.get(f"/v1/runs/{held['id']}")
        client.post(f"/v1/runs/{held['id']}/cancel")
        while client.get(f"/v1/runs/{held['id']}").json()["status"] != "cancelled":
            pass
    headers = _headers(roles)
    assert {header["kind"] for header in headers} == _KINDS
    assert {header["sandbox"] for header in headers} == {mode}


def test_health_and_readiness_say_it(roles: Roles) -> None:
    for mode in ("off-unsafe", "strict"):
        told = {"status": "ok", "sandbox": mode}
        with live_server(roles, MESHFLOW_SANDBOX=mode) as live, live.client(None) as client:
            assert client.get("/healthz").json() == told
            assert client.get("/readyz").json() == told


def test_the_log_says_it_at_start_and_at_each_call(
    roles: Roles, caplog: pytest.LogCaptureFixture
) -> None:
    program = "print(1)"
    calls = [Call(name="python", arguments={"code": program}, call_id=f"toolu_{n}") for n in (1, 2)]
    script = [fake.tool_use(calls[0]), fake.tool_use(calls[1]), fake.text(ANSWER)]
    with (
        caplog.at_level(logging.WARNING, logger="app.sandbox"),
        served_by_the_fake(roles, script, MESHFLOW_SANDBOX="off-unsafe") as (live, _),
        live.client() as client,
    ):
        run_to_end(client, {"instructions": "Work it out with print(1)."})
    told = [record.getMessage() for record in caplog.records if "off-unsafe" in record.message]
    assert told == [
        "MESHFLOW_SANDBOX is off-unsafe: tools run programs without confinement",
        "a program runs unconfined: MESHFLOW_SANDBOX is off-unsafe",
        "a program runs unconfined: MESHFLOW_SANDBOX is off-unsafe",
    ]
