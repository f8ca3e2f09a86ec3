"""What is proved of a run at the moment of reading: in words that an API can show."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class IntegrityState(StrEnum):
    """How far a run's records are proved."""

    ANCHORED = "anchored"  # all of them are witnessed
    PENDING = "pending"  # they verify, and some are not witnessed
    ERASED = "erased"  # they verify, and what is missing was lawfully erased
    BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Integrity:
    """Of `size` records, `unwitnessed` are known to nobody outside; the others since that time."""

    state: IntegrityState
    size: int
    witnessed_at: datetime | None
    unwitnessed: int
