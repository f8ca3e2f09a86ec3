"""What records say of a run's row: each column, each state, and how a difference is named."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import ChainBreak
from app.domain.record import MAX_CODE_CHARACTERS
from app.domain.run import (
    TERMINAL,
    Json,
    JsonObject,
    RunId,
    RunKind,
    RunRow,
    RunStatus,
    TenantId,
    Usage,
)
from app.ledger.chain import VerifiedRecord
from app.ledger.run_account import RunAccount, account_of, engine_of, final_outcome, row_break

AT = datetime(2026, 11, 25, 9, 0, 0, 7, tzinfo=UTC)
DIGEST = "ab" * 32
USED: JsonObject = {"input_tokens": 10, "output_tokens": 5, "cost_micros": 105}
CODES = st.text(
    "abcdefghijklmnopqrstuvwxyz0123456789_.:-", min_size=1, max_size=MAX_CODE_CHARACTERS
)


def _record(seq: int, kind: str, epoch: int = 2, **members: Json) -> VerifiedRecord:
    absent = dict.fromkeys(("policy", "engine", "model", "usage", "outcome"))
    header: JsonObject = {"epoch": epoch, **absent, **members}
    return VerifiedRecord(
        seq=seq,
        kind=kind,
        at=AT + timedelta(seconds=seq),
        header=header,
        rc=b"",
        chain=b"",
        fields={},
        erased=frozenset(),
    )


def _opening(engine: str = "offline:assistant") -> VerifiedRecord:
    return _record(0, "run.submitted", 1, engine=engine, model="offline", policy={"digest": DIGEST})


def _story(outcome: str = "succeeded") -> list[VerifiedRecord]:
    """A run of two turns, and a call of the model that failed."""
    return [
        _opening(),
        _record(1, "run.started"),
        _record(2, "llm.requested"),
        _record(3, "llm.responded", usage=USED),
        _record(4, "tool.decided"),
        _record(5, "tool.finished"),
        _record(6, "llm.requested"),
        _record(7, "llm.responded", usage=USED),
        _record(8, "llm.requested"),
        _record(9, "llm.responded"),
        _record(10, "run.finished", 3, outcome=outcome),
    ]


def _told(records: Sequence[VerifiedRecord]) -> RunAccount:
    account = account_of(records)
    assert isinstance(account, RunAccount), account
    return account


def _row(**changed: Any) -> RunRow:
    """The row that goes with the whole story."""
    row = RunRow(
        tenant_id=TenantId(UUID(int=1)),
        run_id=RunId(UUID(int=2)),
        kind=RunKind.AGENT,
        status=RunStatus.SUCCEEDED,
        epoch=3,
        provider="offline",
        model="offline",
        agent="assistant",
        usage=Usage(input_tokens=20, output_tokens=10, cost_micros=210, steps=2),
        entries=11,
        error_code=None,
        policy_digest=DIGEST,
        created_at=AT,
        finished_at=AT + timedelta(seconds=10),
    )
    return replace(row, **changed)


def test_the_row_that_was_written_with_the_records_agrees_with_them() -> None:
    assert row_break(_row(), _told(_story())) is None


OTHERS: Mapping[str, tuple[Any, int]] = {
    "status": (RunStatus.FAILED, 10),
    "epoch": (2, 10),
    "provider": ("anthropic", 0),
    "model": ("other", 0),
    "agent": (None, 0),
    "entries": (10, 10),
    "error_code": ("internal:keyerror", 10),
    "policy_digest": ("cd" * 32, 0),
    "created_at": (AT + timedelta(microseconds=1), 0),
    "finished_at": (None, 10),
}


@pytest.mark.parametrize("column", sorted(OTHERS))
def test_a_column_that_says_something_else_is_named_with_its_record(column: str) -> None:
    value, seq = OTHERS[column]
    found = row_break(_row(**{column: value}), _told(_story()))
    assert found == ChainBreak(
        seq=seq, reason=f"column '{column}' of the run's row differs from the ledger"
    )


@pytest.mark.parametrize("column", [item.name for item in fields(Usage)])
@pytest.mark.parametrize("change", [-1, 1])
def test_another_usage_is_named(column: str, change: int) -> None:
    usage = _row().usage
    other = replace(usage, **{column: getattr(usage, column) + change})
    found = row_break(_row(usage=other), _told(_story()))
    assert found is not None
    assert (found.seq, f"'{column}'" in found.reason) == (10, True)


def test_every_column_of_a_row_is_compared_but_its_ids() -> None:
    """The kind has one value now; tests with a database write others into it."""
    columns = {item.name for item in fields(RunRow)}
    assert columns == {*OTHERS, "tenant_id", "run_id", "kind", "usage"}


@pytest.mark.parametrize(
    ("length", "status", "seq"),
    [(1, RunStatus.QUEUED, 0), (2, RunStatus.RUNNING, 1), (8, RunStatus.RUNNING, 1)],
)
def test_an_unfinished_run_has_used_nothing_yet_and_its_state_is_exact(
    length: int, status: RunStatus, seq: int
) -> None:
    account = _told(_story()[:length])
    open_row = _row(
        status=status,
        epoch=account.epoch,
        usage=Usage(),
        entries=None,
        finished_at=None,
    )
    assert row_break(open_row, account) is None
    for other in set(RunStatus) - {status}:
        found = row_break(replace(open_row, status=other), account)
        assert found is not None
        assert (found.seq, "'status'" in found.reason) == (seq, True)
    for changed in ({"usage": Usage(steps=1)}, {"entries": length}, {"finished_at": AT}):
        found = row_break(replace(open_row, **changed), account)
        assert found is not None
        assert found.seq == length - 1


@given(split=st.integers(0, 11))
def test_a_reader_who_comes_back_learns_what_one_who_reads_all_at_once_does(split: int) -> None:
    story = _story()
    before = None if split == 0 else _told(story[:split])
    assert account_of(story[split:], before) == _told(story)


@given(status=st.sampled_from(sorted(TERMINAL)), code=st.none() | CODES)
def test_status_and_code_are_read_back_as_they_were_written(
    status: RunStatus, code: str | None
) -> None:
    outcome = final_outcome(status, code)
    assert len(outcome) <= 128
    account = _told(_story(outcome))
    assert (account.status, account.error_code) == (status, code)


@given(
    provider=st.text("abcdefghij-_.", min_size=1), agent=st.none() | st.text("abc:_.", min_size=1)
)
def test_provider_and_agent_are_read_back_as_they_were_written(
    provider: str, agent: str | None
) -> None:
    account = _told([_opening(engine_of(provider, agent))])
    assert (account.provider, account.agent) == (provider, agent)


@pytest.mark.parametrize("outcome", [None, "", "running", "queued:x", "done", "capability:denied"])
def test_a_final_record_that_names_no_end_is_a_break(outcome: str | None) -> None:
    found = account_of([*_story()[:-1], _record(10, "run.finished", outcome=outcome)])
    assert found == ChainBreak(seq=10, reason="the final record names no end")


def test_records_that_do_not_begin_with_a_submission_are_a_break() -> None:
    reason = "a run does not begin with its submission"
    assert account_of([_record(0, "run.started")]) == ChainBreak(seq=0, reason=reason)
    nobody_decided = _record(0, "run.submitted", engine="offline", model="offline", policy=None)
    assert account_of([nobody_decided]) == ChainBreak(seq=0, reason=reason)
    assert account_of([]) == ChainBreak(seq=0, reason="a run without records")
