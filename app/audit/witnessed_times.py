"""Holds the times that records say against the times at which witnesses saw the log.

A writer's clock is nobody's word but its own. Witnesses saw the log without a record at one time
and with it at another: a record that says a time well before the first or after the second was
written under a wrong clock, or waited that long for its place. That is said, and breaks nothing.

Threat: Ledger tampering
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.ledger.chain import VerifiedRecord

# Clocks differ by seconds and records are sequenced within seconds.
TOLERANCE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeDoubt:
    """The first record whose time is outside of what witnesses saw, and their time."""

    seq: int
    said: datetime
    seen_at: datetime
    is_ahead: bool


def time_doubt(
    records: Sequence[VerifiedRecord],
    *,
    seen_without: datetime | None,
    seen_with: datetime | None,
    covered: int,
) -> TimeDoubt | None:
    """The first doubt about the times of records; None when there is none or nothing to go by.

    `seen_without`: when witnesses had seen the log without any of them; `seen_with`: with the first
    `covered` of them.
    """
    for record in records:
        said = record.at
        if seen_without is not None and said < seen_without - TOLERANCE:
            return TimeDoubt(seq=record.seq, said=said, seen_at=seen_without, is_ahead=False)
        if seen_with is not None and record.seq < covered and said > seen_with + TOLERANCE:
            return TimeDoubt(seq=record.seq, said=said, seen_at=seen_with, is_ahead=True)
    return None
