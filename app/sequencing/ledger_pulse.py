"""LedgerPulse: how old is what no witness has seen, and how long ago the sequencer was heard of.

Any process can ask: it reads what the leading one wrote, as the application reads a log.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

from app.domain.run import TenantId
from app.storage.database import Database
from app.storage.log_store import (
    read_cosigners,
    read_first_checkpoint,
    read_head,
    read_sequencer_beat,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """The ledger's state in three numbers. `inf`: there has been nothing yet."""

    size: int  # leaves of the operator log
    unwitnessed_age_seconds: float
    unsequenced_age_seconds: float


class LedgerPulse:
    """Takes the pulse of one deployment's ledger. `is_quorum` judges names of witnesses."""

    def __init__(
        self,
        *,
        database: Database,
        is_quorum: Callable[[Collection[str]], bool],
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._is_quorum = is_quorum
        self._now = now

    async def take(self, operator: TenantId) -> Vitals:
        """The present numbers. LedgerUnavailableError when the database does not answer."""
        async with self._database.snapshot(operator) as raw:
            head = await read_head(raw, operator)
            beaten_at = await read_sequencer_beat(raw, operator)
            cosigners = {} if head is None else await read_cosigners(raw, operator, head.origin)
            witnessed = max(
                (size for size, names in cosigners.items() if self._is_quorum(names)), default=0
            )
            since = None
            if head is not None and witnessed < head.size:
                first = await read_first_checkpoint(raw, operator, at_least=witnessed + 1)
                since = head.integrated_at if first is None else first.created_at
        return Vitals(
            size=0 if head is None else head.size,
            unwitnessed_age_seconds=0.0 if since is None else self._age(since),
            unsequenced_age_seconds=math.inf if beaten_at is None else self._age(beaten_at),
        )

    def _age(self, moment: datetime) -> float:
        return max((self._now() - moment).total_seconds(), 0.0)
