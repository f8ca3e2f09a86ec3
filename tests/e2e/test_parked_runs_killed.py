"""A parked run whose process is killed loses nothing: it is woken, or cancelled, in another one.

Real processes and SIGKILL; the server lets runs in and drives none.
"""

import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.providers.scripted import ScriptedProvider
from app.wiring import Overrides
from tests.integration.runs.test_parking import _woken
from tests.support.api_matrix import patiently
from tests.support.databases import DatabaseServer, Roles
from tests.support.live_server import LiveServer, key_directory_of, live_server
from tests.support.parking_worker import ANSWER, parking_worker


@dataclass(kw_only=True)
class Yard:
    """A server that drives nothing, and where its workers look."""

    live: LiveServer
    client: httpx2.Client
    place: Path
    environ: dict[str, str] = field(repr=False)

    def worker(self) -> Any:
        return parking_worker(self.environ, self.place, self.place / "workers.log")

    def submitted(self) -> str:
        answer = self.client.post("/v1/runs", json={"task": "Decide."})
        return str(answer.raise_for_status().json()["id"])

    def state(self, run_id: str, *wanted: str) -> dict[str, Any]:
        for _ in patiently():
            run: dict[str, Any] = self.client.get(f"/v1/runs/{run_id}").raise_for_status().json()
            if run["status"] in wanted:
                return run
            assert run["finished_at"] is None, run
        raise AssertionError

    def kinds(self, run_id: str) -> list[str]:
        proof = self.client.get(f"/v1/runs/{run_id}/verification").raise_for_status().json()
        assert proof["verdict"] == "valid", proof
        page = self.client.get(f"/v1/runs/{run_id}/entries", params={"limit": 200})
        return [entry["kind"] for entry in page.raise_for_status().json()["data"]]


@pytest.fixture
def yard(postgres: DatabaseServer, tmp_path: Path) -> Iterator[Yard]:
    roles: Roles = postgres.new_database()
    overrides = Overrides(providers={"scripted": ScriptedProvider([])}, default_model="scripted")
    with (
        live_server(roles, overrides, MESHFLOW_SERVE_WORKERS="off") as live,
        live.client() as client,
    ):
        environ = {
            "MESHFLOW_DATABASE_URL": roles.app,
            "MESHFLOW_DATA_DIR": str(tmp_path / "data"),
            "MESHFLOW_LEDGER_KEY_DIR": str(key_directory_of(roles)),
            "MESHFLOW_LEASE_SECONDS": "2",
        }
        yield Yard(live=live, client=client, place=tmp_path, environ=environ)


def test_a_run_whose_process_is_killed_while_it_is_parked_goes_on_when_it_is_woken(
    yard: Yard, tmp_path: Path
) -> None:
    with yard.worker() as doomed:
        run_id = yard.submitted()
        yard.state(run_id, "awaiting_approval")
        doomed.send_signal(signal.SIGKILL)
        doomed.wait()
    with yard.worker():
        (yard.place / "decided").touch()
        _woken(yard.live.roles, run_id, tmp_path)
        assert yard.state(run_id, "succeeded", "interrupted")["output"] == ANSWER
    kinds = yard.kinds(run_id)
    assert kinds.count("run.resumed") == 1
    assert kinds[-1] == "run.finished"


def test_a_run_whose_process_is_killed_while_it_is_parked_can_be_cancelled(yard: Yard) -> None:
    with yard.worker() as doomed:
        run_id = yard.submitted()
        yard.state(run_id, "awaiting_approval")
        doomed.send_signal(signal.SIGKILL)
        doomed.wait()
    assert yard.client.post(f"/v1/runs/{run_id}/cancel").status_code == 202
    with yard.worker():
        yard.state(run_id, "cancelled")
    assert yard.kinds(run_id)[-2:] == ["run.cancel_requested", "run.finished"]


def test_a_wish_that_comes_while_a_stopped_process_is_about_to_park_ends_the_run(
    yard: Yard,
) -> None:
    held = yard.place / "hold"
    held.touch()
    with yard.worker() as stopped:
        run_id = yard.submitted()
        for _ in patiently():
            if (yard.place / "asked").exists():
                break
        stopped.send_signal(signal.SIGSTOP)
        assert yard.client.post(f"/v1/runs/{run_id}/cancel").status_code == 202
        held.unlink()
        # It wakes, and hears of the wish or parks, whichever comes first.
        stopped.send_signal(signal.SIGCONT)
        yard.state(run_id, "cancelled")
    assert yard.kinds(run_id)[-2:] == ["run.cancel_requested", "run.finished"]
