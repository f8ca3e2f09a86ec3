"""The agent loop with the real SDK over HTTP: every answer a model can give, each in its right end.

One request for each record that allows one, and the record is durable before the request arrives.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from app import roster
from app.domain.run import JsonObject
from app.domain.spotlight import unmarked
from app.runs.takeover import MOST_VAIN_RESUMPTIONS
from app.sandbox.workspace import Workspace
from app.tools.files import WriteFile
from tests.integration.gate.gate_scenes import (
    ANSWER,
    PROVIDER_KEY,
    RESULT,
    SUMS,
    USUAL,
    WRITES,
    Ending,
    files_under,
    rows,
    run_to_end,
    served_by_the_fake,
)
from tests.support import fake_messages_api as fake
from tests.support.databases import DatabaseServer, Roles, connect, execute
from tests.support.fake_messages_api import Call, FakeMessagesApi, Scenario

DO_IT = {"instructions": "Do the sum and write 42 to made.txt."}


def _one_request_a_record(ending: Ending, api: FakeMessagesApi) -> None:
    asked = [e for e in ending.of("llm.requested") if e["decision"]["verdict"] == "allow"]
    assert len(asked) == len(api.requests)
    assert len(ending.of("llm.responded")) == len(asked)


def test_a_text_is_the_answer(roles: Roles) -> None:
    with served_by_the_fake(roles, [fake.text(ANSWER)]) as (live, api), live.client() as client:
        ending = run_to_end(client, DO_IT)
    assert (ending.status, ending.code, ending.run["output"]) == ("succeeded", None, ANSWER)
    assert ending.kinds == [
        "run.submitted",
        "run.started",
        "llm.requested",
        "llm.responded",
        "run.finished",
    ]
    assert PROVIDER_KEY in api.requests[0].headers["authorization"]
    _one_request_a_record(ending, api)


def test_a_tool_is_called_and_its_result_goes_back(roles: Roles) -> None:
    script = [fake.tool_use(SUMS), fake.text(ANSWER)]
    with served_by_the_fake(roles, script) as (live, api), live.client() as client:
        ending = run_to_end(client, DO_IT)
    assert ending.status == "succeeded"
    last = api.requests[1].body["messages"][-1]["content"]
    assert [(block["type"], block["tool_use_id"]) for block in last] == [("tool_result", "toolu_2")]
    assert RESULT in last[0]["content"]
    _one_request_a_record(ending, api)


def test_calls_of_one_turn_are_all_made_and_answered_in_their_order(roles: Roles) -> None:
    reads = Call(name="read_file", arguments={"path": "made.txt"}, call_id="toolu_3")
    script = [fake.tool_use(SUMS, WRITES, reads), fake.text(ANSWER)]
    with served_by_the_fake(roles, script) as (live, api), live.client() as client:
        ending = run_to_end(client, DO_IT)
        made = files_under(live.workspace)
    assert ending.status == "succeeded"
    blocks = api.requests[1].body["messages"][-1]["content"]
    assert [block["tool_use_id"] for block in blocks] == ["toolu_2", "toolu_1", "toolu_3"]
    assert RESULT in blocks[0]["content"]
    assert unmarked(blocks[2]["content"]) == "42"
    assert list(made.values()) == ["42"]
    calls = [entry["call"]["call_id"] for entry in ending.of("tool.decided")]
    assert calls == ["toolu_2", "toolu_1", "toolu_3"]
    _one_request_a_record(ending, api)


def test_a_refused_call_among_good_ones_stops_only_itself(roles: Roles) -> None:
    wrong = Call(name="no_such_tool", arguments={"command": "id"}, call_id="toolu_9")
    script = [fake.tool_use(wrong, WRITES), fake.text(ANSWER)]
    with served_by_the_fake(roles, script) as (live, api), live.client() as client:
        ending = run_to_end(client, DO_IT)
        made = files_under(live.workspace)
    assert ending.outcomes("tool.decided") == ["schema:unknown_tool", "allow"]
    blocks = api.requests[1].body["messages"][-1]["content"]
    assert [block["is_error"] for block in blocks] == [True, False]
    assert "refused by policy (schema:unknown_tool)" in blocks[0]["content"]
    assert list(made.values()) == ["42"]


# A provider that asks for more patience than a run has is asked once.
FAILURES: Mapping[str, tuple[Scenario, str]] = {
    "bad request": (fake.status(400), "model.invalid_request"),
    "wrong key": (fake.status(401), "model.authentication"),
    "forbidden": (fake.status(403), "model.authentication"),
    "no such model": (fake.status(404), "model.invalid_request"),
    "too many requests": (fake.status(429, retry_after=90), "model.rate_limited"),
    "server error": (fake.status(500, retry_after=90), "model.server_error"),
    "overloaded": (fake.status(529, retry_after=90), "model.overloaded"),
    "truncated stream": (fake.truncated(), "model.stream_broken"),
    "hung up": (fake.hung_up(), "model.stream_broken"),
    "no last event": (fake.without_message_stop(), "model.stream_broken"),
    "malformed event": (fake.malformed_event(), "model.malformed_reply"),
    "malformed tool input": (fake.raw_tool_input('{"expression": 1'), "model.malformed_reply"),
    "tool input with a key twice": (
        fake.raw_tool_input('{"expression": "1", "expression": "2"}'),
        "model.malformed_reply",
    ),
    "error in mid-stream": (fake.error_event(), "model.overloaded"),
    "refusal": (fake.text("I will not.", stop_reason="refusal"), "model.refused"),
    "cut off": (fake.text("It goes on and", stop_reason="max_tokens"), "model.max_tokens"),
    "unknown stop reason": (fake.text("Hm.", stop_reason="novel"), "model.malformed_reply"),
    "tool use without a call": (
        fake.text("Hm.", stop_reason="tool_use"),
        "model.malformed_reply",
    ),
}


def _failed(ending: Ending, code: str) -> None:
    assert (ending.status, ending.code, ending.run["output"]) == ("failed", code, None)
    assert ending.outcomes("llm.responded")[-1] == code
    assert ending.outcomes("run.finished") == [f"failed:{code}"]
    assert PROVIDER_KEY not in str((ending.run, ending.entries))


@pytest.mark.parametrize("how", FAILURES)
def test_a_failed_call_is_a_failed_run_and_is_sent_once(roles: Roles, how: str) -> None:
    scenario, code = FAILURES[how]
    with served_by_the_fake(roles, [scenario]) as (live, api), live.client() as client:
        ending = run_to_end(client, DO_IT)
    _failed(ending, code)
    assert len(api.requests) == 1
    _one_request_a_record(ending, api)


@pytest.mark.parametrize("how", ["overloaded", "truncated stream", "refusal", "cut off"])
def test_a_later_call_that_fails_fails_the_run_and_releases_nothing(roles: Roles, how: str) -> None:
    scenario, code = FAILURES[how]
    script = [fake.tool_use(WRITES), scenario]
    with served_by_the_fake(roles, script) as (live, api), live.client() as client:
        ending = run_to_end(client, DO_IT)
    _failed(ending, code)
    _one_request_a_record(ending, api)
    assert rows(roles, "SELECT 1 FROM run_result WHERE run_id = $1", ending.run_id) == []


@pytest.mark.parametrize("scenario", [fake.slow(), fake.silent()], ids=["slow", "silent"])
def test_a_model_that_never_ends_its_answer_fails_at_the_deadline(
    roles: Roles, scenario: Scenario
) -> None:
    with (
        served_by_the_fake(roles, [scenario], MESHFLOW_MODEL_TIMEOUT_SECONDS="1") as (live, api),
        live.client() as client,
    ):
        ending = run_to_end(client, DO_IT)
        assert api.client_gone.wait(120)  # the connection is not left open
    _failed(ending, "model.timeout")
    _one_request_a_record(ending, api)


@pytest.mark.parametrize("scenario", [fake.slow(), fake.silent()], ids=["slow", "silent"])
def test_the_wall_clock_budget_ends_a_call_that_is_under_way(
    roles: Roles, scenario: Scenario
) -> None:
    task = {**DO_IT, "budget": {"max_wall_seconds": 1}}
    with served_by_the_fake(roles, [scenario]) as (live, api), live.client() as client:
        ending = run_to_end(client, task)
        assert api.client_gone.wait(120)
    assert (ending.status, ending.code, ending.run["output"]) == ("expired", "budget:wall", None)
    assert len(api.requests) == 1
    assert ending.kinds[-2:] == ["llm.requested", "run.finished"]


def test_a_model_that_nobody_prices_is_not_called(roles: Roles) -> None:
    with served_by_the_fake(roles, USUAL) as (live, api), live.client() as client:
        answer = client.post("/v1/runs", json={**DO_IT, "model": "made-up"})
    assert answer.status_code == 422
    assert api.requests == []


_STATE = (
    "SELECT record.kind FROM record JOIN runs USING (tenant_id, run_id)"
    " WHERE runs.kind = 'agent'"
    " AND status NOT IN ('succeeded', 'failed', 'blocked', 'expired') ORDER BY record.seq"
)


class Witness(Sequence[Scenario]):
    """A script that looks into the database whenever a request has arrived."""

    def __init__(self, scenarios: Sequence[Scenario], look: Callable[[], list[str]]) -> None:
        self._scenarios = scenarios
        self._look = look
        self.saw: list[list[str]] = []

    def __len__(self) -> int:
        return len(self._scenarios)

    def __getitem__(self, index: Any) -> Any:
        self.saw.append(self._look())
        return self._scenarios[index]


def test_the_intent_of_a_model_call_is_durable_before_the_request_arrives(roles: Roles) -> None:
    def look() -> list[str]:
        return [row["kind"] for row in rows(roles, _STATE)]

    witness = Witness(USUAL, look)
    with served_by_the_fake(roles, witness) as (live, _), live.client() as client:
        ending = run_to_end(client, DO_IT)
    assert len(witness.saw) == 3
    ends = [n for n, kind in enumerate(ending.kinds) if kind == "llm.requested"]
    # At each request the ledger held everything up to that request's own intent, and no more.
    assert witness.saw == [ending.kinds[: end + 1] for end in ends]
    assert [kinds[-1] for kinds in witness.saw] == ["llm.requested"] * 3


class WatchedWriteFile(WriteFile):
    """The real tool, which looks into the database before its effect."""

    def __init__(self, roles: Roles) -> None:
        self._roles = roles
        self.saw: list[list[str]] = []

    async def run(self, arguments: JsonObject, workspace: Workspace) -> str:
        raw = await connect(self._roles.superuser)
        try:
            self.saw.append([row["kind"] for row in await raw.fetch(_STATE)])
        finally:
            await raw.close()
        return await super().run(arguments, workspace)


@pytest.fixture
def watched(roles: Roles, monkeypatch: pytest.MonkeyPatch) -> WatchedWriteFile:
    watching = WatchedWriteFile(roles)
    others = tuple(tool for tool in roster.TOOLS if tool.spec.name != "write_file")
    monkeypatch.setattr(roster, "TOOLS", (*others, watching))
    return watching


def test_the_decision_on_a_tool_call_is_durable_before_the_tool_runs(
    roles: Roles, watched: WatchedWriteFile
) -> None:
    again = Call(name="write_file", arguments={"path": "b.txt", "content": "43"}, call_id="toolu_7")
    script = [fake.tool_use(WRITES, again), fake.text(ANSWER)]
    with served_by_the_fake(roles, script) as (live, _), live.client() as client:
        ending = run_to_end(client, DO_IT)
        assert len(files_under(live.workspace)) == 2
    ends = [n for n, kind in enumerate(ending.kinds) if kind == "tool.decided"]
    assert watched.saw == [ending.kinds[: end + 1] for end in ends]


_REFUSING = """
CREATE FUNCTION refuse_it() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'no more of these'; END $$;
CREATE TRIGGER refuse_it BEFORE INSERT ON record_default FOR EACH ROW
    WHEN (NEW.kind = '{kind}') EXECUTE FUNCTION refuse_it();
"""


def test_a_model_call_that_cannot_be_recorded_is_not_made(postgres: DatabaseServer) -> None:
    roles = postgres.new_database()
    asyncio.run(execute(roles.superuser, _REFUSING.format(kind="llm.requested")))
    with served_by_the_fake(roles, USUAL) as (live, api), live.client() as client:
        answer = client.post("/v1/runs", json=DO_IT, headers={"Prefer": "wait=30"})
        assert answer.status_code >= 500  # it would have begun with that write: it is not let in
        assert client.get("/v1/runs").raise_for_status().json()["data"] == []
    assert api.requests == []
    # With a bound, every run waits to be claimed, and begins with a write of its own.
    with (
        served_by_the_fake(roles, USUAL, MESHFLOW_MAX_TENANT_RUNS="1") as (live, api),
        live.client() as client,
    ):
        ending = run_to_end(client, DO_IT)
    assert ending.status not in {"succeeded", "blocked"}
    assert "llm.requested" not in ending.kinds
    assert api.requests == []


def test_a_tool_call_that_cannot_be_recorded_is_not_made(postgres: DatabaseServer) -> None:
    roles = postgres.new_database()
    asyncio.run(execute(roles.superuser, _REFUSING.format(kind="tool.decided")))
    script = [fake.tool_use(WRITES)] * (2 * MOST_VAIN_RESUMPTIONS)
    with served_by_the_fake(roles, script) as (live, api), live.client() as client:
        ending = run_to_end(client, DO_IT)
        made = files_under(live.workspace)
    assert ending.status == "interrupted"
    assert "tool.decided" not in ending.kinds
    assert made == {}
    # Each time it is gone on with the model is asked again: a few times, and not without end.
    assert len(api.requests) == 1 + MOST_VAIN_RESUMPTIONS
