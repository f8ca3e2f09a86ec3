"""Starting, waiting for and cancelling runs, as a caller sees it."""

from itertools import pairwise

import httpx2
import pytest

from app.api import run_routes
from app.domain.run import TERMINAL, RunStatus
from app.domain.step import ModelReply
from tests.support.api_matrix import (
    Gate,
    calls,
    finished,
    operations,
    patiently,
    problem_of,
    says,
    scripted,
)
from tests.support.databases import DatabaseServer
from tests.support.live_server import LiveServer, live_server


def _ended(client: httpx2.Client, run_id: str) -> dict[str, object]:
    """The run once it is over."""
    run: dict[str, object] = {}
    for _ in patiently():
        run = client.get(f"/v1/runs/{run_id}").json()
        if RunStatus(str(run["status"])) in TERMINAL:
            break
    return run


def test_a_task_is_accepted_before_it_is_done(api_databases: DatabaseServer) -> None:
    gate = Gate()
    with (
        live_server(api_databases.new_database(), scripted(says("hello"), gate=gate)) as server,
        server.client() as client,
    ):
        response = client.post("/v1/runs", json={"task": "say hello"})
        run = response.json()
        assert response.status_code == 202
        assert response.headers["location"] == f"/v1/runs/{run['id']}"
        assert response.headers["retry-after"] == "1"
        assert response.headers["cache-control"] == "no-store"
        assert (run["status"], run["output"], run["finished_at"]) == ("running", None, None)
        gate.reached.wait(120)
        during = client.get(response.headers["location"]).json()
        assert (during["status"], during["output"]) == ("running", None)
        gate.open()
        after = _ended(client, run["id"])
        assert (after["status"], after["output"]) == ("succeeded", "hello")
        assert after["usage"] == {"input_tokens": 10, "output_tokens": 5, "steps": 1}
        assert after["cost_micros"] == 105
        assert (after["provider"], after["model"], after["kind"]) == (
            "scripted",
            "scripted",
            "agent",
        )
        assert str(after["created_at"]).endswith("Z")
        assert str(after["finished_at"]).endswith("Z")


def _kinds(client: httpx2.Client, run_id: str) -> list[str]:
    page = client.get(f"/v1/runs/{run_id}/entries").raise_for_status().json()
    return [entry["kind"] for entry in page["data"]]


def test_a_run_that_has_a_place_begins_in_the_write_that_lets_it_in(
    api_databases: DatabaseServer,
) -> None:
    gate = Gate()
    replies = scripted(says("hello"), says("hello"), gate=gate)
    with (
        live_server(
            api_databases.new_database(), replies, MESHFLOW_MAX_CONCURRENT_RUNS="1"
        ) as server,
        server.client() as client,
    ):
        first = client.post("/v1/runs", json={"task": "say hello"}).json()
        gate.reached.wait(120)
        begun = ["run.submitted", "run.started", "llm.requested"]
        assert first["entries"] == len(first["receipt"]["batch"]["proof"]) + 1 == 3
        assert _kinds(client, first["id"]) == begun
        second = client.post("/v1/runs", json={"task": "say hello"}).json()
        assert (second["status"], second["entries"]) == ("queued", 1)
        gate.open()
        assert _ended(client, first["id"])["status"] == "succeeded"
        assert _ended(client, second["id"])["status"] == "succeeded"
        finished = [*begun, "llm.responded", "run.finished"]
        assert _kinds(client, first["id"]) == _kinds(client, second["id"]) == finished


def test_a_run_whose_first_request_is_not_allowed_is_let_in_and_ends(acme: httpx2.Client) -> None:
    body = {"task": "6*7", "budget": {"max_tokens": 1}}
    run = acme.post("/v1/runs", json=body, headers={"Prefer": "wait=20"}).json()
    assert (run["status"], run["usage"]["steps"]) == ("blocked", 0)
    assert _kinds(acme, run["id"])[:2] == ["run.submitted", "run.started"]
    assert run["entries"] == len(_kinds(acme, run["id"]))


def test_every_example_of_the_document_is_accepted(acme: httpx2.Client) -> None:
    document = acme.get("/openapi.json").json()
    run_id = finished(acme, {"task": "1+1"})["id"]
    hook = {"url": "https://www.example.com/", "events": ["run.failed"]}
    endpoint_id = acme.post("/v1/webhook-endpoints", json=hook).json()["id"]
    posted = 0
    for operation in operations(document):
        if not operation.has_body:
            continue
        content = operation.described["requestBody"]["content"]["application/json"]
        name = content["schema"]["$ref"].rpartition("/")[2]
        example = document["components"]["schemas"][name]["example"]
        if "run_id" in example:
            example = {**example, "run_id": run_id}
        response = acme.request(
            operation.method,
            operation.address(run_id, endpoint_id),
            json=example,
            headers=operation.needed_headers(),
        )
        # The digest of an example is that of no action.
        is_good = response.is_success or operation.operation_id == "approvals_decide"
        assert is_good, response.text
        assert response.status_code != 422
        posted += 1
    assert posted >= 1


def test_waiting_gives_the_finished_run(acme: httpx2.Client) -> None:
    for prefer in (
        ["wait=20"],
        ["respond-async, wait=20"],
        ["WAIT=20;x=1"],
        ["wait = 20"],
        ['Wait="20"'],
        ["respond-async", "wait=20"],
        ['x="a, wait=3", wait=20, wait=4'],
    ):
        headers = [("Prefer", value) for value in prefer]
        response = acme.post("/v1/runs", json={"task": "6*7"}, headers=headers)
        assert response.status_code == 200
        assert response.headers["preference-applied"] == "wait=20"
        assert response.headers["location"] == f"/v1/runs/{response.json()['id']}"
        assert response.json()["status"] == "succeeded"


def test_what_is_no_wait_is_ignored(acme: httpx2.Client) -> None:
    for prefer in ("wait", "wait=", "wait=x", "wait=-1", "wait=99999", 'x="wait=5"', "await=5"):
        response = acme.post("/v1/runs", json={"task": "1+1"}, headers={"Prefer": prefer})
        assert (response.status_code, "preference-applied" in response.headers) == (202, False)


def test_a_wait_that_is_too_short_gives_the_unfinished_run(api_databases: DatabaseServer) -> None:
    gate = Gate()
    with (
        live_server(api_databases.new_database(), scripted(says("x"), gate=gate)) as server,
        server.client() as client,
    ):
        response = client.post("/v1/runs", json={"task": "x"}, headers={"Prefer": "wait=1"})
        assert response.status_code == 202
        assert response.headers["preference-applied"] == "wait=1"
        assert response.json()["status"] in {"queued", "running"}
        gate.open()


@pytest.mark.parametrize("kept", ["1d", "0"])
@pytest.mark.parametrize(
    "replies", [[says("Write to jo.doe@example.com.")], [calls("calculator", expression="1+1")], []]
)
def test_who_waited_is_told_what_a_reader_is_told(
    api_databases: DatabaseServer, replies: list[ModelReply], kept: str
) -> None:
    with (
        live_server(
            api_databases.new_database(), scripted(*replies), MESHFLOW_RESULT_TTL=kept
        ) as server,
        server.client() as client,
    ):
        body = {"task": "Calculate 1+1", "metadata": {"ticket": "T-1"}}
        waited = client.post("/v1/runs", json=body, headers={"Prefer": "wait=30"}).json()
        read = client.get(f"/v1/runs/{waited['id']}").json()
    assert waited["status"] in {"succeeded", "failed"}
    assert waited.pop("receipt")
    for told in (waited, read):
        assert told.pop("integrity")["size"] == told["entries"]
    assert waited == read


def test_a_wait_is_capped(acme: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_routes.MAX_WAIT_SECONDS == 30
    response = acme.post("/v1/runs", json={"task": "1+1"}, headers={"Prefer": "wait=9999"})
    assert response.headers["preference-applied"] == "wait=30"
    monkeypatch.setattr(run_routes, "MAX_WAIT_SECONDS", 0)
    response = acme.post("/v1/runs", json={"task": "1+1"}, headers={"Prefer": "wait=9999"})
    assert response.status_code == 202


def test_a_model_that_fails_is_a_failed_run_and_no_answer(api_databases: DatabaseServer) -> None:
    with (
        live_server(api_databases.new_database(), scripted()) as server,
        server.client() as client,
    ):
        run = finished(client, {"task": "x"})
        assert (run["status"], run["output"]) == ("failed", None)
        assert run["error"] == {"code": "model.script_exhausted"}


def test_a_task_that_the_gate_refuses_is_a_recorded_run(acme: httpx2.Client) -> None:
    body = {"task": "x", "capabilities": {"tools": ["no_such_tool"]}}
    problem = problem_of(acme.post("/v1/runs", json=body), 403, "policy-denied")
    assert problem["rules"] == ["r2.capability"]
    run = acme.get(f"/v1/runs/{problem['run_id']}").json()
    assert run["status"] == "blocked"
    assert run["error"] == {"code": "capability:not_granted"}
    entries = acme.get(f"/v1/runs/{problem['run_id']}/entries").json()["data"]
    assert [entry["kind"] for entry in entries] == ["run.submitted", "run.finished"]


def test_a_model_call_in_progress_is_stopped_by_a_cancel(api_databases: DatabaseServer) -> None:
    gate = Gate()
    with (
        live_server(api_databases.new_database(), scripted(says("never"), gate=gate)) as server,
        server.client() as client,
    ):
        run_id = client.post("/v1/runs", json={"task": "x"}).json()["id"]
        assert gate.reached.wait(120)
        asked = client.post(f"/v1/runs/{run_id}/cancel")
        assert asked.status_code == 202
        assert gate.cancelled.wait(120)
        run = _ended(client, run_id)
        assert (run["status"], run["output"]) == ("cancelled", None)
        entries = client.get(f"/v1/runs/{run_id}/entries").json()["data"]
        kinds = [entry["kind"] for entry in entries]
        assert kinds[-2:] == ["run.cancel_requested", "run.finished"]
        assert entries[-1]["outcome"] == "cancelled"
        fingerprint = client.get("/v1/whoami").json()["fingerprint"]
        assert entries[-2]["actor"] == f"key:{fingerprint}"
        again = client.post(f"/v1/runs/{run_id}/cancel")
        assert (again.status_code, again.json()["status"]) == (200, "cancelled")
        assert client.get(f"/v1/runs/{run_id}/verification").json()["verdict"] == "valid"


def test_a_cancel_asked_twice_is_recorded_once(api_databases: DatabaseServer) -> None:
    gate = Gate()
    with (
        live_server(api_databases.new_database(), scripted(says("never"), gate=gate)) as server,
        server.client() as client,
    ):
        run_id = client.post("/v1/runs", json={"task": "x"}).json()["id"]
        assert gate.reached.wait(120)
        answers = [client.post(f"/v1/runs/{run_id}/cancel").status_code for _ in range(5)]
        assert set(answers) <= {200, 202}
        _ended(client, run_id)
        entries = client.get(f"/v1/runs/{run_id}/entries").json()["data"]
        kinds = [entry["kind"] for entry in entries]
        assert kinds.count("run.cancel_requested") == 1


def test_cancelling_a_finished_run_changes_nothing(acme: httpx2.Client) -> None:
    run = finished(acme, {"task": "6*7"})
    response = acme.post(f"/v1/runs/{run['id']}/cancel")
    assert response.status_code == 200
    del run["receipt"]  # of the acceptance, and given with it alone
    assert response.json() == run


def test_at_most_as_many_runs_as_are_allowed_are_in_flight(api_databases: DatabaseServer) -> None:
    gate = Gate()
    overrides = scripted(says("a"), says("b"), gate=gate)
    limits = {"MESHFLOW_MAX_CONCURRENT_RUNS": "1", "MESHFLOW_MAX_QUEUED_RUNS": "1"}
    with (
        live_server(api_databases.new_database(), overrides, **limits) as server,
        server.client() as client,
    ):
        running = [client.post("/v1/runs", json={"task": "x"}).json()["id"] for _ in range(2)]
        refused = client.post("/v1/runs", json={"task": "x"})
        problem_of(refused, 503, "overloaded")
        assert refused.headers["retry-after"] == "2"
        assert len(client.get("/v1/runs").json()["data"]) == 2
        gate.open()
        assert {_ended(client, run)["status"] for run in running} == {"succeeded"}
        for _ in patiently():
            if client.post("/v1/runs", json={"task": "x"}).status_code == 202:
                break


def test_a_run_cancelled_before_its_turn_ends_cancelled_and_never_starts(
    api_databases: DatabaseServer,
) -> None:
    gate = Gate()
    with (
        live_server(
            api_databases.new_database(),
            scripted(says("a"), gate=gate),
            MESHFLOW_MAX_CONCURRENT_RUNS="1",
        ) as server,
        server.client() as client,
    ):
        first, second = [client.post("/v1/runs", json={"task": "x"}).json()["id"] for _ in range(2)]
        assert client.post(f"/v1/runs/{second}/cancel").status_code == 202
        assert _ended(client, second)["status"] == "cancelled"
        entries = client.get(f"/v1/runs/{second}/entries").json()["data"]
        assert [entry["kind"] for entry in entries] == [
            "run.submitted",
            "run.cancel_requested",
            "run.finished",
        ]
        gate.open()
        assert _ended(client, first)["status"] == "succeeded"


def test_run_ids_come_in_the_order_of_their_making(acme: httpx2.Client) -> None:
    made = [acme.post("/v1/runs", json={"task": "1+1"}).json()["id"] for _ in range(5)]
    assert all(first[:17] <= second[:17] for first, second in pairwise(made))


def test_a_tool_call_is_decided_and_recorded_before_its_result(
    api_databases: DatabaseServer,
) -> None:
    overrides = scripted(calls("calculator", expression="6*7"), says("42"))
    with (
        live_server(api_databases.new_database(), overrides) as server,
        server.client() as client,
    ):
        run = finished(client, {"task": "6*7"})
        entries = client.get(f"/v1/runs/{run['id']}/entries").json()["data"]
    kinds = [entry["kind"] for entry in entries]
    assert kinds == [
        "run.submitted",
        "run.started",
        "llm.requested",
        "llm.responded",
        "tool.decided",
        "tool.finished",
        "llm.requested",
        "llm.responded",
        "run.finished",
    ]
    assert [entry["seq"] for entry in entries] == list(range(9))
    decided, done = entries[4], entries[5]
    assert decided["call"]["arguments"] == {"expression": "6*7"}
    assert (done["intent"], done["outcome"]) == (decided["seq"], "ok")
    assert "42" in done["result"]["content"]


def test_a_server_answers_many_callers_at_once(live: LiveServer) -> None:
    with live.client("acme") as acme, live.client("other") as other:
        for client, tenant in ((acme, "acme"), (other, "other")):
            told = client.get("/v1/whoami").json()
            assert told["tenant"] == tenant
            assert "instruct" in told["scopes"]
            assert {"calculator", "write_file"} <= set(told["tools"])
            assert set(told) == {"tenant", "fingerprint", "scopes", "tools", "max_budget"}
