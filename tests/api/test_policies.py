"""Policies over HTTP: versions by entity tag, two keys for what loosens, and trying before."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from app.bundles.policy_example import POLICY_EXAMPLE
from tests.support.api_matrix import finished, problem_of
from tests.support.databases import DatabaseServer
from tests.support.live_server import KEY_ITEMS, LiveServer, live_server
from tests.support.policy_words import call, rule

SECOND = "second-key-000000000000000000000005"
NO_FOURTH = {"tenant_rules": [rule("tool.calls_made >= 3")]}


@pytest.fixture(scope="module")
def server(api_databases: DatabaseServer) -> Iterator[LiveServer]:
    items = f"{KEY_ITEMS},acme:policy:{SECOND}"
    with live_server(api_databases.new_database(), MESHFLOW_API_KEYS=items) as running:
        yield running


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx2.Client]:
    with server.client("acme") as made:
        yield made


def put(
    client: httpx2.Client, name: str, document: dict[str, Any], tag: str | None = None
) -> httpx2.Response:
    headers = {} if tag is None else {"If-Match": tag}
    return client.put(f"/v1/policies/{name}", json=document, headers=headers)


def test_a_policy_is_written_read_and_listed(client: httpx2.Client) -> None:
    made = put(client, "written", dict(POLICY_EXAMPLE))
    assert (made.status_code, made.headers["etag"]) == (201, '"1"')
    body = made.json()
    assert (body["id"], body["version"], body["in_force"]) == ("written", 1, None)
    assert body["document"]["tenant_rules"] == POLICY_EXAMPLE["tenant_rules"]
    assert client.get("/v1/policies/written").json() == body
    assert put(client, "written", dict(POLICY_EXAMPLE)).status_code == 200
    listed = client.get("/v1/policies").json()["data"]
    assert {"id": "written", "version": 1} in [
        {"id": one["id"], "version": one["version"]} for one in listed
    ]
    problem_of(client.get("/v1/policies/nobodys"), 404, "not-found")
    problem_of(client.get("/v1/policies/written/versions/2"), 404, "not-found")


def test_the_next_version_names_the_one_it_means(client: httpx2.Client) -> None:
    assert put(client, "tagged", {}).status_code == 201
    problem_of(put(client, "tagged", NO_FOURTH), 428, "precondition-required")
    problem_of(put(client, "tagged", NO_FOURTH, '"7"'), 412, "precondition-failed")
    second = put(client, "tagged", NO_FOURTH, '"1"')
    assert (second.status_code, second.headers["etag"]) == (201, '"2"')
    problem_of(put(client, "tagged", {"description": "late"}, '"1"'), 412, "precondition-failed")
    page = client.get("/v1/policies/tagged/versions", params={"limit": 1}).json()
    assert ([one["version"] for one in page["data"]], page["has_more"]) == ([2], True)
    rest = client.get("/v1/policies/tagged/versions", params={"cursor": page["next_cursor"]}).json()
    assert [one["version"] for one in rest["data"]] == [1]
    assert client.get("/v1/policies/tagged/versions/1").json()["version"] == 1


def test_what_cannot_be_taken_in_is_told_part_by_part(client: httpx2.Client) -> None:
    bad = {"tenant_rules": [rule("tool.nme == 'x'"), rule("true", rule_id="own.2")]}
    body = problem_of(put(client, "refused", bad), 422, "policy-refused")
    assert body["errors"] == [{"pointer": "/body/tenant_rules/0/when", "rule": "no such part: nme"}]
    case = {"name": "fourth", "features": call(calls_made=3).to_json(), "verdict": "deny"}
    body = problem_of(put(client, "refused", {"golden": [case]}), 422, "policy-refused")
    assert body["errors"][0]["pointer"] == "/body/golden/0"
    for name in ("joint", "Bad Name", "a+b", "x" * 65):
        problem_of(put(client, name, {}), 422, "policy-refused")
    problem_of(put(client, "refused", {"rules": {"r99.none": {}}}), 422, "validation")
    problem_of(client.get("/v1/policies/refused"), 404, "not-found")


def test_what_loosens_takes_two_keys(client: httpx2.Client, server: LiveServer) -> None:
    assert put(client, "two", NO_FOURTH).status_code == 201
    first = client.post("/v1/policies/two/activations", json={})
    assert (first.status_code, first.json()["state"]) == (201, "active")
    assert put(client, "two", {}, '"1"').status_code == 201
    key = {"Idempotency-Key": '"two-keys-1"'}
    asked = client.post("/v1/policies/two/activations", json={"version": 2}, headers=key)
    again = client.post("/v1/policies/two/activations", json={"version": 2}, headers=key)
    assert asked.json() == again.json()
    body = asked.json()
    assert (body["state"], body["loosened"]) == ("pending", ["rule:own.rule"])
    confirm = f"/v1/policies/two/activations/{body['id']}/confirm"
    problem_of(client.post(confirm), 403, "second-person")
    assert client.get("/v1/policies/two").json()["in_force"] == 1
    with server.client(None) as second:
        second.headers["X-API-Key"] = SECOND
        done = second.post(confirm).json()
        assert (done["state"], done["version"]) == ("active", 2)
        problem_of(second.post(confirm), 409, "illegal-transition")
        problem_of(second.post("/v1/runs", json={"task": "1+1"}), 403, "forbidden")
    assert client.get("/v1/policies/two").json()["in_force"] == 2
    listed = client.get("/v1/policies/two/activations").json()["data"]
    assert [one["state"] for one in listed] == ["active", "superseded"]


def test_another_tenants_policies_are_nobodys(client: httpx2.Client, server: LiveServer) -> None:
    assert put(client, "ours", {}).status_code == 201
    with server.client("other") as outsider:
        assert "ours" not in [one["id"] for one in outsider.get("/v1/policies").json()["data"]]
        problem_of(outsider.get("/v1/policies/ours"), 404, "not-found")
        problem_of(outsider.post("/v1/policies/ours/activations", json={}), 404, "not-found")


def test_a_policy_is_tried_on_a_question_and_on_what_was_asked(client: httpx2.Client) -> None:
    question = {"features": call(calls_made=3).to_json()}
    assert client.post("/v1/policy-checks", json=question).json()["verdict"] == "allow"
    tried = client.post("/v1/policy-checks", json={**question, "bundle": NO_FOURTH}).json()
    assert (tried["verdict"], tried["rules"]) == ("deny", ["own.rule"])
    assert tried["objections"] == [
        {
            "rule": "own.rule",
            "reason": "own:rule",
            "kind": "tenant",
            "features": ["tool.calls_made"],
        }
    ]
    problem_of(
        client.post("/v1/policy-checks", json={"features": {"point": "x"}}),
        422,
        "invalid-submission",
    )
    run = finished(client, {"task": "6*7"})
    found = client.post("/v1/policies/simulate", json={"bundle": NO_FOURTH})
    assert found.status_code == 200
    body = found.json()
    assert body["runs"] >= 1
    assert body["unlike_the_record"] == 0
    assert not body["truncated"]
    late = {"bundle": {}, "since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}
    problem_of(client.post("/v1/policies/simulate", json=late), 422, "invalid-submission")
    told = client.get(f"/v1/runs/{run['id']}/entries/0/explanation").json()
    assert (told["seq"], told["verdict"]) == (0, "allow")
    missing = client.get(f"/v1/runs/{run['id']}/entries/9999/explanation")
    problem_of(missing, 404, "not-found")


@pytest.fixture
def own(api_databases: DatabaseServer) -> Iterator[httpx2.Client]:
    """A tenant whose own policy these tests bring into force."""
    with live_server(api_databases.new_database()) as running, running.client("acme") as made:
        yield made


def activated(client: httpx2.Client, name: str, document: dict[str, Any]) -> str:
    assert put(client, name, document).status_code == 201
    made = client.post(f"/v1/policies/{name}/activations", json={}).json()
    assert made["state"] == "active", made
    return str(made["digest"])


def denied_of(client: httpx2.Client, run_id: str) -> dict[int, list[str]]:
    """Which rules denied a call, by the record's place."""
    entries = client.get(f"/v1/runs/{run_id}/entries").json()["data"]
    decided = [entry for entry in entries if entry["kind"] == "tool.decided"]
    told = {
        e["seq"]: client.get(f"/v1/runs/{run_id}/entries/{e['seq']}/explanation") for e in decided
    }
    return {seq: answer.json()["rules"] for seq, answer in told.items()}


SUM = "[offline stand-in, no language model] 6*7 = 42."
NO_SUMS = {"tenant_rules": [rule('tool.name == "calculator"', rule_id="own.no-sums")]}


def test_what_is_in_force_judges_runs_and_differs_nowhere_from_them(own: httpx2.Client) -> None:
    before = finished(own, {"task": "6*7"})
    assert before["output"] == SUM
    digest = activated(own, "default", NO_SUMS)
    after = finished(own, {"task": "6*7"})
    assert after["output"] != SUM
    assert after["policy"]["digest"] == digest
    assert before["policy"]["digest"] != digest
    ((seq, rules),) = denied_of(own, after["id"]).items()
    assert rules == ["own.no-sums"]
    told = own.get(f"/v1/runs/{after['id']}/entries/{seq}/explanation").json()
    assert told["explanation"]["objections"] == [
        {"rule": "own.no-sums", "reason": "own:rule", "kind": "tenant", "features": ["tool.name"]}
    ]
    same = own.post("/v1/policies/simulate", json={"bundle": NO_SUMS}).json()
    assert (same["runs"], same["not_replayable"], same["unlike_the_record"]) == (2, 0, 0)
    assert (same["differences"], same["before"]) == (0, digest)
    assert same["decisions"] >= 8
    # Without the rule the one denied call would pass, in both runs.
    other = own.post("/v1/policies/simulate", json={"bundle": {}}).json()
    assert (other["differences"], other["weakened"]) == (2, 2)
    places = {(one["run_id"], one["seq"]) for one in other["first_divergences"]}
    assert (after["id"], seq) in places


def test_a_callers_policy_tightens_its_own_run_alone(own: httpx2.Client) -> None:
    activated(own, "no-sums", NO_SUMS)
    held = finished(own, {"task": "6*7", "policy": "no-sums"})
    assert held["output"] != SUM
    assert list(denied_of(own, held["id"]).values()) == [["own.no-sums"]]
    assert finished(own, {"task": "6*7"})["output"] == SUM
    assert finished(own, {"task": "6*7", "policy": "no-sums"})["output"] != SUM
    refused = own.post("/v1/runs", json={"task": "6*7", "policy": "nobodys"})
    problem_of(refused, 422, "invalid-submission")
    assert [one["id"] for one in own.get("/v1/policies").json()["data"]] == ["no-sums"]


def test_a_callers_policy_loosens_nothing(own: httpx2.Client) -> None:
    activated(own, "default", NO_SUMS)
    activated(own, "loose", {})
    held = finished(own, {"task": "6*7", "policy": "loose"})
    assert list(denied_of(own, held["id"]).values()) == [["own.no-sums"]]
