"""A reader goes from one process to another, and through restarts, and is told each event once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.server_process import PATIENCE_SECONDS, ServerProcess, serving
from tests.support.api_matrix import StreamEvent, stream_events
from tests.support.fake_messages_api import fake_messages_api, silent

KEY = "across-key-000000000000000000001"
FIRST = ["run.submitted", "run.started", "llm.requested"]


@dataclass(kw_only=True)
class Pair:
    """Two servers on one database; either may be started anew."""

    start: Callable[[], ServerProcess]
    first: ServerProcess
    other: ServerProcess


@pytest.fixture
def pair(environ: dict[str, str], stage: Path) -> Iterator[Pair]:
    with fake_messages_api(lambda _: silent()) as api, ExitStack() as servers:
        told = {
            **environ,
            "MESHFLOW_API_KEYS": KEY,
            "MESHFLOW_LEASE_SECONDS": "2",
            "MESHFLOW_MODEL_TIMEOUT_SECONDS": "600",
            "ANTHROPIC_API_KEY": "sk-made-up-for-this-test",
            "MESHFLOW_ANTHROPIC_BASE_URL": api.base_url,
        }

        def start() -> ServerProcess:
            log = stage / f"across-{len(list(stage.glob('across-*')))}.log"
            return servers.enter_context(serving(environ=told, log=log))

        yield Pair(start=start, first=start(), other=start())


def told(lines: Iterator[str], last: str) -> Iterator[StreamEvent]:
    """Events up to and with the first of this kind."""
    for event in stream_events(lines):
        if event.kind:
            yield event
        if event.kind == last:
            return


def test_a_reader_is_told_each_event_once_whoever_drives_the_run_and_whoever_leaves(
    pair: Pair,
) -> None:
    with pair.first.client(KEY) as client:
        run_id = client.post("/v1/runs", json={"task": "think for ever"}).json()["id"]
    path = f"/v1/runs/{run_id}/events"
    # At the process that did not take it in.
    with pair.other.client(KEY) as client, client.stream("GET", path) as response:
        lines = response.iter_lines()
        seen = [*told(lines, "llm.requested")]
        assert [event.kind for event in seen] == FIRST
        # One dies, and whoever may goes on with the run; the other leaves in order: its reader is
        # told after which seq to go on.
        pair.first.process.send_signal(signal.SIGKILL)
        third = pair.start()
        pair.other.process.send_signal(signal.SIGTERM)
        seen += [*told(lines, "reconnect")]
    assert pair.other.process.wait(PATIENCE_SECONDS) == 0
    word = seen.pop()
    assert word.seq == seen[-1].seq
    assert word.data == {"after_seq": seen[-1].seq}
    with third.client(KEY) as client:
        resumed = {"Last-Event-ID": str(word.seq)}
        with client.stream("GET", path, headers=resumed) as response:
            lines = response.iter_lines()
            if "run.resumed" not in {event.kind for event in seen}:
                seen += [*told(lines, "run.resumed")]
            client.post(f"/v1/runs/{run_id}/cancel").raise_for_status()
            seen += [*told(lines, "run.finished")]
        with client.stream("GET", path, params={"after_seq": "-1"}) as response:
            whole = [event for event in stream_events(response.iter_lines()) if event.kind]
    assert [event.seq for event in seen] == list(range(len(seen)))
    assert seen == whole
