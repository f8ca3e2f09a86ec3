"""Retires writers that are gone, and records how far each log had come by then.

A writer is gone when its heartbeat stood still while the database answered all the time: an outage
of the database retires nobody.

Threat: Ledger tampering
"""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from app.administration.admin_log import AdminLog
from app.domain.run import TenantId
from app.storage.keeper_store import (
    log_sizes,
    note_retirement,
    retire_writer,
    retired_writers,
    writers_seen,
)
from app.storage.sequencer_store import Leader

GONE_SECONDS = 900.0
LOOK_SECONDS = 10.0


class WriterRetirement:
    """What one leader has seen of writers since it leads."""

    def __init__(
        self,
        admin_log: AdminLog,
        operator: TenantId,
        monotonic: Callable[[], float],
        *,
        gone_seconds: float = GONE_SECONDS,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._admin_log = admin_log
        self._operator = operator
        self._monotonic = monotonic
        self._gone_seconds = gone_seconds
        self._look_seconds = look_seconds
        self._looked_at: float | None = None
        self._still: dict[UUID, tuple[datetime, float]] = {}

    async def look(self, leader: Leader) -> None:
        """Retire who stood still for long enough, and record those who are done for."""
        now = self._monotonic()
        if self._looked_at is not None:
            pause = now - self._looked_at
            if pause < self._look_seconds:
                return
            if pause > 3 * self._look_seconds:
                self._still.clear()  # we were not there to see them
        self._looked_at = now
        await self._retire(leader, now)
        await self._record(leader)

    async def _retire(self, leader: Leader, now: float) -> None:
        seen = await writers_seen(leader)
        before, self._still = self._still, {}
        for writer in seen:
            at, since = before.get(writer.writer_id, (writer.seen_at, now))
            if at != writer.seen_at:
                since = now
            self._still[writer.writer_id] = (writer.seen_at, since)
            if now - since >= self._gone_seconds:
                await retire_writer(leader, writer)

    async def _record(self, leader: Leader) -> None:
        for writer_id in await retired_writers(leader):
            sizes = await log_sizes(leader.raw)
            receipt = await self._admin_log.append(
                self._operator, "key.retired", {"writer_id": writer_id.hex, "sizes": {**sizes}}
            )
            await note_retirement(leader, writer_id, receipt.seq)
