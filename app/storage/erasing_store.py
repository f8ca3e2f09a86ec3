"""The only door to the functions that erase: a record of the erasure and the removal, or neither.

Threat: PHI leakage in audit logs
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

import asyncpg

from app.domain.erasure import ErasureId
from app.domain.errors import ErasureRefusedError
from app.domain.run import JsonObject, RunId, TenantId
from app.ledger.batches import SealedBatch, signed_batch
from app.ledger.writing import SealedAppend, SealedField
from app.storage.companions import WrappedKey
from app.storage.database import Database
from app.storage.ledger_store import APPEND, LedgerStore, append_arguments, translated

_ANONYMIZE = (
    "SELECT erase_anonymize_run($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18)"
)
_DELETE_RUN = "SELECT erase_delete_run($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13)"
_DELETE_TENANT = "SELECT erase_delete_tenant($1,$2,$3,$4,$5,$6,$7,$8,$9)"
_REFUSALS = {
    "MF003": "not_found",
    "MF008": "not_recorded",
    "MF009": "hold",
    "MF010": "run_not_over",
    "MF011": "changed_meanwhile",
    "MF012": "not_requested",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """For which request, when, and until when old copies stay readable at the latest."""

    erasure_id: ErasureId
    at: datetime
    due_at: datetime
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSnapshot:
    """A run's records as the statement names them: seq, R and H."""

    run_id: RunId
    hashes: Sequence[tuple[int, bytes, bytes]]
    gone: Sequence[tuple[int, int]]  # seq and field of what is taken away


@dataclass(frozen=True, slots=True, kw_only=True)
class AnonymizeRun:
    """Take chosen fields away and put what stays under a new run key."""

    snapshot: RunSnapshot
    kept: Sequence[SealedField]
    key: WrappedKey


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRun:
    """Leave the hashes of a run's records and nothing else."""

    snapshot: RunSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteTenant:
    """Leave nothing of a tenant."""

    log_id: TenantId
    kek_ids: Sequence[str]


Removal: TypeAlias = AnonymizeRun | DeleteRun | DeleteTenant


class ErasingLedger(LedgerStore):
    """Appends one erasure record and does what it says in the same transaction.

    `before_commit` is awaited when everything has succeeded but the commit. ErasureRefusedError
    when the database refuses; then nothing was appended and nothing removed.
    """

    def __init__(
        self,
        *,
        reading: Database,
        erasing: Database,
        removal: Removal,
        occasion: Occasion,
        before_commit: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(reading)
        self._erasing = erasing
        self._removal = removal
        self._occasion = occasion
        self._before_commit = before_commit

    async def _commit(self, sealed: SealedAppend, companions: list[JsonObject]) -> SealedBatch:
        tenant_id = TenantId(UUID(bytes=sealed.log))
        record = (RunId(UUID(bytes=sealed.run)), sealed.records[-1].seq)
        batch = signed_batch([sealed], self._entropy(16))
        try:
            async with self._erasing.driver() as raw:
                await raw.execute("BEGIN")
                await raw.execute(APPEND, *append_arguments(batch, companions))
                await self._remove(raw, tenant_id, record)
                await self._before_commit()
                await raw.execute("COMMIT")
        except asyncpg.PostgresError as error:
            code = _REFUSALS.get(error.sqlstate or "")
            raise (ErasureRefusedError(code) if code else translated(error)) from error
        return batch

    async def _remove(
        self, raw: asyncpg.Connection, tenant_id: TenantId, record: tuple[RunId, int]
    ) -> None:
        when, removal = self._occasion, self._removal
        last = (when.at, when.due_at, when.reason)
        match removal:
            case AnonymizeRun():
                of_run = (tenant_id, removal.snapshot.run_id, when.erasure_id, *record)
                kept = removal.kept
                columns = (
                    [item.seq for item in kept],
                    [item.field for item in kept],
                    [item.blob for item in kept],
                )
                key = (removal.key.kek_id, removal.key.wrapped)
                snapshot = _columns(removal.snapshot)
                await raw.execute(_ANONYMIZE, *of_run, *snapshot, *columns, *key, *last)
            case DeleteRun():
                of_run = (tenant_id, removal.snapshot.run_id, when.erasure_id, *record)
                await raw.execute(_DELETE_RUN, *of_run, *_columns(removal.snapshot), *last)
            case DeleteTenant():
                of_log = (tenant_id, removal.log_id, when.erasure_id, *record)
                await raw.execute(_DELETE_TENANT, *of_log, list(removal.kek_ids), *last)


def _columns(snapshot: RunSnapshot) -> tuple[object, ...]:
    return (
        [seq for seq, _, _ in snapshot.hashes],
        [rc for _, rc, _ in snapshot.hashes],
        [chain for _, _, chain in snapshot.hashes],
        [seq for seq, _ in snapshot.gone],
        [field for _, field in snapshot.gone],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingKek:
    """A KEK that has to die before a receipt is complete."""

    tenant_id: TenantId  # of the receipt
    log_id: TenantId  # whose keys it wraps
    kek_id: str
    successor: str | None
    due_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrap:
    """A key that a KEK wraps."""

    what: str  # run or result
    run_id: RunId
    wrapped: bytes


class EraserStore:
    """What the eraser does beside erasing: look for requests, refuse them, retire KEKs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def waiting(self) -> list[tuple[TenantId, ErasureId]]:
        """Requests nobody has looked at, oldest first; at most 64."""
        async with self._database.driver() as raw:
            rows = await raw.fetch("SELECT tenant_id, erasure_id FROM erasure_waiting()")
        return [
            (
                TenantId(UUID(bytes=row["tenant_id"].bytes)),
                ErasureId(UUID(bytes=row["erasure_id"].bytes)),
            )
            for row in rows
        ]

    async def refuse(self, tenant_id: TenantId, erasure_id: ErasureId, reason: str) -> None:
        """Answer a request with a code; nothing is erased."""
        await self._call("SELECT erasure_refuse($1, $2, $3)", tenant_id, erasure_id, reason)

    async def complete(self, tenant_id: TenantId, at: datetime) -> None:
        """Complete the receipts for which no key is left to wait for."""
        await self._call("SELECT erasure_complete($1, $2)", tenant_id, at)

    async def keks(self) -> list[WaitingKek]:
        """KEKs that receipts wait for."""
        async with self._database.driver() as raw:
            rows = await raw.fetch("SELECT * FROM kek_waiting()")
        return [
            WaitingKek(
                tenant_id=TenantId(UUID(bytes=row["tenant_id"].bytes)),
                log_id=TenantId(UUID(bytes=row["log_id"].bytes)),
                kek_id=row["kek_id"],
                successor=row["successor"],
                due_at=row["due_at"],
            )
            for row in rows
        ]

    async def retire(
        self, tenant_id: TenantId, kek_id: str, successor: str | None, at: datetime
    ) -> str | None:
        """Nothing new is wrapped under the KEK from now on; the successor in force."""
        async with self._database.driver() as raw:
            named: str | None = await raw.fetchval(
                "SELECT kek_retire($1, $2, $3, $4)", tenant_id, kek_id, successor, at
            )
        return named

    async def wraps(self, tenant_id: TenantId, kek_id: str) -> list[Wrap]:
        """What the KEK still wraps."""
        async with self._database.driver() as raw:
            rows = await raw.fetch("SELECT * FROM kek_wraps($1, $2)", tenant_id, kek_id)
        return [
            Wrap(
                what=row["what"],
                run_id=RunId(UUID(bytes=row["run_id"].bytes)),
                wrapped=row["wrapped"],
            )
            for row in rows
        ]

    async def rewrap(self, tenant_id: TenantId, wrap: Wrap, old_kek: str, key: WrappedKey) -> None:
        """Put a key under another KEK, unless it is not under the old one any more."""
        statement = "SELECT kek_rewrap($1, $2, $3, $4, $5, $6)"
        ids = (tenant_id, wrap.what, wrap.run_id)
        await self._call(statement, *ids, old_kek, key.kek_id, key.wrapped)

    async def destroyed(
        self, tenant_id: TenantId, kek_id: str, gone_at: datetime | None, due_at: datetime | None
    ) -> None:
        """Write down the key store's word. LedgerError while the KEK still wraps something."""
        statement = "SELECT kek_destroyed($1, $2, $3, $4)"
        await self._call(statement, tenant_id, kek_id, gone_at, due_at)

    async def _call(self, statement: str, *arguments: object) -> None:
        try:
            async with self._database.driver() as raw:
                await raw.execute(statement, *arguments)
        except asyncpg.PostgresError as error:
            raise translated(error) from error
