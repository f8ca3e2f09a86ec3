"""The log is JSON, a line a record; it names requests and traces, and nothing that callers said."""

import json
from pathlib import Path
from typing import Any

from tests.e2e.server_process import serving

KEY = "logging-key-00000000000000000001"
PLANTED = "zqPlantedWord90417"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_each_request_is_one_line_with_its_ids_and_without_what_was_said(
    environ: dict[str, str], stage: Path
) -> None:
    told = {
        **environ,
        "MESHFLOW_API_KEYS": f"acme:{KEY}",
        "MESHFLOW_ACCESS_LOG": "on",
        "MESHFLOW_LOG_LEVEL": "debug",
    }
    log = stage / "access.log"
    with serving(environ=told, log=log) as server, server.client(KEY) as client:
        parent = {"traceparent": f"00-{TRACE}-{SPAN}-01", "X-Request-Id": "request-of-mine-1"}
        answer = client.post("/v1/runs", json={"task": PLANTED}, headers=parent)
        assert answer.status_code == 202
        version, trace, span, flags = answer.headers["traceparent"].split("-")
        assert (version, trace, flags) == ("00", TRACE, "01")
        run_id = answer.json()["id"]
        unmarked = client.get(f"/v1/runs/{run_id}", params={"after": PLANTED})
        client.get(f"/v1/{PLANTED}", params={"query": PLANTED})
        client.get("/v1/runs", headers={"Authorization": f"Bearer {PLANTED}{PLANTED}"})
        client.patch("/v1/runs", json={"task": PLANTED})
        client.get("/healthz", headers={"traceparent": PLANTED})
        assert server.leave() == 0
    text = log.read_text(encoding="utf-8")
    assert PLANTED not in text
    assert KEY not in text
    lines: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    accesses = [line for line in lines if line["logger"] == "meshflow.access"]
    assert [
        (line["method"], line["route"], line["status"], line["tenant"]) for line in accesses
    ] == [
        ("POST", "/v1/runs", 202, "acme"),
        ("GET", "/v1/runs/{run_id}", 200, "acme"),
        ("", "", 404, "acme"),
        ("", "", 401, ""),
        ("PATCH", "/v1/runs", 405, "acme"),
        ("GET", "/healthz", 200, ""),
    ]
    first, second = accesses[0], accesses[1]
    assert (first["request_id"], first["trace_id"]) == ("request-of-mine-1", TRACE)
    assert first["span_id"] == span
    assert second["request_id"] == unmarked.headers["x-request-id"]
    assert second["trace_id"] == unmarked.headers["traceparent"].split("-")[1]
    assert len({line["trace_id"] for line in accesses}) == len(accesses)
