"""The event stream is the ledger: every entry once, in order, live, and resumable."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import httpx2
import pytest

from app.api import stream_routes
from app.runs import run_watch
from tests.support.api_matrix import (
    Gate,
    StreamEvent,
    calls,
    finished,
    says,
    scripted,
    stream_events,
)
from tests.support.databases import DatabaseServer
from tests.support.live_server import LiveServer, live_server

KINDS = [
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


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open()


@pytest.fixture
def gated(api_databases: DatabaseServer, gate: Gate) -> Iterator[LiveServer]:
    """A server whose model calls the calculator and then answers, when the gate opens."""
    overrides = scripted(calls("calculator", expression="6*7"), says("42"), gate=gate)
    with live_server(api_databases.new_database(), overrides) as server:
        yield server


@pytest.fixture
def narrow(api_databases: DatabaseServer, gate: Gate) -> Iterator[LiveServer]:
    """The same, with few streams for a tenant."""
    overrides = scripted(calls("calculator", expression="6*7"), says("42"), gate=gate)
    few = {"MESHFLOW_MAX_STREAMS_PER_TENANT": "64"}
    with live_server(api_databases.new_database(), overrides, **few) as server:
        yield server


def replay(
    client: httpx2.Client,
    run_id: str,
    headers: Mapping[str, str] | None = None,
    **query: str,
) -> list[StreamEvent]:
    """A whole stream up to its end."""
    path = f"/v1/runs/{run_id}/events"
    with client.stream("GET", path, params=query, headers=headers or {}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["x-request-id"]
        return list(stream_events(response.iter_lines()))


def test_a_stream_is_the_entries_in_order(gated: LiveServer, gate: Gate) -> None:
    gate.open()
    with gated.client() as client:
        run = finished(client, {"task": "6*7"})
        entries = client.get(f"/v1/runs/{run['id']}/entries").json()["data"]
        events = replay(client, run["id"])
    assert [event.data for event in events] == entries
    assert [event.seq for event in events] == list(range(len(KINDS)))
    assert [event.kind for event in events] == KINDS
    assert all(event.data["seq"] == event.seq for event in events)
    assert all(event.data["kind"] == event.kind for event in events)


def test_a_stream_resumes_after_any_event_without_gap_or_repetition(
    gated: LiveServer, gate: Gate
) -> None:
    gate.open()
    with gated.client() as client:
        run_id = finished(client, {"task": "6*7"})["id"]
        whole = replay(client, run_id)
        for last in range(len(whole)):
            rest = whole[last + 1 :]
            assert replay(client, run_id, {"Last-Event-ID": str(last)}) == rest
            assert replay(client, run_id, after_seq=str(last)) == rest
            assert replay(client, run_id, after_seq=str(last), follow="false") == rest
        assert replay(client, run_id, {"Last-Event-ID": "2"}, after_seq="7") == whole[3:]
        assert replay(client, run_id, {"Last-Event-ID": "99"}) == []


def test_a_running_run_is_told_live_and_the_stream_ends_with_it(
    gated: LiveServer, gate: Gate
) -> None:
    with gated.client() as client, gated.client() as other:
        run_id = client.post("/v1/runs", json={"task": "6*7"}).json()["id"]
        assert gate.reached.wait(120)
        assert [event.kind for event in replay(other, run_id, follow="false")] == KINDS[:3]
        with client.stream("GET", f"/v1/runs/{run_id}/events") as response:
            events = stream_events(response.iter_lines())
            first = [next(events) for _ in range(3)]
            assert [event.kind for event in first] == KINDS[:3]
            gate.open()
            rest = list(events)
        assert [event.kind for event in first + rest] == KINDS
        assert [event.seq for event in first + rest] == list(range(len(KINDS)))
        assert replay(other, run_id, {"Last-Event-ID": "2"}) == rest


def test_readers_that_come_and_go_all_see_the_same(gated: LiveServer, gate: Gate) -> None:
    with gated.client() as client:
        run_id = client.post("/v1/runs", json={"task": "6*7"}).json()["id"]
        assert gate.reached.wait(120)
        seen: list[list[StreamEvent]] = []

        def read() -> None:
            with gated.client("audit") as reader:
                seen.append(replay(reader, run_id))

        readers = [threading.Thread(target=read) for _ in range(6)]
        for reader in readers:
            reader.start()
        with client.stream("GET", f"/v1/runs/{run_id}/events") as leaver:
            next(stream_events(leaver.iter_lines()))
        gate.open()
        for reader in readers:
            reader.join(120)
    assert len(seen) == 6
    assert all(events == seen[0] for events in seen)
    assert [event.kind for event in seen[0]] == KINDS


def test_streams_of_one_tenant_leave_room_for_everybody_elses(
    narrow: LiveServer, gate: Gate
) -> None:
    with ExitStack() as stack:
        client, other = (stack.enter_context(narrow.client(who)) for who in ("acme", "other"))
        run_id = client.post("/v1/runs", json={"task": "6*7"}).json()["id"]
        path = f"/v1/runs/{run_id}/events"
        streams = [client.stream("GET", path) for _ in range(64)]
        for stream in streams:
            assert stack.enter_context(stream).status_code == 200
        with client.stream("GET", path) as refused:  # one that is let in would not end by itself
            assert refused.status_code == 503
            refused.read()
        assert refused.json()["code"] == "overloaded"
        assert int(refused.headers["retry-after"]) > 0
        # The others do not notice, and are not told of what is not theirs.
        assert other.get(path).status_code == 404
        theirs = other.post("/v1/runs", json={"task": "6*7"}).json()["id"]
        gate.open()
        with other.stream("GET", f"/v1/runs/{theirs}/events") as response:
            assert response.status_code == 200
        assert client.get(f"/v1/runs/{run_id}").status_code == 200
    with narrow.client() as again:  # every seat was given back
        for _ in range(70):
            assert again.get(path).status_code == 200


def test_a_silent_stream_says_that_it_is_still_there(
    gated: LiveServer, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stream_routes.HEARTBEAT_SECONDS == 15
    monkeypatch.setattr(stream_routes, "HEARTBEAT_SECONDS", 0.0)
    monkeypatch.setattr(run_watch, "TICK_SECONDS", 0.01)
    with gated.client() as client:
        run_id = client.post("/v1/runs", json={"task": "6*7"}).json()["id"]
        assert gate.reached.wait(120)
        with client.stream("GET", f"/v1/runs/{run_id}/events") as response:
            events = stream_events(response.iter_lines())
            told = [next(events) for _ in range(5)]
            assert "" in {event.kind for event in told}
            gate.open()
            told += list(events)
    assert [event.kind for event in told if event.kind] == KINDS


def test_a_stream_ends_after_its_longest_time_and_can_be_taken_up_again(
    gated: LiveServer, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gated.client() as client:
        run_id = client.post("/v1/runs", json={"task": "6*7"}).json()["id"]
        assert gate.reached.wait(120)
        with monkeypatch.context() as shortened:
            shortened.setattr(stream_routes, "MAX_STREAM_SECONDS", 0)
            first = replay(client, run_id)
        assert [event.kind for event in first] == KINDS[:3]
        gate.open()
        rest = replay(client, run_id, {"Last-Event-ID": str(first[-1].seq)})
    assert [event.kind for event in first + rest] == KINDS
