"""The work keys of runs that are under way, as they are stored: which outlived their day."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from app.domain.errors import KeyRetiredError
from app.domain.run import RunId, TenantId
from app.storage.companions import WrappedKey
from app.storage.database import Database

MOST_AT_ONCE = 500
_OUTLIVED = "SELECT tenant_id, run_id, kek_id, wrapped FROM work_outlived($1, $2)"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlivedKey:
    """The work key of an open run under a KEK of an earlier day."""

    tenant_id: TenantId
    run_id: RunId
    key: WrappedKey


class WorkStore:
    """The work keys of one deployment."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def outlived(self, day: str) -> Sequence[OutlivedKey]:
        """Those of open runs that are under a KEK of before this day (`YYYYMMDD`)."""
        async with self._database.driver() as raw:
            rows = await raw.fetch(_OUTLIVED, day, MOST_AT_ONCE)
        return [
            OutlivedKey(
                tenant_id=TenantId(UUID(bytes=row["tenant_id"].bytes)),
                run_id=RunId(UUID(bytes=row["run_id"].bytes)),
                key=WrappedKey(kek_id=row["kek_id"], wrapped=row["wrapped"]),
            )
            for row in rows
        ]

    async def rewrap(self, item: OutlivedKey, key: WrappedKey) -> bool:
        """Store the key under its new KEK; False when the run is over or another was faster.

        KeyRetiredError: the new KEK is retired.
        """
        try:
            async with self._database.driver() as raw:
                found: bool = await raw.fetchval(
                    "SELECT work_rewrap($1, $2, $3, $4, $5)",
                    item.tenant_id,
                    item.run_id,
                    item.key.kek_id,
                    key.kek_id,
                    key.wrapped,
                )
        except asyncpg.PostgresError as error:
            if error.sqlstate == "MF007":
                raise KeyRetiredError("a key was retired") from None
            raise
        return found
