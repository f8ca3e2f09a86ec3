"""A wrong path, id, number, cursor or header is a mute problem too."""

import json

import httpx2
import pytest

from tests.api.conftest import MARK, ServerLog, assert_mute
from tests.support.api_matrix import UNKNOWN_RUN, problem_of, raw_exchange
from tests.support.live_server import KEYS, LiveServer


@pytest.mark.parametrize(
    "run_id",
    [
        "run_" + "A" * 32,
        "RUN_" + "a" * 32,
        "a" * 32,
        "run_" + "a" * 31,
        "run_" + "a" * 33,
        "run_" + "a" * 32 + "%0A",
        "run_" + "a" * 8 + "-aaaa-aaaa-aaaa-" + "a" * 12,
        "run_" + "%EF%BC%91" * 32,
        "apr_" + "a" * 32,
        "%00",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e",
        "run_%FF",
        f"{MARK}",
        "x" * 8000,
    ],
)
def test_what_cannot_be_a_run_id_is_no_run(
    run_id: str, live: LiveServer, server_log: ServerLog
) -> None:
    with live.client() as client:
        known = problem_of(client.get(f"/v1/runs/{UNKNOWN_RUN}"), 404, "not-found")
        for rest in ("", "/entries", "/events", "/verification", "/cancel"):
            method = "POST" if rest == "/cancel" else "GET"
            response = client.request(method, f"/v1/runs/{run_id}{rest}")
            problem = problem_of(response, 404, "not-found")
            assert {**problem, "request_id": ""}.keys() == known.keys()
            assert_mute(response, server_log)


NUMBERS = ("", "x", "1.5", "1e3", "0x10", "9" * 400, f"{MARK}", "1;2", "\u0661", "NaN", "-2")


@pytest.mark.parametrize("value", NUMBERS)
def test_a_number_in_the_query_that_is_none_is_422(
    value: str, acme: httpx2.Client, server_log: ServerLog
) -> None:
    run = acme.post("/v1/runs", json={"task": "1+1"}).json()["id"]
    for path, name in (
        ("/v1/runs", "limit"),
        (f"/v1/runs/{run}/entries", "limit"),
        (f"/v1/runs/{run}/entries", "after_seq"),
        (f"/v1/runs/{run}/events", "after_seq"),
    ):
        response = acme.get(path, params={name: value})
        problem = problem_of(response, 422, "validation")
        assert [error["pointer"] for error in problem["errors"]] == [f"/query/{name}"]
        assert_mute(response, server_log)


@pytest.mark.parametrize("value", ["0", "201", "-1", str(2**63)])
def test_a_limit_out_of_bounds_is_422(value: str, acme: httpx2.Client) -> None:
    problem_of(acme.get("/v1/runs", params={"limit": value}), 422, "validation")


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("cursor", MARK, "invalid-submission"),
        ("cursor", "", "invalid-submission"),
        ("cursor", "run_" + "A" * 32, "invalid-submission"),
        ("cursor", MARK * 10, "validation"),
        ("cursor", "\x00", "invalid-submission"),
        ("status", MARK, "validation"),
        ("status", "SUCCEEDED", "validation"),
        ("agent", MARK, "validation"),
        ("agent", "a\x00b", "validation"),
        ("agent", "assistant\n", "validation"),
    ],
)
def test_a_filter_that_is_none_is_422(
    name: str, value: str, code: str, acme: httpx2.Client, server_log: ServerLog
) -> None:
    response = acme.get("/v1/runs", params={name: value})
    problem = problem_of(response, 422, code)
    assert [error["pointer"] for error in problem["errors"]] == [f"/query/{name}"]
    assert_mute(response, server_log)


@pytest.mark.parametrize("value", ["", "-1", "x", "1.0", "9" * 17, f"{MARK}", "+1", "0x1"])
def test_a_last_event_id_that_is_none_is_422(
    value: str, live: LiveServer, server_log: ServerLog
) -> None:
    with live.client() as client:
        run = client.post("/v1/runs", json={"task": "1+1"}).json()["id"]
    request = (
        f"GET /v1/runs/{run}/events?follow=false HTTP/1.1\r\nHost: x\r\n"
        f"X-API-Key: {KEYS['acme']}\r\nLast-Event-ID: {value}\r\n\r\n"
    )
    answer = raw_exchange(live.url, request.encode())
    assert (answer.status, json.loads(answer.body)["code"]) == (422, "invalid-submission")
    assert MARK.encode() not in answer.body
    assert not any(MARK in line for line in server_log.lines)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"/v1/{MARK}", 404, "not-found"),
        ("GET", "/v1", 404, "not-found"),
        ("GET", f"/{MARK}", 404, "not-found"),
        ("GET", "/", 404, "not-found"),
        ("GET", "/docs/static/..%2f..%2fproblems.py", 404, "not-found"),
        ("GET", f"/docs/static/{MARK}", 404, "not-found"),
        ("GET", f"/v1/agents/{MARK}", 404, "not-found"),
        ("GET", f"/v1/agents/{MARK * 9}", 422, "validation"),
        ("PUT", "/v1/runs", 405, "method-not-allowed"),
        ("DELETE", f"/v1/runs/{UNKNOWN_RUN}", 405, "method-not-allowed"),
        ("GET", f"/v1/runs/{UNKNOWN_RUN}/cancel", 405, "method-not-allowed"),
        ("POST", "/healthz", 405, "method-not-allowed"),
        ("OPTIONS", "/v1/runs", 405, "method-not-allowed"),
        ("TRACE", "/v1/runs", 405, "method-not-allowed"),
    ],
)
def test_a_wrong_address_or_method_is_a_mute_problem(
    method: str, path: str, status: int, code: str, acme: httpx2.Client, server_log: ServerLog
) -> None:
    response = acme.request(method, path)
    problem_of(response, status, code)
    assert_mute(response, server_log)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"task": "x", "agent": "zq773190448261"}, "/agent"),
        ({"task": "x", "model": "zq773190448261"}, "/model"),
        ({"task": "x", "model": "scripted"}, "/model"),
        ({"task": "x", "tools": ["zq773190448261"]}, "/tools"),
    ],
)
def test_what_this_deployment_does_not_have_is_422_and_not_repeated(
    body: dict[str, object], pointer: str, acme: httpx2.Client, server_log: ServerLog
) -> None:
    response = acme.post("/v1/runs", json=body)
    problem = problem_of(response, 422, "invalid-submission")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert_mute(response, server_log)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("abcDEF_.-0123", True),
        ("short", False),
        ("x" * 65, False),
        (f"{MARK} spaced", False),
        (f"{MARK}/slash", False),
    ],
)
def test_only_a_sane_request_id_is_taken_over(sent: str, kept: bool, acme: httpx2.Client) -> None:
    response = acme.get("/v1/whoami", headers={"X-Request-Id": sent})
    assert (response.headers["x-request-id"] == sent) is kept
    assert len(response.headers["x-request-id"]) >= 8
    assert MARK not in str(response.headers.multi_items())


@pytest.mark.parametrize(
    "prefer", ["", "wait", "wait=", "wait=-1", "wait=x", "wait=1e9", f"{MARK}", "wait=" + "9" * 99]
)
def test_a_preference_that_cannot_be_read_is_ignored(prefer: str, acme: httpx2.Client) -> None:
    response = acme.post("/v1/runs", json={"task": "1+1"}, headers={"Prefer": prefer})
    assert response.status_code == 202
    assert "preference-applied" not in response.headers


@pytest.mark.parametrize(
    "path", ["/v1/whoami/", "/v1/runs/", f"/v1/runs/{UNKNOWN_RUN}/", "/v1/tools/?x=1", "/docs/"]
)
def test_a_slash_at_the_end_redirects_nobody_to_a_host_the_caller_names(
    path: str, live: LiveServer
) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: elsewhere.example\r\nX-API-Key: {KEYS['acme']}\r\n\r\n"
    answer = raw_exchange(live.url, head.encode())
    assert (answer.status, json.loads(answer.body)["code"]) == (404, "not-found")
    assert "location" not in answer.headers
