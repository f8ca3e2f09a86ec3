"""A server that is told to go is gone, whatever it was doing."""

import signal
import socket
from pathlib import Path

import httpx2
import pytest

from tests.e2e.server_process import PATIENCE_SECONDS, serving, starting, surroundings
from tests.support.fake_messages_api import Ending, Scenario, fake_messages_api

KEY = "leaving-key-00000000000000000001"
STOPPED = 143


def test_sigterm_ends_an_open_event_stream_in_a_whole_event_and_the_process(
    environ: dict[str, str], stage: Path
) -> None:
    never = Scenario(answers=False, ending=Ending.HANGING)
    with fake_messages_api([never]) as api:
        told = {
            **environ,
            "MESHFLOW_API_KEYS": KEY,
            "ANTHROPIC_API_KEY": "sk-made-up-for-this-test",
            "MESHFLOW_ANTHROPIC_BASE_URL": api.base_url,
        }
        with (
            serving(environ=told, log=stage / "streaming.log") as server,
            server.client(KEY) as client,
        ):
            run = client.post("/v1/runs", json={"task": "think for ever"}).json()
            with client.stream("GET", f"/v1/runs/{run['id']}/events") as response:
                assert response.status_code == 200
                lines = response.iter_lines()
                assert any(line == "event: llm.requested" for line in lines)
                server.process.send_signal(signal.SIGTERM)
                # To the end: a stream that is cut raises here.
                rest = [line for line in lines if line]
            assert rest[-3:] == ["id: 2", "event: reconnect", 'data: {"after_seq":2}']
            assert server.process.wait(PATIENCE_SECONDS) == 0


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_quiet_server_leaves_with_0(
    sign: signal.Signals, environ: dict[str, str], stage: Path
) -> None:
    with (
        serving("--dev", environ=environ, log=stage / "quiet.log") as server,
        server.client() as kept_alive,
    ):
        assert kept_alive.get("/healthz").status_code == 200
        assert server.leave(sign) == 0
    assert "Traceback" not in (stage / "quiet.log").read_text(encoding="utf-8")


def test_sigterm_is_heard_while_the_database_does_not_answer(tmp_path: Path, stage: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"postgresql://somebody@127.0.0.1:{deaf.getsockname()[1]}/meshflow"
        told = surroundings(tmp_path / "data", MESHFLOW_API_KEYS=KEY, MESHFLOW_DATABASE_URL=url)
        with starting((), told, stage / "deaf.log") as process:
            waiting, _ = deaf.accept()  # the server has connected and now waits for an answer
            with waiting:
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE_SECONDS) == STOPPED


def test_a_start_without_its_database_is_unready_and_not_dead(tmp_path: Path, stage: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    told = surroundings(
        tmp_path / "data",
        MESHFLOW_API_KEYS=KEY,
        MESHFLOW_DATABASE_URL=f"postgresql://somebody@127.0.0.1:{port}/meshflow",
        MESHFLOW_LEDGER_KEY_DIR=str(tmp_path / "keys"),
    )
    with serving(environ=told, log=stage / "no-database.log") as server:
        with server.client() as client:
            assert client.get("/healthz").status_code == 200
            assert client.get("/readyz").status_code == 503
        with httpx2.Client(base_url=server.url, trust_env=False) as client:
            assert client.get("/v1/runs").status_code == 401
        assert server.leave() == 0
