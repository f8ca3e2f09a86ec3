"""Which process drives a run: the one with a place, within the bounds, and never two."""

from functools import partial
from typing import Any

import httpx2

from app.domain.run import parse_run_id
from app.main import _door
from app.wiring import Overrides, build
from tests.integration.gate.gate_scenes import elsewhere
from tests.support.api_matrix import Gate, patiently, says, scripted
from tests.support.databases import DatabaseServer, Roles
from tests.support.live_server import KEY_ITEMS, live_server, settings_for


def _submitted(client: httpx2.Client) -> str:
    answer = client.post("/v1/runs", json={"task": "think"})
    return str(answer.raise_for_status().json()["id"])


def _state(client: httpx2.Client, run_id: str, wanted: str) -> dict[str, Any]:
    for _ in patiently():
        run: dict[str, Any] = client.get(f"/v1/runs/{run_id}").raise_for_status().json()
        if run["status"] == wanted:
            return run
    raise AssertionError


def _running(client: httpx2.Client) -> int:
    page = client.get("/v1/runs", params={"status": "running"}).raise_for_status().json()
    return len(page["data"])


def test_a_run_that_finds_no_place_where_it_was_let_in_is_driven_elsewhere(
    api_databases: DatabaseServer,
) -> None:
    roles, gate = api_databases.new_database(), Gate()
    full = scripted(says("never"), gate=gate)
    with (
        live_server(roles, full, MESHFLOW_MAX_CONCURRENT_RUNS="1") as one,
        live_server(roles, scripted(says("Done."))),
        one.client() as client,
    ):
        first = _submitted(client)
        assert gate.reached.wait(60)
        second = _submitted(client)
        assert _state(client, second, "succeeded")["output"] == "Done."
        assert client.get(f"/v1/runs/{first}").json()["status"] == "running"
        assert client.post(f"/v1/runs/{first}/cancel").status_code == 202
        _state(client, first, "cancelled")


def test_no_more_runs_of_a_tenant_are_under_way_than_its_bound_in_all_processes(
    api_databases: DatabaseServer,
) -> None:
    roles, gate = api_databases.new_database(), Gate()
    bound = {"MESHFLOW_MAX_TENANT_RUNS": "1"}
    with (
        live_server(roles, scripted(*[says("a")] * 4, gate=gate), **bound) as one,
        live_server(roles, scripted(*[says("a")] * 4, gate=gate), **bound) as two,
        one.client() as client,
        two.client() as again,
        one.client("other") as stranger,
    ):
        runs = [_submitted(client), _submitted(again), _submitted(client)]
        theirs = _submitted(stranger)
        _state(stranger, theirs, "running")  # the others do not keep it waiting
        for _ in patiently():
            assert _running(client) <= 1
            if _running(client):
                break
        gate.open()
        for run_id in runs:
            _state(client, run_id, "succeeded")
        _state(stranger, theirs, "succeeded")


async def _disowned(roles: Roles, run_id: str, directory: Any, *, ends: bool) -> None:
    settings = settings_for(directory, roles)
    deployment = build(settings, _door(settings, KEY_ITEMS), Overrides())
    await deployment.start()
    named = parse_run_id(run_id)
    assert named is not None
    deployment.dispatcher.disown(named)
    await deployment.dispatcher._beat(asks=False)
    held = await deployment.dispatcher._parts.beats.held([named])
    assert [run for _, run in held] == ([] if ends else [named])
    await deployment.close()


def test_a_run_whose_submitter_was_told_that_it_did_not_enter_is_ended(
    api_databases: DatabaseServer, tmp_path: Any
) -> None:
    roles = api_databases.new_database()
    with live_server(roles, MESHFLOW_SERVE_WORKERS="off") as live, live.client() as client:
        run_id = _submitted(client)
        elsewhere(lambda: _disowned(roles, run_id, tmp_path, ends=True))
        run = client.get(f"/v1/runs/{run_id}").json()
    assert (run["status"], run["error"]) == ("interrupted", {"code": "owner_lost"})


def test_so_is_one_that_began_with_its_submission_and_not_one_that_was_claimed(
    api_databases: DatabaseServer, tmp_path: Any
) -> None:
    for bound, ends in (("0", True), ("1", False)):  # with a bound, every run is claimed
        roles, gate = api_databases.new_database(), Gate()
        directory = tmp_path / bound
        directory.mkdir()
        replies = scripted(says("hello"), gate=gate)
        with (
            live_server(roles, replies, MESHFLOW_MAX_TENANT_RUNS=bound) as live,
            live.client() as client,
        ):
            run_id = _submitted(client)
            assert gate.reached.wait(120)
            disowned = partial(_disowned, roles, run_id, directory, ends=ends)
            elsewhere(disowned)
            status = client.get(f"/v1/runs/{run_id}").json()["status"]
            assert status == ("interrupted" if ends else "running")
            gate.open()
