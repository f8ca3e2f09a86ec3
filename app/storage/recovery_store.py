"""The owner's part of a recovery: what logs there are, their new names, the end of the halt.

Threat: Ledger tampering
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

_LOGS = """
SELECT h.tenant_id, h.origin, c.note FROM log_head h
LEFT JOIN LATERAL (
  SELECT note FROM checkpoint k WHERE k.tenant_id = h.tenant_id AND k.origin = h.origin
  ORDER BY size DESC LIMIT 1
) AS c ON true
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogToRename:
    """A log, its present origin, and the newest checkpoint that the database has of it."""

    log: bytes
    origin: str
    checkpoint: str | None


async def logs_to_rename(raw: asyncpg.Connection) -> list[LogToRename]:
    """Every log that has begun."""
    return [
        LogToRename(log=row["tenant_id"].bytes, origin=row["origin"], checkpoint=row["note"])
        for row in await raw.fetch(_LOGS)
    ]


async def end_halt(raw: asyncpg.Connection, names: Sequence[tuple[UUID, str]]) -> None:
    """New origins for these logs and no halt any more, in one transaction."""
    async with raw.transaction():
        await raw.executemany(
            "UPDATE log_head SET origin = $2, recovery = recovery + 1 WHERE tenant_id = $1",
            names,
        )
        await raw.execute("UPDATE tenants SET halted = NULL WHERE halted IS NOT NULL")
