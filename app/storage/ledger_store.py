"""The only door to ledger rows: one statement appends, and a read gives only what verifies.

Threat: Ledger tampering
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import asyncpg

from app.domain.errors import (
    ChainBreak,
    IllegalTransitionError,
    KeyRetiredError,
    LedgerBrokenError,
    LedgerError,
    LedgerUnavailableError,
    NotFoundError,
    StaleEpochError,
    WriterRetiredError,
)
from app.domain.run import (
    TERMINAL,
    TRANSITIONS,
    Json,
    RunId,
    RunKind,
    RunRow,
    RunStatus,
    TenantId,
    Usage,
)
from app.ledger.chain import StoredBatch, StoredRecord, StoredRun
from app.ledger.writing import SealedBatch, SealedField
from app.storage.database import Database
from app.storage.group_commit import GroupCommit
from app.storage.holds import ReleaseHold, SetHold, hold_json

_NO_END = 2**62
APPEND = "SELECT ledger_append($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19)"
# Postgres knows years that Python does not. Whoever writes one into a row must meet the reader's
# comparison, which names it, and not a crash on the way there: such a time is read as the nearest.
_RECORDS = """
SELECT seq, epoch, kind, header, rc, chain, batch_id,
  CASE WHEN ts IS NOT NULL THEN greatest(least(ts, '9999-12-30 UTC'), '0001-01-02 UTC') END AS ts
FROM record WHERE tenant_id = $1 AND run_id = $2 AND seq >= $3 AND seq < $4 ORDER BY seq
"""
_FIELDS = """
SELECT seq, field, blob FROM payload
WHERE tenant_id = $1 AND run_id = $2 AND seq >= $3 AND seq < $4
"""
_BATCHES = """
SELECT b.batch_id, b.writer_id, b.n, b.ranges, b.tip, b.sig, k.public_key, k.certificate
FROM batch b LEFT JOIN writer_key k ON k.writer_id = b.writer_id
WHERE b.tenant_id = $1 AND b.batch_id = ANY ($2)
"""
_ADMIN_RUN = """
SELECT r.run_id, r.epoch, k.kek_id, k.wrapped, t.seq, t.chain FROM runs r
JOIN run_key k ON k.tenant_id = r.tenant_id AND k.run_id = r.run_id
CROSS JOIN LATERAL (
  SELECT seq, chain FROM record c WHERE c.tenant_id = r.tenant_id AND c.run_id = r.run_id
  ORDER BY seq DESC LIMIT 1
) AS t
WHERE r.tenant_id = $1 AND r.kind = 'admin'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedKey:
    """A key as stored: wrapped by a key of the key store."""

    kek_id: str
    wrapped: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """Companion: the run's row and key, written with its first record."""

    kind: RunKind
    status: RunStatus
    provider: str
    model: str
    agent: str | None
    policy_digest: str
    created_at: datetime
    key: WrappedKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Companion: raise the epoch, so that whoever held the run before can write no more."""

    from_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Companion: the run's next state. `entries` and `finished_at` are set when it is terminal."""

    status: RunStatus
    usage: Usage
    error_code: str | None = None
    finished_at: datetime | None = None
    entries: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewResult:
    """Companion: the released output, sealed under a key of its own, for a limited time."""

    key: WrappedKey
    blob: bytes
    expires_at: datetime


Companion = NewRun | Claim | Change | NewResult | SetHold | ReleaseHold


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminRun:
    """A log's administration run: its key as stored, its epoch, and where its next record goes."""

    run_id: RunId
    epoch: int
    key: WrappedKey
    next_seq: int
    chain: bytes


class LedgerStore:
    """Appends and reads records of one deployment."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._appender = GroupCommit(database, APPEND, translated)
        self.appended = asyncio.Event()  # set after every append; whoever waits for it clears it

    async def append(
        self,
        tenant_id: TenantId,
        run_id: RunId,
        batch: SealedBatch,
        companions: Sequence[Companion] = (),
    ) -> None:
        """Write a batch and what goes with it, in one transaction; durable when this returns.

        StaleEpochError: another owner. IllegalTransitionError: the state forbids it.
        LedgerUnavailableError: not known to be written; a repeat of the same batch is safe.
        """
        try:
            await self._append_once(tenant_id, run_id, batch, companions)
        except LedgerUnavailableError:
            # The connection may have died after the commit. The same batch is the same write:
            # either it is there already, or it goes in now, or the database is really gone.
            if not await self._is_stored(tenant_id, batch):
                await self._append_again(tenant_id, run_id, batch, companions)
        except LedgerError:
            if not await self._is_stored(tenant_id, batch):
                raise
        self.appended.set()

    async def _append_again(
        self,
        tenant_id: TenantId,
        run_id: RunId,
        batch: SealedBatch,
        companions: Sequence[Companion],
    ) -> None:
        try:
            await self._append_once(tenant_id, run_id, batch, companions)
        except LedgerError:
            # The first attempt may have committed in between: then it is this batch that refused.
            if not await self._is_stored(tenant_id, batch):
                raise

    async def _append_once(
        self,
        tenant_id: TenantId,
        run_id: RunId,
        batch: SealedBatch,
        companions: Sequence[Companion],
    ) -> None:
        await self._appender.append(append_arguments(tenant_id, run_id, batch, companions))

    async def _is_stored(self, tenant_id: TenantId, batch: SealedBatch) -> bool:
        async with self._database.snapshot(tenant_id) as raw:
            found = await raw.fetchval(
                "SELECT 1 FROM batch WHERE tenant_id = $1 AND batch_id = $2",
                tenant_id,
                UUID(bytes=batch.batch_id),
            )
        return found is not None

    async def admin_run(self, tenant_id: TenantId) -> AdminRun | None:
        """The administration run of a log, unverified, or None before its first record."""
        async with self._database.snapshot(tenant_id) as raw:
            return await self.admin_run_in(raw, tenant_id)

    async def admin_run_in(self, raw: asyncpg.Connection, tenant_id: TenantId) -> AdminRun | None:
        """As `admin_run`, as a snapshot has it."""
        row = await raw.fetchrow(_ADMIN_RUN, tenant_id)
        if row is None:
            return None
        return AdminRun(
            run_id=RunId(UUID(bytes=row["run_id"].bytes)),
            epoch=row["epoch"],
            key=WrappedKey(kek_id=row["kek_id"], wrapped=row["wrapped"]),
            next_seq=row["seq"] + 1,
            chain=row["chain"],
        )

    async def read(
        self,
        raw: asyncpg.Connection,
        run: RunRow,
        from_seq: int = 0,
        to_seq: int = _NO_END,
    ) -> tuple[StoredRun, WrappedKey]:
        """What is stored of a run, unverified; the caller verifies before it shows a byte."""
        tenant_id, run_id = run.tenant_id, run.run_id
        key = await raw.fetchrow(
            "SELECT kek_id, wrapped FROM run_key WHERE tenant_id = $1 AND run_id = $2",
            tenant_id,
            run_id,
        )
        if key is None:
            raise LedgerBrokenError(ChainBreak(seq=0, reason="the key of the run is gone"))
        stored = await self._stored(raw, (tenant_id, run_id), (from_seq, to_seq))
        stored = replace(stored, ended=run.status in TERMINAL, entries=run.entries)
        return stored, WrappedKey(kek_id=key["kek_id"], wrapped=key["wrapped"])

    async def remains(
        self, raw: asyncpg.Connection, tenant_id: TenantId, run_id: RunId, entries: int
    ) -> StoredRun:
        """What is stored of a run whose row and key are gone and which had so many records."""
        stored = await self._stored(raw, (tenant_id, run_id), (0, _NO_END))
        return replace(stored, ended=True, entries=entries)

    async def _stored(
        self, raw: asyncpg.Connection, ids: tuple[TenantId, RunId], seqs: tuple[int, int]
    ) -> StoredRun:
        tenant_id, run_id = ids
        records = await raw.fetch(_RECORDS, *ids, *seqs)
        fields = await raw.fetch(_FIELDS, *ids, *seqs)
        batch_ids = list({row["batch_id"] for row in records})
        batches = await raw.fetch(_BATCHES, tenant_id, batch_ids)
        return StoredRun(
            log=tenant_id.bytes,
            run=run_id.bytes,
            records=[_record(row) for row in records],
            fields=[
                SealedField(seq=row["seq"], field=row["field"], blob=row["blob"]) for row in fields
            ],
            batches={row["batch_id"].bytes: _batch(row) for row in batches},
            ended=False,
            entries=None,
        )


def append_arguments(
    tenant_id: TenantId, run_id: RunId, batch: SealedBatch, companions: Sequence[Companion]
) -> tuple[object, ...]:
    """What `ledger_append` takes for one batch."""
    records, fields = batch.records, batch.fields
    return (
        tenant_id,
        UUID(bytes=batch.batch_id),
        UUID(bytes=batch.writer),
        batch.ranges,
        batch.tip,
        batch.signature,
        [run_id] * len(records),
        [record.seq for record in records],
        [record.epoch for record in records],
        [record.kind for record in records],
        [record.at for record in records],
        [record.header for record in records],
        [record.rc for record in records],
        [record.chain for record in records],
        [run_id] * len(fields),
        [item.seq for item in fields],
        [item.field for item in fields],
        [item.blob for item in fields],
        json.dumps([_companion(run_id, item) for item in companions]),
    )


def _companion(run_id: RunId, item: Companion) -> dict[str, Json]:
    run = str(run_id)
    match item:
        case NewRun():
            return {
                "op": "run.insert",
                "run_id": run,
                "kind": item.kind.value,
                "status": item.status.value,
                "provider": item.provider,
                "model": item.model,
                "agent": item.agent,
                "policy_digest": item.policy_digest,
                "created_at": item.created_at.isoformat(),
                **_key(item.key),
            }
        case Claim():
            return {"op": "run.claim", "run_id": run, "from_epoch": item.from_epoch}
        case Change():
            return {
                "op": "run.change",
                "run_id": run,
                "status": item.status.value,
                "from": [old.value for old, new in TRANSITIONS.items() if item.status in new],
                "input_tokens": item.usage.input_tokens,
                "output_tokens": item.usage.output_tokens,
                "cost_micros": item.usage.cost_micros,
                "steps": item.usage.steps,
                "entries": item.entries,
                "error_code": item.error_code,
                "finished_at": None if item.finished_at is None else item.finished_at.isoformat(),
            }
        case SetHold() | ReleaseHold():
            return hold_json(item)
        case NewResult():
            return {
                "op": "result.insert",
                "run_id": run,
                "blob": item.blob.hex(),
                "expires_at": item.expires_at.isoformat(),
                **_key(item.key),
            }


def _key(key: WrappedKey) -> dict[str, Json]:
    return {"kek_id": key.kek_id, "wrapped": key.wrapped.hex()}


def translated(error: asyncpg.PostgresError) -> Exception:
    """What a refusal of `ledger_append` means."""
    match error.sqlstate:
        case "MF001" | "23505":
            # A second record at one seq means a second owner: the primary key guards.
            return StaleEpochError("another owner holds this run")
        case "MF002":
            return IllegalTransitionError("the run's state does not allow this")
        case "MF003":
            return NotFoundError("no such run")
        case "MF005":
            return LedgerUnavailableError("the ledger is halted until its loss is settled")
        case "MF006":
            return WriterRetiredError("the key of this process signs no more")
        case "MF007":
            return KeyRetiredError("a key was retired")
        case _:
            return LedgerError(f"the ledger refused the append ({error.sqlstate})")


def _record(row: asyncpg.Record) -> StoredRecord:
    return StoredRecord(
        seq=row["seq"],
        epoch=row["epoch"],
        kind=row["kind"],
        at=row["ts"],
        header=row["header"],
        rc=row["rc"],
        chain=row["chain"],
        batch_id=row["batch_id"].bytes,
    )


def _batch(row: asyncpg.Record) -> StoredBatch:
    return StoredBatch(
        batch_id=row["batch_id"].bytes,
        writer=row["writer_id"].bytes,
        count=row["n"],
        ranges=row["ranges"],
        tip=row["tip"],
        signature=row["sig"],
        public_key=row["public_key"],
        certificate=row["certificate"],
    )
