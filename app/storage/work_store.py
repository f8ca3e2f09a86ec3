"""Work keys and files of runs that are under way, as they are stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from app.domain.errors import KeyRetiredError, LedgerError, StaleEpochError
from app.domain.run import RunId, TenantId
from app.storage.companions import WrappedKey
from app.storage.database import Database

MOST_AT_ONCE = 500
MOST_FILE_BYTES = 16 * 1024 * 1024  # of one run, sealed; what seals them stays well below
_FILES = "SELECT name, blob FROM run_file WHERE tenant_id = $1 AND run_id = $2 ORDER BY name"
_OUTLIVED = "SELECT tenant_id, run_id, kek_id, wrapped FROM work_outlived($1, $2)"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlivedKey:
    """The work key of an open run under a KEK of an earlier day."""

    tenant_id: TenantId
    run_id: RunId
    key: WrappedKey


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesChange:
    """What became of a run's files: sealed anew by keyed name, and names that are no more."""

    sealed: Mapping[bytes, bytes]
    gone: Sequence[bytes]


class WorkStore:
    """Work keys and files of one deployment."""

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

    async def keep_files(
        self, tenant_id: TenantId, run_id: RunId, epoch: int, change: FilesChange
    ) -> None:
        """Make these the files of the run, all or none of them; durable on return.

        StaleEpochError: another process owns the run. LedgerUnavailableError: not known.
        """
        try:
            async with self._database.driver() as raw:
                await raw.execute(
                    "SELECT work_files($1, $2, $3, $4, $5, $6, $7)",
                    tenant_id,
                    run_id,
                    epoch,
                    [*change.sealed],
                    [*change.sealed.values()],
                    [*change.gone],
                    MOST_FILE_BYTES,
                )
        except asyncpg.PostgresError as error:
            if error.sqlstate == "MF001":
                raise StaleEpochError("another owner holds this run") from None
            raise LedgerError(f"the files of a run were refused ({error.sqlstate})") from None

    async def files(self, tenant_id: TenantId, run_id: RunId) -> Sequence[tuple[bytes, bytes]]:
        """Names and sealed contents of what is kept of a run's files."""
        async with self._database.snapshot(tenant_id) as raw:
            rows = await raw.fetch(_FILES, tenant_id, run_id)
        return [(row["name"], row["blob"]) for row in rows]
