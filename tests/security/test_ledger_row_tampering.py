"""What the row of a run says is held against its records: whoever changes it is named."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

import asyncpg
import pytest

from app.audit.replay_ledger import ReplayLedger
from app.audit.run_dossier import Bookmark
from app.domain.errors import LedgerBrokenError
from app.domain.run import RunId, TenantId
from app.ledger_assembly import ledger_parts
from tests.security.tampering_scene import (
    Run,
    as_superuser,
    assert_broken,
    assert_nothing_is_shown,
    assert_whole,
    attack,
    changes,
    columns_of,
    disarmed_server,
    verification,
    whole_run,
)
from tests.support.api_matrix import Gate, calls, problem_of, says, scripted
from tests.support.databases import DatabaseServer, Roles
from tests.support.live_server import LiveServer, live_server, settings_for

T = TypeVar("T")

FIRST, LAST = 0, 8  # of the nine records of a finished run

# The record that the row differs from when one of its columns says another thing.
NAMED: Mapping[str, tuple[int, str]] = {
    "runs.kind": (FIRST, "column 'kind'"),
    "runs.provider": (FIRST, "column 'provider'"),
    "runs.agent": (FIRST, "column 'agent'"),
    "runs.model": (FIRST, "column 'model'"),
    "runs.policy_digest": (FIRST, "column 'policy_digest'"),
    "runs.created_at": (FIRST, "column 'created_at'"),
    "runs.status": (LAST, "column 'status'"),
    "runs.epoch": (LAST, "column 'epoch'"),
    "runs.error_code": (LAST, "column 'error_code'"),
    "runs.finished_at": (LAST, "column 'finished_at'"),
    "runs.input_tokens": (LAST, "column 'input_tokens'"),
    "runs.output_tokens": (LAST, "column 'output_tokens'"),
    "runs.cost_micros": (LAST, "column 'cost_micros'"),
    "runs.steps": (LAST, "column 'steps'"),
    "runs.entries": (LAST + 1, "a finished run of"),
}
GONE = {"runs.tenant_id", "runs.run_id"}  # a run that is not there is not a valid one
OUTSIDE: Mapping[str, str] = {
    "runs.owner": "which process drives the run: nobody is shown it, the epoch is the fence",
}
# For what is a word, an empty column, or has a check of its own before the row's.
WORDS: Mapping[str, tuple[str, ...]] = {
    "runs.kind": (),
    "runs.status": ("'failed'", "'blocked'", "'cancelled'", "'expired'", "'interrupted'"),
    "runs.error_code": ("''", "'internal:keyerror'"),
    "runs.entries": ("0", "8", "10", "-1"),
}
CHANGES = [
    *(change for change in changes("runs") if change[0] in NAMED.keys() - WORDS.keys()),
    *((place, value) for place, values in WORDS.items() for value in values),
]


@pytest.fixture(scope="module")
def live(roles: Roles) -> Iterator[LiveServer]:
    with disarmed_server(roles) as served:
        yield served


@pytest.fixture
def run(live: LiveServer) -> Run:
    return whole_run(live)


def _set(live: LiveServer, run_id: UUID, assignments: str) -> None:
    attack(live.roles, f"UPDATE runs SET {assignments} WHERE run_id = $1", run_id)


def test_every_column_of_the_row_is_attacked_or_named_with_its_reason(roles: Roles) -> None:
    assert columns_of(roles, "runs") == set(NAMED) | GONE | set(OUTSIDE)
    assert {place for place, _ in CHANGES} == set(NAMED) - {"runs.kind"}


@pytest.mark.parametrize(("place", "value"), CHANGES)
def test_a_changed_row_of_a_finished_run_is_named(
    live: LiveServer, run: Run, place: str, value: str
) -> None:
    _set(live, run.run_id, f"{place.removeprefix('runs.')} = {value}")
    assert_broken(live, run, *NAMED[place])


@pytest.mark.parametrize("place", ["kind", "status"])
@pytest.mark.parametrize("value", ["", "succeeded ", "SUCCEEDED", "flow?", "run.finished"])
def test_a_word_that_no_run_can_be_is_named_and_not_a_crash(
    live: LiveServer, run: Run, place: str, value: str
) -> None:
    _set(live, run.run_id, f"{place} = '{value}'")
    assert_broken(live, run, FIRST, f"column '{place}' of the run's row holds no such word")
    with live.client() as client:
        problem_of(client.get("/v1/runs"), 409, "ledger-broken")
    _set(live, run.run_id, f"{place} = '{'agent' if place == 'kind' else 'succeeded'}'")
    assert_whole(live, run)


def test_a_name_cannot_be_moved_from_one_column_to_the_next(live: LiveServer, run: Run) -> None:
    _set(live, run.run_id, "provider = provider || ':' || agent, agent = NULL")
    assert_broken(live, run, FIRST, "column 'provider'")


@pytest.mark.parametrize("column", sorted(GONE))
def test_a_row_under_another_id_is_no_run_any_more(live: LiveServer, run: Run, column: str) -> None:
    _set(live, run.run_id, f"{column.removeprefix('runs.')} = gen_random_uuid()")
    with live.client() as client:
        for path in ("", "/verification", "/entries", "/events"):
            assert client.get(f"/v1/runs/{run.public}{path}").status_code == 404


@pytest.mark.parametrize("value", ["infinity", "99999-01-01", "0044-03-15 BC"])
def test_a_kept_result_with_a_time_outside_of_every_calendar_is_no_crash(
    live: LiveServer, run: Run, value: str
) -> None:
    change = f"UPDATE run_result SET expires_at = '{value}' WHERE run_id = $1"
    attack(live.roles, change, run.run_id)
    assert_whole(live, run)


def test_another_owner_of_a_finished_run_raises_no_alarm(live: LiveServer, run: Run) -> None:
    _set(live, run.run_id, "owner = gen_random_uuid()")
    assert_whole(live, run)


def test_a_finished_run_that_no_longer_says_its_length_is_not_believed(
    live: LiveServer, run: Run
) -> None:
    _set(live, run.run_id, "entries = NULL")
    assert_broken(live, run, LAST, "does not say how long it is")


def test_a_tail_cut_from_a_finished_run_without_a_length_is_missed(
    live: LiveServer, run: Run
) -> None:
    attack(live.roles, "DELETE FROM record WHERE run_id = $1 AND seq > 6", run.run_id, rows=2)
    attack(live.roles, "DELETE FROM payload WHERE run_id = $1 AND seq > 6", run.run_id, rows=5)
    _set(live, run.run_id, "entries = NULL")
    assert_broken(live, run, 6, "does not say how long it is")


@pytest.mark.parametrize("status", ["queued", "running", "cancelling", "awaiting_approval"])
@pytest.mark.parametrize("length", ["entries", "NULL"])
def test_a_finished_run_that_is_said_to_go_on_is_named(
    live: LiveServer, run: Run, status: str, length: str
) -> None:
    _set(live, run.run_id, f"status = '{status}', entries = {length}")
    found = verification(live, run)
    assert (found.verdict, found.seq) == ("broken", LAST)
    assert found.reason in (
        "an unfinished run says how long it is",
        "a run that ended is said to go on",
    )
    assert_nothing_is_shown(live, run)


def test_a_finished_run_made_to_look_unfinished_in_every_column_is_named(
    live: LiveServer, run: Run
) -> None:
    """Its last two records go too: what is left could be a run that was never ended."""
    attack(live.roles, "DELETE FROM record WHERE run_id = $1 AND seq > 6", run.run_id, rows=2)
    attack(live.roles, "DELETE FROM payload WHERE run_id = $1 AND seq > 6", run.run_id, rows=5)
    _set(live, run.run_id, "status = 'running', entries = NULL, finished_at = NULL")
    assert_broken(live, run, 6, "column 'input_tokens'")


# A run that the gate refused: two records, an error code, nothing used.
REFUSED = {
    "status = 'failed'": (1, "column 'status'"),
    "status = 'succeeded'": (1, "column 'status'"),
    "error_code = NULL": (1, "column 'error_code'"),
    "error_code = 'budget:steps'": (1, "column 'error_code'"),
    "error_code = ''": (1, "column 'error_code'"),
    "status = 'blocked:capability', error_code = 'not_granted'": (0, "column 'status'"),
    "status = 'succeeded', error_code = NULL": (1, "column 'status'"),
    "input_tokens = 1": (1, "column 'input_tokens'"),
}


@pytest.mark.parametrize("change", sorted(REFUSED))
def test_a_refusal_that_is_said_to_be_something_else_is_named(
    live: LiveServer, change: str
) -> None:
    with live.client() as client:
        body = {"task": "What is 17 * 23?", "capabilities": {"tools": ["no_such_tool"]}}
        told = client.post("/v1/runs", json=body)
        assert told.status_code == 403
        public = told.json()["run_id"]
        shown = client.get(f"/v1/runs/{public}").json()
    assert (shown["status"], shown["error"]) == ("blocked", {"code": "capability:not_granted"})
    refused = Run(public=public, run_id=UUID(public.removeprefix("run_")))
    assert verification(live, refused).verdict == "valid"
    _set(live, refused.run_id, change)
    assert_broken(live, refused, *REFUSED[change])
    _set(live, refused.run_id, "status = 'blocked'")  # so that lists can be read again


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A server with one run that waits for its model, and one that waits for the first."""

    live: LiveServer
    running: Run
    queued: Run


@pytest.fixture(scope="module")
def unfinished(postgres: DatabaseServer) -> Iterator[Unfinished]:
    gate = Gate()
    overrides = scripted(calls("calculator", expression="17 * 23"), says("391"), gate=gate)
    with (
        live_server(postgres.new_database(), overrides, MESHFLOW_MAX_CONCURRENT_RUNS="1") as served,
        served.client() as client,
    ):
        made: list[Run] = []
        for _ in range(2):
            public = client.post("/v1/runs", json={"task": "What is 17 * 23?"}).json()["id"]
            made.append(Run(public=public, run_id=UUID(public.removeprefix("run_"))))
            assert gate.reached.wait(60)
        yield Unfinished(live=served, running=made[0], queued=made[1])
        for one in made:
            client.post(f"/v1/runs/{one.public}/cancel")


UNFINISHED: Mapping[str, str] = {
    "kind": "kind || 'x'",
    "provider": "'anthropic'",
    "agent": "NULL",
    "model": "'claude-opus-4-5'",
    "policy_digest": "reverse(policy_digest)",
    "created_at": "created_at - interval '1 microsecond'",
    "finished_at": "created_at",
    "error_code": "'internal:keyerror'",
    "input_tokens": "1",
    "output_tokens": "1",
    "cost_micros": "1",
    "steps": "1",
}


@pytest.mark.parametrize("column", sorted(UNFINISHED))
@pytest.mark.parametrize("which", ["running", "queued"])
def test_a_changed_row_of_an_unfinished_run_is_named(
    unfinished: Unfinished, which: str, column: str
) -> None:
    run: Run = getattr(unfinished, which)
    _named_and_put_back(unfinished.live, run, column, UNFINISHED[column])


@pytest.mark.parametrize(
    ("which", "status"),
    [("running", "queued"), ("running", "cancelling"), ("queued", "running")],
)
def test_another_state_of_an_unfinished_run_is_named(
    unfinished: Unfinished, which: str, status: str
) -> None:
    run: Run = getattr(unfinished, which)
    _named_and_put_back(unfinished.live, run, "status", f"'{status}'")


def _named_and_put_back(live: LiveServer, run: Run, column: str, value: str) -> None:
    async def held(raw: asyncpg.Connection) -> object:
        kept = await raw.fetchval(f"SELECT {column} FROM runs WHERE run_id = $1", run.run_id)
        await raw.execute(f"UPDATE runs SET {column} = {value} WHERE run_id = $1", run.run_id)
        return kept

    assert verification(live, run).verdict == "valid"
    kept = as_superuser(live.roles, held)
    try:
        found = verification(live, run)
        assert (found.verdict, found.reason is not None) == ("broken", True)
        assert f"column '{column}'" in str(found.reason)
        with live.client() as client:
            for path in ("", "/entries", "/events"):
                problem_of(client.get(f"/v1/runs/{run.public}{path}"), 409, "ledger-broken")
    finally:
        attack(live.roles, f"UPDATE runs SET {column} = $2 WHERE run_id = $1", run.run_id, kept)
    assert verification(live, run).verdict == "valid"


Look = Callable[[ReplayLedger, TenantId], Coroutine[object, object, T]]


def _replayed(live: LiveServer, run: Run, look: Look[T]) -> T:
    """What a reader of this deployment's ledger sees, beside the server."""

    async def act() -> T:
        parts = ledger_parts(settings_for(live.directory, live.roles))
        await parts.enrolment.enrol()
        try:
            return await look(parts.replay, tenant_id)
        finally:
            await parts.logs.alarm.settled()
            await parts.database.close()

    async def tenant(raw: asyncpg.Connection) -> UUID:
        found: UUID = await raw.fetchval("SELECT tenant_id FROM runs WHERE run_id = $1", run.run_id)
        return found

    tenant_id = TenantId(as_superuser(live.roles, tenant))
    return asyncio.run(act())


async def _to_the_end(replay: ReplayLedger, tenant_id: TenantId, run_id: UUID) -> Bookmark:
    tail = await replay.tail(tenant_id, RunId(run_id), None)
    assert len(tail.records) == LAST + 1
    return tail.bookmark


# What a reader who has seen every record must still hear of at the next look.
AT_THE_END: Mapping[str, tuple[int, str]] = {
    "entries = NULL": (LAST, "does not say how long it is"),
    "entries = 10": (LAST + 1, "was cut"),
    "entries = 8": (LAST + 1, "was cut"),
    "status = 'running', entries = NULL": (LAST, "column 'status'"),
    "status = 'running'": (LAST, "an unfinished run says how long it is"),
    "status = 'failed'": (LAST, "column 'status'"),
    "steps = steps + 1": (LAST, "column 'steps'"),
    "model = 'claude-opus-4-5'": (FIRST, "column 'model'"),
}


@pytest.mark.parametrize("change", sorted(AT_THE_END))
def test_a_reader_at_the_end_of_a_run_is_told_when_its_row_changes(
    live: LiveServer, run: Run, change: str
) -> None:
    async def first(replay: ReplayLedger, tenant_id: TenantId) -> Bookmark:
        bookmark = await _to_the_end(replay, tenant_id, run.run_id)
        again = await replay.tail(tenant_id, RunId(run.run_id), bookmark)
        assert (again.records, again.bookmark) == ((), bookmark)
        return bookmark

    bookmark = _replayed(live, run, first)
    _set(live, run.run_id, change)

    async def second(replay: ReplayLedger, tenant_id: TenantId) -> LedgerBrokenError:
        with pytest.raises(LedgerBrokenError) as caught:
            await replay.tail(tenant_id, RunId(run.run_id), bookmark)
        return caught.value

    found = _replayed(live, run, second).found
    seq, reason = AT_THE_END[change]
    assert found.seq == seq, found
    assert reason in found.reason, found


def test_a_stream_that_has_begun_ends_when_the_row_is_changed(postgres: DatabaseServer) -> None:
    gate = Gate()
    # A database of its own: the module's server would sweep this one's runs, and share its keys.
    with (
        live_server(postgres.new_database(), scripted(says("391"), gate=gate)) as served,
        served.client() as client,
    ):
        posted = client.post("/v1/runs", json={"task": "What is 17 * 23?"})
        assert posted.status_code == 202, posted.text
        public = posted.json()["id"]
        assert gate.reached.wait(60)
        with client.stream("GET", f"/v1/runs/{public}/events") as stream:
            lines = stream.iter_lines()
            told = [next(lines)]
            _set(served, UUID(public.removeprefix("run_")), "input_tokens = 7")
            told += list(lines)
        kinds = [line.removeprefix("event: ") for line in told if line.startswith("event: ")]
        assert kinds == ["run.submitted", "run.started", "llm.requested"]
        gate.open()
