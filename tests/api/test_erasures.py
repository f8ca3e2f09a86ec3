"""Erasures, holds and comparisons as a caller sees them, with the eraser in the same process."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.security.tampering_scene import Run, finished_run
from tests.support.api_matrix import patiently, problem_of
from tests.support.databases import DatabaseServer
from tests.support.live_server import LiveServer, live_server

BODY = {"legal_basis": "gdpr.art17", "request_ref": "privacy desk, ticket 4711"}


@pytest.fixture(scope="module")
def erasing(
    api_databases: DatabaseServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    roles = api_databases.new_database()
    key = tmp_path_factory.mktemp("erasing") / "key"
    with live_server(
        roles, MESHFLOW_ERASER_DATABASE_URL=roles.eraser, MESHFLOW_ERASURE_KEY_FILE=str(key)
    ) as served:
        yield served


def _asked(client: httpx2.Client, run: Run, **body: object) -> dict[str, Any]:
    """The receipt once the eraser has looked at it."""
    answer = client.post("/v1/erasures", json={"run_id": run.public, **BODY, **body})
    assert answer.status_code == 202, answer.text
    receipt: dict[str, Any] = answer.json()
    assert receipt["status"] == "requested"
    place = answer.headers["location"]
    assert place == f"/v1/erasures/{receipt['id']}"
    for _ in patiently():
        receipt = client.get(place).json()
        if receipt["status"] != "requested":
            break
    return receipt


def test_an_anonymized_run_says_which_of_its_fields_are_gone(erasing: LiveServer) -> None:
    run = finished_run(erasing)
    with erasing.client() as client:
        receipt = _asked(client, run, action="anonymize_run", fields=["output", "reply"])
        assert (receipt["status"], receipt["reason"]) == ("pending", None)
        assert receipt["due_at"] > receipt["executed_at"] > receipt["requested_at"]
        assert "4711" not in str(receipt)
        shown = client.get(f"/v1/runs/{run.public}").json()
        entries = client.get(f"/v1/runs/{run.public}/entries").json()["data"]
        told = client.get(f"/v1/runs/{run.public}/verification").json()
        stream = client.get(f"/v1/runs/{run.public}/events?follow=false").text
    assert (shown["output"], shown["output_state"]) == (None, "erased")
    assert shown["integrity"]["state"] == "erased"
    assert shown["task"]["instructions"]
    assert [e["reply"] for e in entries if e["kind"] == "llm.responded"] == [None, None]
    assert entries[-1]["output"] is None
    gone = {(entry["kind"], name) for entry in entries for name in entry["erased"]}
    assert gone == {
        ("llm.responded", "reply"),
        ("run.finished", "note"),
        ("run.finished", "output"),
    }
    assert (told["verdict"], told["integrity"]["state"]) == ("valid", "erased")
    assert told["erased"] == {"deleted": False, "fields": {"note": 1, "output": 1, "reply": 2}}
    assert '"erased":["note","output"]' in stream.replace(" ", "")


def test_a_deleted_run_is_not_found_but_what_is_left_of_it_verifies(erasing: LiveServer) -> None:
    run = finished_run(erasing)
    with erasing.client() as client, erasing.client("other") as other:
        head = client.get(f"/v1/runs/{run.public}/verification").json()["head"]
        receipt = _asked(client, run, action="delete_run")
        assert (receipt["status"], receipt["fields"]) == ("pending", None)
        for path in ("", "/entries", "/events", "/diff?other=" + run.public):
            problem_of(client.get(f"/v1/runs/{run.public}{path}"), 404, "not-found")
        for fields in ("all", "none"):  # no checkpoint covers the statement that explains the gap
            bundle = client.get(f"/v1/runs/{run.public}/bundle?fields={fields}")
            problem_of(bundle, 409, "not-sequenced")
        told = client.get(f"/v1/runs/{run.public}/verification").json()
        problem_of(other.get(f"/v1/runs/{run.public}/verification"), 404, "not-found")
        problem_of(other.get(f"/v1/erasures/{receipt['id']}"), 404, "not-found")
        assert run.public not in client.get("/v1/runs?limit=200").text
        again = client.post(
            "/v1/erasures", json={"run_id": run.public, "action": "delete_run", **BODY}
        )
        problem_of(again, 404, "not-found")
    assert (told["verdict"], told["entries"], told["head"]) == ("valid", 9, head)
    assert told["erased"] == {"deleted": True, "fields": {}}
    assert told["integrity"]["state"] == "erased"


def test_a_hold_is_set_refuses_and_is_released(erasing: LiveServer) -> None:
    run = finished_run(erasing)
    path = f"/v1/runs/{run.public}/hold"
    with erasing.client() as client:
        for _ in range(2):
            held = client.put(path, json={"reason": "court_order"})
            assert (held.status_code, held.json()) == (200, {"run_id": run.public, "held": True})
        receipt = _asked(client, run, action="delete_run")
        assert (receipt["status"], receipt["reason"]) == ("refused", "hold")
        assert receipt["executed_at"] is None
        assert client.delete(path).json() == {"run_id": run.public, "held": False}
        problem_of(client.delete(path), 404, "not-found")
        assert client.get(f"/v1/runs/{run.public}").status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"action": "delete_tenant"},
        {"action": "delete_run", "fields": ["output"]},
        {"fields": []},
        {"fields": ["password"]},
        {"legal_basis": "Because I say so"},
        {"legal_basis": ""},
        {"request_ref": ""},
        {"request_ref": "x" * 300},
        {"run_id": "run_1"},
        {"extra": 1},
    ],
)
def test_what_is_no_erasure_is_refused_before_anything(
    erasing: LiveServer, change: dict[str, object]
) -> None:
    run = finished_run(erasing)
    body = {"action": "anonymize_run", "run_id": run.public, **BODY, **change}
    with erasing.client() as client:
        answer = client.post("/v1/erasures", json=body)
        assert answer.status_code == 422, answer.text
        assert client.get(f"/v1/runs/{run.public}").json()["integrity"]["state"] == "pending"


def test_only_a_key_that_may_erase_erases(erasing: LiveServer) -> None:
    run = finished_run(erasing)
    body = {"action": "delete_run", "run_id": run.public, **BODY}
    with erasing.client("forms") as client:
        problem_of(client.post("/v1/erasures", json=body), 403, "forbidden")
        hold = client.put(f"/v1/runs/{run.public}/hold", json={"reason": "court"})
        problem_of(hold, 403, "forbidden")
        problem_of(client.get(f"/v1/runs/{run.public}/diff?other={run.public}"), 403, "forbidden")
    with erasing.client("other") as client:
        problem_of(client.post("/v1/erasures", json=body), 404, "not-found")


def test_two_runs_are_compared_without_a_word_of_what_they_say(erasing: LiveServer) -> None:
    one, two = finished_run(erasing), finished_run(erasing)
    with erasing.client() as client:
        other = client.post(
            "/v1/runs", json={"task": "What is 5 + 6?"}, headers={"Prefer": "wait=20"}
        ).json()["id"]
        same = client.get(f"/v1/runs/{one.public}/diff?other={two.public}").json()
        differs = client.get(f"/v1/runs/{one.public}/diff?other={other}").json()
        _asked(client, two, action="anonymize_run", fields=["task"])
        erased = client.get(f"/v1/runs/{one.public}/diff?other={two.public}").json()
    assert len(same["steps"]) == 9
    assert {step["kind"] for step in same["steps"]} >= {"tool.decided", "llm.responded"}
    assert same["steps"][-1]["fields"]["output"] == "same"  # digests are each run's own
    assert not differs["same"]
    assert differs["steps"][0]["fields"]["task"] == "different"
    assert erased["steps"][0]["fields"]["task"] == "erased"
    for told in (same, differs, erased):
        assert not [word for word in ("391", "17 * 23", "5 + 6") if word in str(told["steps"])]
