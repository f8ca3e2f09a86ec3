"""Metrics are told on a port of their own: every figure, of now, and nothing of anybody's task."""

import asyncio
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress

import httpx2
import pytest

from app.api import metrics_pulse
from app.embedded.postgres_server import start_embedded_postgres
from app.storage import schema
from app.telemetry import meters, metrics_server
from tests.api.test_system_routes import roles_of
from tests.support.api_matrix import Gate, finished, patiently, says, scripted
from tests.support.databases import DatabaseServer, state_directory
from tests.support.live_server import LiveServer, live_server

PLANTED = "zqPlantedTaskWord5512"
NAMES = {
    "meshflow_ledger_size",
    "meshflow_ledger_unwitnessed_age_seconds",
    "meshflow_ledger_unsequenced_age_seconds",
    "meshflow_database_answers",
    "meshflow_queue_age_seconds",
    "meshflow_runs_waiting",
    "meshflow_runs_running",
    "meshflow_fence_refusals_total",
    "meshflow_unknown_outcomes_total",
    "meshflow_commit_seconds_count",
    "meshflow_pool_wait_seconds_count",
    "meshflow_streams",
    "meshflow_draining",
}


def scrape(server: LiveServer) -> dict[str, float]:
    """All figures by name and labels."""
    assert server.metrics_url is not None
    with httpx2.Client(base_url=server.metrics_url, trust_env=False, timeout=60) as client:
        answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == meters.CONTENT_TYPE
    assert PLANTED not in answer.text
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open()


@pytest.fixture
def one_at_a_time(api_databases: DatabaseServer, gate: Gate) -> Iterator[LiveServer]:
    """Drives one run at a time, and only when the gate is open."""
    overrides = scripted(*([says("42")] * 4), gate=gate)
    few = {"MESHFLOW_MAX_CONCURRENT_RUNS": "1", "MESHFLOW_METRICS_PORT": "0"}
    with live_server(api_databases.new_database(), overrides, **few) as server:
        yield server


def test_what_waits_and_runs_and_is_followed_is_told_by_tenant(
    one_at_a_time: LiveServer, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_pulse, "FRESH_SECONDS", 0.0)
    with one_at_a_time.client() as acme, one_at_a_time.client("other") as other:
        runs = [acme.post("/v1/runs", json={"task": PLANTED}).json()["id"] for _ in range(3)]
        assert gate.reached.wait(60)
        theirs = other.post("/v1/runs", json={"task": PLANTED}).json()["id"]
        before = scrape(one_at_a_time)
        assert before['meshflow_runs_running{tenant="acme"}'] == 1
        assert before['meshflow_runs_waiting{tenant="acme"}'] == 2
        assert before['meshflow_runs_waiting{tenant="other"}'] == 1
        assert before["meshflow_queue_age_seconds"] > 0
        assert before["meshflow_database_answers"] == 1
        with acme.stream("GET", f"/v1/runs/{runs[0]}/events") as response:
            assert response.status_code == 200
            for _ in patiently():
                if scrape(one_at_a_time)["meshflow_streams"] >= 1:
                    break
            gate.open()
        for client, run in ((acme, runs[-1]), (other, theirs)):
            for _ in patiently():
                if client.get(f"/v1/runs/{run}").json()["status"] == "succeeded":
                    break
        after = scrape(one_at_a_time)
    assert {name.partition("{")[0] for name in before} >= NAMES
    assert not any("tenant=" in name for name in after), "nobody has any run under way"
    assert after["meshflow_queue_age_seconds"] == 0
    assert after["meshflow_commit_seconds_count"] > before["meshflow_commit_seconds_count"]
    assert after["meshflow_pool_wait_seconds_count"] > before["meshflow_pool_wait_seconds_count"]


def test_the_port_of_the_api_tells_no_metrics_and_the_port_of_metrics_nothing_else(
    one_at_a_time: LiveServer,
) -> None:
    assert one_at_a_time.metrics_url is not None
    with one_at_a_time.client() as client:
        assert client.get("/metrics").status_code == 404
        assert client.get("/v1/metrics").status_code == 404
    with httpx2.Client(base_url=one_at_a_time.metrics_url, trust_env=False, timeout=60) as client:
        for path in ("/", "/v1/runs", "/healthz", "/metrics/x"):
            assert client.get(path).status_code == 404
        assert client.post("/metrics").status_code == 405


def test_without_its_database_a_process_says_so_and_what_it_counts_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics_pulse, "FRESH_SECONDS", 0.0)
    state = state_directory()
    database = start_embedded_postgres(state, durable=False)
    asyncio.run(schema.upgrade(database.owner_url))
    with live_server(roles_of(database), MESHFLOW_METRICS_PORT="0") as server:
        with server.client() as client:
            assert finished(client, {"task": "6*7"})["status"] == "succeeded"
        assert scrape(server)["meshflow_database_answers"] == 1
        database.stop()
        told = scrape(server)
        assert told["meshflow_database_answers"] == 0
        assert told["meshflow_commit_seconds_count"] > 0
    shutil.rmtree(state, ignore_errors=True)


def test_a_scraper_without_manners_is_hung_up_on_and_holds_nobody_up(
    one_at_a_time: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_server, "PATIENCE_SECONDS", 0.2)
    assert one_at_a_time.metrics_url is not None
    port = int(one_at_a_time.metrics_url.rpartition(":")[2])
    for said in (b"", b"GET /metrics HTTP/1.1\r\n", b"x" * 100_000):
        with (
            socket.create_connection(("127.0.0.1", port), timeout=60) as rude,
            suppress(ConnectionError),
        ):
            rude.sendall(said)
            assert rude.recv(1) == b""
    assert "meshflow_draining" in scrape(one_at_a_time)


def test_more_scrapers_at_once_than_are_heard_are_turned_away(
    one_at_a_time: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_server, "MOST_AT_ONCE", 0)
    assert one_at_a_time.metrics_url is not None
    with (
        httpx2.Client(base_url=one_at_a_time.metrics_url, trust_env=False, timeout=60) as client,
        pytest.raises(httpx2.TransportError),
    ):
        client.get("/metrics")
