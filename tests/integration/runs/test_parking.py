"""A run that waits for somebody's decision holds no place, and goes on, ends or is cancelled."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import httpx2
import pytest

from app.domain.errors import IllegalTransitionError, NotFoundError, RunParkedError
from app.domain.run import RunId, TenantId, parse_run_id
from app.domain.step import ModelRequest
from app.ledger_assembly import ledger_parts
from app.providers.scripted import ScriptedProvider
from app.run_assembly import recorder_parts_of
from app.runs.notifier import Bell
from app.runs.parking import RunWaker
from app.wiring import Overrides
from tests.integration.gate.gate_scenes import elsewhere, rows
from tests.support.api_matrix import calls, patiently, says
from tests.support.databases import DatabaseServer, Roles
from tests.support.live_server import LiveServer, live_server, settings_for

SUM = calls("calculator", expression="6*7")


@pytest.fixture
def roles(postgres: DatabaseServer) -> Roles:
    return postgres.new_database()


def _parks(_: ModelRequest) -> NoReturn:
    raise RunParkedError("nobody has decided")


def _parking() -> Overrides:
    provider = ScriptedProvider([SUM, _parks, says("It is 42.")])
    return Overrides(providers={"scripted": provider}, default_model="scripted")


@contextmanager
def _serving(roles: Roles, overrides: Overrides) -> Iterator[tuple[LiveServer, httpx2.Client]]:
    names = {"MESHFLOW_MAX_CONCURRENT_RUNS": "1", "MESHFLOW_LEASE_SECONDS": "4"}
    with live_server(roles, overrides, **names) as live, live.client() as client:
        yield live, client


def _state(client: httpx2.Client, run_id: str, *wanted: str) -> dict[str, Any]:
    for _ in patiently():
        run: dict[str, Any] = client.get(f"/v1/runs/{run_id}").raise_for_status().json()
        if run["status"] in wanted:
            return run
    raise AssertionError


def _submitted(client: httpx2.Client, **more: object) -> str:
    answer = client.post("/v1/runs", json={"task": "Calculate 6*7", **more})
    return str(answer.raise_for_status().json()["id"])


def _kinds(client: httpx2.Client, run_id: str) -> list[str]:
    proof = client.get(f"/v1/runs/{run_id}/verification").raise_for_status().json()
    assert proof["verdict"] == "valid", proof
    page = client.get(f"/v1/runs/{run_id}/entries", params={"limit": 200}).raise_for_status()
    return [entry["kind"] for entry in page.json()["data"]]


def _woken(roles: Roles, public: str, directory: Path) -> int:
    """As another process does it that serves whoever decides."""
    run_id = parse_run_id(public)
    assert run_id is not None
    query = "SELECT tenant_id FROM runs WHERE run_id = $1"
    tenant_id = TenantId(rows(roles, query, run_id)[0]["tenant_id"])
    return elsewhere(lambda: _wake(roles, tenant_id, run_id, directory))


async def _wake(roles: Roles, tenant_id: TenantId, run_id: RunId, directory: Path) -> int:
    settings = settings_for(directory, roles)
    parts = ledger_parts(settings)
    try:
        await parts.enrolment.enrol()
        waker = RunWaker(
            reopen=parts.replay.reopen,
            runs=parts.runs,
            parts=recorder_parts_of(settings, parts, Bell()),
        )
        return await waker.wake(tenant_id, run_id, "key:0123456789abcdef")
    finally:
        await parts.enrolment.leave()
        await parts.database.close()


def test_a_parked_run_holds_no_place_and_goes_on_when_it_is_woken(
    roles: Roles, tmp_path: Path
) -> None:
    with _serving(roles, _parking()) as (_, client):
        run_id = _submitted(client)
        _state(client, run_id, "awaiting_approval")
        other = _submitted(client, task="another")
        assert _state(client, other, "succeeded")["output"] == "It is 42."
        assert client.get(f"/v1/runs/{run_id}").json()["status"] == "awaiting_approval"
        seq = _woken(roles, run_id, tmp_path)
        # The script is used up: the run asks the model again, which is what counts here.
        _state(client, run_id, "succeeded", "failed")
        kinds = _kinds(client, run_id)
    assert kinds[seq - 1 : seq + 2] == ["run.parked", "run.woken", "run.resumed"]
    assert kinds.count("tool.decided") == 1


def test_a_run_that_was_parked_where_nobody_is_any_more_goes_on_elsewhere(
    roles: Roles, tmp_path: Path
) -> None:
    with _serving(roles, _parking()) as (_, client):
        run_id = _submitted(client)
        _state(client, run_id, "awaiting_approval")
    heir = ScriptedProvider([says("It is 42.")])
    overrides = Overrides(providers={"scripted": heir}, default_model="scripted")
    with _serving(roles, overrides) as (_, client):
        assert client.get(f"/v1/runs/{run_id}").json()["status"] == "awaiting_approval"
        _woken(roles, run_id, tmp_path)
        assert _state(client, run_id, "succeeded")["output"] == "It is 42."
        assert _kinds(client, run_id).count("run.resumed") == 1


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_a_parked_run_is_cancelled(roles: Roles, *, is_elsewhere: bool) -> None:
    with _serving(roles, _parking()) as (_, client):
        run_id = _submitted(client)
        _state(client, run_id, "awaiting_approval")
        if not is_elsewhere:
            assert client.post(f"/v1/runs/{run_id}/cancel").status_code == 202
            _state(client, run_id, "cancelled")
            return
    with _serving(roles, _parking()) as (_, client):
        assert client.post("/v1/stops", json={}).json()["runs"] == 1
        _state(client, run_id, "cancelled")
        assert _kinds(client, run_id)[-2:] == ["run.cancel_requested", "run.finished"]


def test_a_parked_run_ends_at_its_deadline(roles: Roles) -> None:
    never = ScriptedProvider([SUM, *[_parks] * 99])
    overrides = Overrides(providers={"scripted": never}, default_model="scripted")
    with _serving(roles, overrides) as (_, client):
        run_id = _submitted(client, budget={"max_wall_seconds": 10})
        # By the run's clock, or by the gate's, which looks before each call of the model.
        run = _state(client, run_id, "expired", "blocked")
        assert run["error"] == {"code": "budget:wall"}
        _kinds(client, run_id)


def test_a_run_that_is_over_is_not_woken(roles: Roles, tmp_path: Path) -> None:
    with live_server(roles) as live, live.client() as client:
        run_id = _submitted(client)
        _state(client, run_id, "succeeded")
        with pytest.raises(NotFoundError):
            _woken(roles, run_id, tmp_path)


def test_a_run_that_waits_for_nobody_is_not_woken(roles: Roles, tmp_path: Path) -> None:
    with live_server(roles, MESHFLOW_SERVE_WORKERS="off") as live, live.client() as client:
        run_id = _submitted(client)
        with pytest.raises(IllegalTransitionError):
            _woken(roles, run_id, tmp_path)
