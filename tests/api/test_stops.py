"""Stops and cancellation: wherever a run is driven, it stops, and who asked is recorded."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from tests.integration.gate.gate_scenes import rows
from tests.support.api_matrix import Gate, patiently, problem_of, says, scripted
from tests.support.databases import Roles
from tests.support.live_server import LiveServer, live_server


@contextmanager
def held(roles: Roles, **environ: str) -> Iterator[tuple[LiveServer, Gate]]:
    """A server whose model never answers."""
    gate = Gate()
    with live_server(roles, scripted(*[says("never")] * 9, gate=gate), **environ) as live:
        yield live, gate


def _submitted(client: httpx2.Client, **more: object) -> str:
    answer = client.post("/v1/runs", json={"task": "think", **more})
    return str(answer.raise_for_status().json()["id"])


def _over(client: httpx2.Client, run_id: str) -> dict[str, Any]:
    for _ in patiently():
        run: dict[str, Any] = client.get(f"/v1/runs/{run_id}").raise_for_status().json()
        if run["finished_at"] is not None:
            return run
    raise AssertionError


def _last_kinds(client: httpx2.Client, run_id: str) -> list[tuple[str, str]]:
    page = client.get(f"/v1/runs/{run_id}/entries").raise_for_status().json()["data"]
    return [(entry["kind"], entry["actor"]) for entry in page[-2:]]


def test_a_run_is_cancelled_by_way_of_another_process(roles: Roles) -> None:
    with held(roles) as (driving, gate), live_server(roles) as other:
        with driving.client() as client:
            run_id = _submitted(client)
            assert gate.reached.wait(60)
        with other.client() as client:
            assert client.post(f"/v1/runs/{run_id}/cancel").status_code == 202
            assert _over(client, run_id)["status"] == "cancelled"
            (asked, by), (end, _) = _last_kinds(client, run_id)
        assert (asked, end) == ("run.cancel_requested", "run.finished")
        assert by.startswith("key:")
        assert gate.cancelled.wait(60)  # the model call itself was ended


def test_a_stop_ends_what_runs_and_what_waits_in_every_process_and_nothing_of_others(
    roles: Roles,
) -> None:
    limit = {"MESHFLOW_MAX_CONCURRENT_RUNS": "1"}
    with held(roles, **limit) as (one, first), held(roles, **limit) as (two, second):
        with one.client() as client, two.client("other") as stranger:
            theirs = _submitted(stranger)
            assert second.reached.wait(60)
            runs = [_submitted(client), _submitted(client)]
            assert first.reached.wait(60)
        with two.client() as client, two.client("other") as stranger:
            answer = client.post("/v1/stops", json={})
            assert answer.status_code == 202, answer.text
            told = answer.json()
            assert (told["agent"], told["runs"]) == (None, 2)
            assert {_over(client, run_id)["status"] for run_id in runs} == {"cancelled"}
            assert stranger.get(f"/v1/runs/{theirs}").json()["status"] == "running"
            assert client.post("/v1/stops", json={}).json()["runs"] == 0
        stops = rows(
            roles,
            "SELECT c.seq FROM record c JOIN runs r USING (tenant_id, run_id)"
            " WHERE r.kind = 'admin' AND c.kind = 'stop.requested' ORDER BY c.seq",
        )
        assert told["seq"] in [row["seq"] for row in stops]
        assert len(stops) == 2
        second.open()


def test_a_stop_of_an_agent_leaves_the_others_alone(roles: Roles) -> None:
    with held(roles) as (live, gate), live.client() as client:
        run_id = _submitted(client)
        assert gate.reached.wait(60)
        assert client.post("/v1/stops", json={"agent": "nobody"}).json()["runs"] == 0
        assert client.get(f"/v1/runs/{run_id}").json()["status"] == "running"
        assert client.post("/v1/stops", json={"agent": "assistant"}).json()["runs"] == 1
        assert _over(client, run_id)["status"] == "cancelled"


def test_only_a_key_that_may_operate_stops_runs(roles: Roles) -> None:
    with live_server(roles) as live:
        with live.client("audit") as client:
            problem_of(client.post("/v1/stops", json={}), 403, "forbidden")
        with live.client() as client:
            assert client.post("/v1/stops", json={"agent": "No Such"}).status_code == 422
