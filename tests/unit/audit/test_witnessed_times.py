"""What a record says of its time is held against the times of witnesses, and only said."""

from datetime import UTC, datetime, timedelta

import pytest

from app.audit.witnessed_times import TOLERANCE, time_doubt
from app.ledger.chain import VerifiedRecord

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def records(*times: datetime) -> list[VerifiedRecord]:
    return [
        VerifiedRecord(
            seq=seq,
            kind="x",
            at=at,
            header={},
            rc=bytes(32),
            chain=bytes(32),
            fields={},
            erased=frozenset(),
        )
        for seq, at in enumerate(times)
    ]


@pytest.mark.parametrize(
    ("second", "found"),
    [
        (NOON, None),
        (NOON - TOLERANCE, None),
        (NOON - TOLERANCE - SECOND, (1, NOON, False)),
        (NOON + SECOND + TOLERANCE, None),
        (NOON + SECOND + TOLERANCE + SECOND, (1, NOON + SECOND, True)),
    ],
)
def test_a_time_outside_of_what_witnesses_saw_is_told(
    second: datetime, found: tuple[int, datetime, bool] | None
) -> None:
    doubt = time_doubt(records(NOON, second), seen_without=NOON, seen_with=NOON + SECOND, covered=2)
    assert (doubt and (doubt.seq, doubt.seen_at, doubt.is_ahead)) == found


def test_what_no_witness_has_seen_is_not_held_against_a_time() -> None:
    late = records(NOON, NOON + 2 * TOLERANCE)
    assert time_doubt(late, seen_without=None, seen_with=NOON, covered=1) is None
    assert time_doubt(late, seen_without=None, seen_with=None, covered=0) is None
