"""What is proved of a run at the moment of reading: in words that an API can show."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.ledger.chain import VerifiedChain


class IntegrityState(StrEnum):
    """How far a run's records are proved."""

    ANCHORED = "anchored"  # all of them are witnessed
    PENDING = "pending"  # they verify, and some are not witnessed
    ERASED = "erased"  # they verify, and what is missing was lawfully erased
    BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Integrity:
    """Of `size` records, `unwitnessed` are known to nobody outside; the others since that time.

    `unwitnessed_age_seconds` is that of the oldest of those; None where its time is erased.
    """

    state: IntegrityState
    size: int
    witnessed_at: datetime | None
    unwitnessed: int
    unwitnessed_age_seconds: int | None


def unwitnessed_age(chain: VerifiedChain, witnessed: int, now: datetime) -> int | None:
    """For how long the first record that is not witnessed has been there, by its own time."""
    if witnessed == chain.head.next_seq:
        return 0
    if witnessed >= len(chain.records):
        return None
    return max(0, int((now - chain.records[witnessed].at).total_seconds()))
