"""Runs that wait for an approver: a scripted model, a policy that asks, and keys of two people."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from app.domain.step import ModelReply
from app.providers.scripted import ScriptedProvider
from app.wiring import Overrides
from tests.support.api_matrix import calls, patiently, says
from tests.support.asking_policy import asking
from tests.support.databases import Roles
from tests.support.live_server import LiveServer, live_server

PATH, TEXT = "made.txt", "forty-two"
WRITES = calls("write_file", path=PATH, content=TEXT)
DONE = says("Written.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A server, whoever submits, and whoever decides."""

    live: LiveServer
    submitter: httpx2.Client
    approver: httpx2.Client
    provider: ScriptedProvider

    def submitted(self, *, waits: bool = True, **more: object) -> str:
        """A run whose first call asks; if it lasts, it waits by now."""
        body = more or {"task": f"Write {TEXT} to {PATH}"}
        answer = self.submitter.post("/v1/runs", json=body)
        run_id = str(answer.raise_for_status().json()["id"])
        if waits:
            self.state(run_id, "awaiting_approval")
        return run_id

    def state(self, run_id: str, *wanted: str) -> dict[str, Any]:
        """The run once it is in one of these states."""
        for _ in patiently():
            run: dict[str, Any] = self.submitter.get(f"/v1/runs/{run_id}").raise_for_status().json()
            if run["status"] in wanted:
                return run
        raise AssertionError

    def inbox(self, **filters: str) -> list[dict[str, Any]]:
        """What the approver finds waiting."""
        page = self.approver.get("/v1/approvals", params={"status": "pending", **filters})
        data: list[dict[str, Any]] = page.raise_for_status().json()["data"]
        return data

    def waiting(self, run_id: str) -> dict[str, Any]:
        """The approval that this run waits for."""
        for _ in patiently():
            if found := self.inbox(run_id=run_id):
                assert len(found) == 1
                return found[0]
        raise AssertionError

    def decided(
        self, approval: Mapping[str, Any], decision: str, **headers: str
    ) -> httpx2.Response:
        """A decision on what was shown."""
        body = {"decision": decision, "digest": approval["digest"], "comment": "seen"}
        return self.approver.post(
            f"/v1/approvals/{approval['id']}/decision", json=body, headers=headers
        )

    def entries(self, run_id: str) -> list[dict[str, Any]]:
        """The run's whole ledger, which must verify."""
        proof = self.submitter.get(f"/v1/runs/{run_id}/verification").raise_for_status().json()
        assert proof["verdict"] == "valid", proof
        page = self.submitter.get(f"/v1/runs/{run_id}/entries", params={"limit": 200})
        data: list[dict[str, Any]] = page.raise_for_status().json()["data"]
        return data

    def kinds(self, run_id: str) -> list[str]:
        """The kinds of the run's entries."""
        return [entry["kind"] for entry in self.entries(run_id)]

    def files(self) -> list[str]:
        """What the tool wrote, in any run's workspace."""
        return [path.read_text() for path in sorted(self.live.workspace.rglob(PATH))]


@contextmanager
def desk(
    roles: Roles,
    *replies: ModelReply,
    limits: Mapping[str, int] | None = None,
    **environ: str,
) -> Iterator[Desk]:
    """A deployment whose policy asks before a file is written."""
    provider = ScriptedProvider(script(replies))
    overrides = Overrides(
        providers={"scripted": provider}, default_model="scripted", book=asking(limits=limits)
    )
    with (
        live_server(roles, overrides, MESHFLOW_LEASE_SECONDS="4", **environ) as live,
        live.client("acme") as submitter,
        live.client("boss") as approver,
    ):
        yield Desk(live=live, submitter=submitter, approver=approver, provider=provider)


def script(replies: Sequence[ModelReply]) -> Sequence[ModelReply]:
    """What the model says; without anything, that it writes and then that it is done."""
    return replies or (WRITES, DONE)
