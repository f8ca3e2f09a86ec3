"""Waits until all that was committed so far has its place in its log.

Whoever can lead integrates it itself; otherwise the process that leads has to come so far.

Threat: Ledger tampering
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from uuid import UUID

from app.domain.errors import RotationRefusedError
from app.sequencing.sequencer import Sequencer
from app.storage.database import Database
from app.storage.keeper_store import log_sizes
from app.storage.sequencer_store import Leader, leading, next_transaction, settled_transactions

_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settling:
    """One deployment's logs, seen by whoever has the sequencer's login."""

    database: Database
    enrolment: Callable[[], Awaitable[Collection[bytes]]]
    origin_of: Callable[[bytes], str]
    patience_seconds: float = 30.0

    async def sizes(self, operator: UUID) -> dict[str, int]:
        """The size of each log, by its id in hex, once all that was committed before is in it.

        RotationRefusedError when that does not come about.
        """
        try:
            async with asyncio.timeout(self.patience_seconds):
                async with leading(self.database, operator) as leader:
                    if leader is not None:
                        return await self.led(leader)
                return await self._followed(operator)
        except TimeoutError:
            raise RotationRefusedError(
                "not all records are in their logs yet: no sequencer runs, or a transaction is open"
            ) from None

    async def led(self, leader: Leader) -> dict[str, int]:
        """As `sizes`, for the one who leads; waits as long as it takes."""
        sequencer = await Sequencer.start(leader, await self.enrolment(), self.origin_of)
        due = await next_transaction(leader.raw)
        while (await sequencer.tick()).has_more or leader.watermark < due:  # noqa: ASYNC110 - Postgres sends no event
            await asyncio.sleep(_LOOK_SECONDS)
        return await log_sizes(leader.raw)

    async def _followed(self, operator: UUID) -> dict[str, int]:
        async with self.database.driver() as raw:
            due = await next_transaction(raw)
        while True:
            async with self.database.driver() as raw:
                if await settled_transactions(raw, operator) >= due:
                    return await log_sizes(raw)
            await asyncio.sleep(_LOOK_SECONDS)
