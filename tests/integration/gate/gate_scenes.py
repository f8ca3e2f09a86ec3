"""Scenes of a governed run over HTTP, and what can be counted of them outside the process."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import httpx2

from app.domain.spotlight import unmarked
from app.domain.verdict import Point
from app.policy.gate import DascGate
from app.wiring import Overrides
from tests.support.databases import Roles, connect
from tests.support.fake_messages_api import (
    Call,
    FakeMessagesApi,
    Scenario,
    Script,
    fake_messages_api,
    text,
    tool_use,
)
from tests.support.live_server import LiveServer, live_server
from tests.support.planted_rules import PLANTED_CODE, PLANTED_ID

T = TypeVar("T")
PROVIDER_KEY = "sk-test-0123456789-gate"
ENDED = frozenset({"succeeded", "failed", "blocked", "cancelled", "expired", "interrupted"})

SUM = "123456789*987654321"
RESULT = "121932631112635269"  # stands in no request before the tool has answered
ANSWER = "The answer is 42 and a half."
WRITES = Call(name="write_file", arguments={"path": "made.txt", "content": "42"}, call_id="toolu_1")
SUMS = Call(name="calculator", arguments={"expression": SUM}, call_id="toolu_2")


def rows(roles: Roles, query: str, *arguments: object) -> list[dict[str, Any]]:
    """What a query gives to somebody who sees every row."""

    async def fetch() -> list[dict[str, Any]]:
        raw: asyncpg.Connection = await connect(roles.superuser)
        try:
            return [dict(row) for row in await raw.fetch(query, *arguments)]
        finally:
            await raw.close()

    return elsewhere(fetch)


def elsewhere(work: Callable[[], Coroutine[object, object, T]]) -> T:
    """Run this on an event loop of its own, even where one is running: in another thread."""
    with ThreadPoolExecutor(max_workers=1) as other:
        return other.submit(lambda: asyncio.run(work())).result()


def files_under(directory: Path) -> dict[str, str]:
    """Every file below a directory, by its path from there."""
    return {
        str(path.relative_to(directory)): path.read_text(errors="replace")
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@contextmanager
def served_by_the_fake(
    roles: Roles, script: Script, overrides: Overrides | None = None, **environ: str
) -> Iterator[tuple[LiveServer, FakeMessagesApi]]:
    """A server whose models answer over HTTP, through the real SDK, by this script."""
    with fake_messages_api(script) as api:
        settings = {
            "ANTHROPIC_API_KEY": PROVIDER_KEY,
            "MESHFLOW_ANTHROPIC_BASE_URL": api.base_url,
            **environ,
        }
        with live_server(roles, overrides, **settings) as live:
            yield live, api


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """A run that is over: as the API tells it, and its whole ledger."""

    run: dict[str, Any]
    entries: list[dict[str, Any]]

    @property
    def run_id(self) -> UUID:
        return UUID(str(self.run["id"]).removeprefix("run_"))

    @property
    def status(self) -> str:
        return str(self.run["status"])

    @property
    def code(self) -> str | None:
        return None if self.run["error"] is None else str(self.run["error"]["code"])

    @property
    def kinds(self) -> list[str]:
        return [entry["kind"] for entry in self.entries]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The entries of one kind."""
        return [entry for entry in self.entries if entry["kind"] == kind]

    def outcomes(self, kind: str) -> list[str]:
        """What the entries of one kind came to."""
        return [entry["outcome"] for entry in self.of(kind)]


def run_to_end(client: httpx2.Client, body: Mapping[str, object] | str) -> Ending:
    """Submit a task, wait for its end, and read its ledger, which must be whole."""
    asked = {"task": body} if isinstance(body, str) else dict(body)
    answer = client.post("/v1/runs", json=asked, headers={"Prefer": "wait=30"})
    assert answer.status_code == 200, answer.text
    return ended(client, answer.json()["id"])


def ended(client: httpx2.Client, run_id: str) -> Ending:
    """A finished run, whose ledger must verify and be complete."""
    run = client.get(f"/v1/runs/{run_id}").raise_for_status().json()
    page = client.get(f"/v1/runs/{run_id}/entries", params={"limit": 200})
    entries: list[dict[str, Any]] = page.raise_for_status().json()["data"]
    proof = client.get(f"/v1/runs/{run_id}/verification").raise_for_status().json()
    assert proof["verdict"] == "valid", proof
    assert proof["entries"] == len(entries) == run["entries"]
    assert run["status"] in ENDED
    _require_complete(entries)
    return Ending(run=run, entries=entries)


# A run that was stopped from outside may have been in the middle of one act.
_STOPPED = frozenset(
    {"expired:budget:wall", "cancelled", "interrupted:shutdown", "interrupted:owner_lost"}
)


def _require_complete(entries: Sequence[Mapping[str, Any]]) -> None:
    """Every act has its decision before it and its end after it, and there is one last record."""
    assert [entry["seq"] for entry in entries] == list(range(len(entries)))
    assert entries[0]["kind"] == "run.submitted"
    resumed = max((e["seq"] for e in entries if e["kind"] == "run.resumed"), default=-1)
    assert [e["seq"] for e in entries if e["kind"] == "run.finished"] == [len(entries) - 1]
    for intent, effect in (("llm.requested", "llm.responded"), ("tool.decided", "tool.finished")):
        allowed = [
            entry["seq"]
            for entry in entries
            if entry["kind"] == intent and entry["decision"]["verdict"] == "allow"
        ]
        ends = [(e["intent"], e["seq"]) for e in entries if e["kind"] == effect]
        # What was under way when the run lost its process was begun anew by the next one.
        allowed = [seq for seq in allowed if seq > resumed or seq in {one for one, _ in ends}]
        stopped = entries[-1]["outcome"] in _STOPPED
        assert [one for one, _ in ends] == (allowed[: len(ends)] if stopped else allowed)
        assert all(one < seq for one, seq in ends)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What one scene left behind, counted outside the server."""

    answer_status: int
    answer: dict[str, Any]
    ending: Ending
    row: dict[str, Any]
    results: int
    requests: tuple[str, ...]  # the bodies that reached the model's API
    files: dict[str, str]

    @property
    def kinds(self) -> list[str]:
        return self.ending.kinds


# One turn that writes a file, one that calculates, then the answer.
USUAL: tuple[Scenario, ...] = (tool_use(WRITES), tool_use(SUMS), text(ANSWER))
TASK = {"instructions": "Write 42 to made.txt, do the sum, and tell me."}


def observed(roles: Roles, gate: DascGate) -> Observed:
    """The usual scene under this gate."""
    with served_by_the_fake(roles, USUAL, Overrides(gate=gate)) as (live, api):
        with live.client() as client:
            posted = client.post("/v1/runs", json=TASK, headers={"Prefer": "wait=30"})
            answer = posted.json()
            public = answer["run_id"] if posted.status_code == 403 else answer["id"]
            ending = ended(client, public)
        run_id = UUID(public.removeprefix("run_"))
        query = "SELECT status, error_code, entries, finished_at FROM runs WHERE run_id = $1"
        kept = "SELECT count(*) AS n FROM run_result WHERE run_id = $1"
        return Observed(
            answer_status=posted.status_code,
            answer=answer,
            ending=ending,
            row=rows(roles, query, run_id)[0],
            results=int(rows(roles, kept, run_id)[0]["n"]),
            requests=tuple(str(seen.body) for seen in api.requests),
            files=files_under(live.workspace),
        )


def _blocked(seen: Observed, code: str) -> None:
    """The run is closed as blocked, with nothing released, wherever one looks."""
    assert (seen.row["status"], seen.row["error_code"]) == ("blocked", code)
    assert seen.row["finished_at"] is not None
    assert seen.row["entries"] == len(seen.ending.entries)
    assert (seen.ending.status, seen.ending.code) == ("blocked", code)
    assert seen.ending.run["output"] is None
    assert seen.results == 0
    assert ANSWER not in str(seen.ending.of("run.finished"))


def _denials(seen: Observed) -> list[tuple[str, list[str]]]:
    return [
        (entry["kind"], entry["decision"]["rules"])
        for entry in seen.ending.entries
        if entry["decision"] is not None and entry["decision"]["verdict"] == "deny"
    ]


def submit_denied(seen: Observed, code: str = PLANTED_CODE, rule: str = PLANTED_ID) -> None:
    assert seen.answer_status == 403
    assert seen.answer["code"] == "policy-denied"
    assert seen.answer["rules"] == ([rule] if rule else [])
    _blocked(seen, code)
    assert seen.kinds == ["run.submitted", "run.finished"]
    assert seen.requests == ()
    assert seen.files == {}


def request_denied(seen: Observed, code: str = PLANTED_CODE, rule: str = PLANTED_ID) -> None:
    _blocked(seen, code)
    assert seen.requests == ()
    assert seen.files == {}
    assert _denials(seen) == [("llm.requested", [rule] if rule else [])]


def response_denied(seen: Observed, code: str = PLANTED_CODE, rule: str = PLANTED_ID) -> None:
    _blocked(seen, code)
    assert len(seen.requests) == 1
    assert seen.files == {}
    assert _denials(seen) == [("llm.responded", [rule] if rule else [])]
    assert "tool.decided" not in seen.kinds


def call_denied(seen: Observed, code: str = PLANTED_CODE, rule: str = PLANTED_ID) -> None:
    assert seen.files == {}
    assert _denials(seen) == [("tool.decided", [rule] if rule else [])] * 2
    assert seen.ending.outcomes("tool.decided") == [code] * 2
    assert "tool.finished" not in seen.kinds
    assert RESULT not in "".join(seen.requests)
    assert f"refused by policy ({code})" in seen.requests[1]
    assert seen.row["status"] == "succeeded"  # the model was told and went on


def result_denied(seen: Observed, code: str = PLANTED_CODE, rule: str = PLANTED_ID) -> None:
    assert len(seen.requests) == 3
    assert RESULT not in "".join(seen.requests)
    assert "wrote 2 bytes" not in "".join(seen.requests)
    assert f"withheld by policy ({code})" in seen.requests[2]
    assert _denials(seen) == [("tool.finished", [rule] if rule else [])] * 2
    assert seen.ending.outcomes("tool.finished") == [code] * 2


def output_denied(seen: Observed, code: str = PLANTED_CODE, rule: str = PLANTED_ID) -> None:
    _blocked(seen, code)
    assert len(seen.requests) == 3
    assert _denials(seen) == [("run.finished", [rule] if rule else [])]


# What must hold when a point denies, for each point that has a caller.
DENIED: Mapping[Point, Callable[[Observed, str, str], None]] = {
    Point.RUN_SUBMIT: submit_denied,
    Point.LLM_REQUEST: request_denied,
    Point.LLM_RESPONSE: response_denied,
    Point.TOOL_CALL: call_denied,
    Point.TOOL_RESULT: result_denied,
    Point.RUN_OUTPUT: output_denied,
}


def headers_of(roles: Roles, ending: Ending) -> list[dict[str, Any]]:
    """The headers of a run's records, in order."""
    found = rows(roles, "select header from record where run_id = $1 order by seq", ending.run_id)
    return [json.loads(bytes(row["header"])) for row in found]


def told_results(api: FakeMessagesApi) -> list[str]:
    """What the model was told its calls came to."""
    told = []
    for message in api.requests[-1].body["messages"]:
        if isinstance(message["content"], list):
            for part in message["content"]:
                if part["type"] == "tool_result":
                    content = part["content"]
                    text = (
                        content if isinstance(content, str) else "".join(p["text"] for p in content)
                    )
                    told.append(unmarked(text))
    return told
