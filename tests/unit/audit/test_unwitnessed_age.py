"""A verification says for how long the oldest record has waited that no witness has seen."""

from datetime import UTC, datetime, timedelta

import pytest

from app.audit.integrity import unwitnessed_age
from app.ledger.chain import Resume, VerifiedChain, VerifiedRecord

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def record(seq: int, seconds_ago: float) -> VerifiedRecord:
    return VerifiedRecord(
        seq=seq,
        kind="run.started",
        at=NOW - timedelta(seconds=seconds_ago),
        header={},
        rc=bytes(32),
        chain=bytes(32),
        fields={},
        erased=frozenset(),
    )


def chain_of(*seconds_ago: float, deleted: int = 0) -> VerifiedChain:
    records = tuple(record(seq, age) for seq, age in enumerate(seconds_ago))
    head = Resume(next_seq=len(records) + deleted, chain=bytes(32), epoch=1)
    return VerifiedChain(records=records, head=head, deleted=deleted)


@pytest.mark.parametrize(
    ("witnessed", "age"), [(0, 90), (1, 60), (2, 7), (3, 0)], ids=["none", "one", "two", "all"]
)
def test_it_is_the_age_of_the_first_that_is_not_witnessed(witnessed: int, age: int) -> None:
    assert unwitnessed_age(chain_of(90.9, 60, 7.2), witnessed, NOW) == age


def test_of_a_deleted_run_it_is_unknown_until_all_is_witnessed() -> None:
    assert unwitnessed_age(chain_of(deleted=3), 0, NOW) is None
    assert unwitnessed_age(chain_of(deleted=3), 3, NOW) == 0


def test_a_clock_that_was_ahead_makes_no_negative_age() -> None:
    assert unwitnessed_age(chain_of(-5), 0, NOW) == 0
