"""The only door to ledger rows: one statement appends, and a read gives only what verifies.

Threat: Ledger tampering
"""

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

import asyncpg
from asyncpg.pgproto.pgproto import UUID as DriverUUID  # noqa: N811 - beside Python's own

from app.domain.errors import (
    ChainBreak,
    IllegalTransitionError,
    KeyBusyError,
    KeyRetiredError,
    KeyTakenError,
    LedgerBrokenError,
    LedgerError,
    LedgerUnavailableError,
    NotFoundError,
    OverloadedError,
    StaleEpochError,
    WriterRetiredError,
)
from app.domain.run import (
    TERMINAL,
    JsonObject,
    RunId,
    RunRow,
    TenantId,
)
from app.ledger.batches import SealedBatch
from app.ledger.chain import StoredRun
from app.ledger.writing import Entropy, SealedAppend, SealedField
from app.storage.companions import (
    Companion,
    WrappedKey,
    companion_json,
)
from app.storage.database import Database
from app.storage.group_commit import GroupCommit
from app.storage.ledger_rows import stored_batch, stored_record
from app.storage.policy_changes import POLICY_OPS
from app.telemetry import meters

_NO_END = 2**62
# The others refuse what the first has not written: nothing rests on the order.
APPEND = (
    "SELECT ledger_append($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20),"
    " CASE WHEN $21 THEN work_keep($1, $2, $20) END,"
    " CASE WHEN $22 THEN idempotency_keep($1, $2, $20) END,"
    " CASE WHEN $23 THEN webhook_tell($1, $2, $20) END,"
    " CASE WHEN $24 THEN queue_keep($1, $2, $20) END,"
    " CASE WHEN $25 THEN approval_keep($1, $2, $20) END,"
    " CASE WHEN $26 THEN policy_keep($1, $2, $20) END"
)
_OF_THE_WORKING_COPY = frozenset({"work.open", "work.put", "run.label", "run.change"})
_TOLD_BY_WEBHOOKS = frozenset({"run.insert", "run.change"})
_OF_THE_QUEUE = frozenset({"queue.put", "queue.park", "queue.wake", "run.change"})
_OF_APPROVALS = frozenset({"approval.open", "approval.close"})
_STORED = """
SELECT chain, batch_id FROM record WHERE tenant_id = $1 AND run_id = $2 AND seq = $3
"""
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
SELECT b.batch_id, b.writer_id, b.n, b.ranges, b.entries, b.tip,
  b.sig, k.public_key, k.certificate
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

# A page that ends inside a batch could not be verified.
_END_OF_PAGE = """
SELECT max(c.seq) FROM record r JOIN record c ON c.tenant_id = r.tenant_id
  AND c.run_id = r.run_id AND c.batch_id = r.batch_id AND c.seq BETWEEN $3 AND $3 + 65536
WHERE r.tenant_id = $1 AND r.run_id = $2 AND r.seq = $3
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Where the last record of an append stands, and its hashes.

    Whoever keeps this can prove that the record was there, and all records of the run before it.
    """

    log: TenantId
    run: RunId
    seq: int
    rc: bytes
    chain: bytes
    batch_id: bytes
    # None: written by an attempt that nobody answered. The same write all the same.
    batch: SealedBatch | None = field(default=None, compare=False, repr=False)


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

    def __init__(self, database: Database, entropy: Entropy = os.urandom) -> None:
        self._database = database
        self._entropy = entropy
        self._appender = GroupCommit(database, entropy, APPEND, append_arguments, translated)
        self.appended = asyncio.Event()  # set after every append; whoever waits for it clears it

    async def append(
        self,
        tenant_id: TenantId,
        run_id: RunId,
        sealed: SealedAppend,
        companions: Sequence[Companion] = (),
    ) -> Receipt:
        """Write records of a run and what goes with them in one transaction; durable on return.

        What is appended to other runs meanwhile shares the transaction and, in the same log, the
        batch and its signature, never the fate.
        StaleEpochError: another owner. IllegalTransitionError: the state forbids it.
        OverloadedError: too many wait, nothing was done. LedgerUnavailableError: not known to be
        written; a repeat of the same records is safe.
        """
        told = [companion_json(run_id, item) for item in companions]
        written: SealedBatch | bytes
        try:
            written = await self._commit(sealed, told)
        except LedgerUnavailableError:
            # The connection may have died after the commit. The same records are the same write:
            # either they are there already, or they go in now, or the database is really gone.
            written = await self._batch_of(sealed) or await self._append_again(sealed, told)
        except LedgerError as error:
            found = await self._batch_of(sealed)
            if found is None:
                meters.FENCE_REFUSALS.inc(isinstance(error, StaleEpochError))
                raise
            written = found
        self.appended.set()
        last = sealed.records[-1]
        return Receipt(
            log=tenant_id,
            run=run_id,
            seq=last.seq,
            rc=last.rc,
            chain=last.chain,
            batch_id=written if isinstance(written, bytes) else written.batch_id,
            batch=None if isinstance(written, bytes) else written,
        )

    async def _append_again(
        self, sealed: SealedAppend, companions: list[JsonObject]
    ) -> SealedBatch | bytes:
        try:
            return await self._commit(sealed, companions)
        except OverloadedError as error:
            raise LedgerUnavailableError("not known to be written, and too many wait") from error
        except LedgerError:
            # The first attempt may have committed in between: then it is this batch that refused.
            found = await self._batch_of(sealed)
            if found is None:
                raise
            return found

    async def _commit(self, sealed: SealedAppend, companions: list[JsonObject]) -> SealedBatch:
        """Write it, in whichever transaction; its batch once that is durable."""
        return await self._appender.append(sealed, companions)

    async def _batch_of(self, sealed: SealedAppend) -> bytes | None:
        """The batch in which these very records are stored, or None.

        The chain hash covers all of them, random event ids included: nobody else's has the same.
        """
        last, log = sealed.records[-1], TenantId(UUID(bytes=sealed.log))
        async with self._database.snapshot(log) as raw:
            row = await raw.fetchrow(_STORED, log, UUID(bytes=sealed.run), last.seq)
        if row is None or row["chain"] != last.chain:
            return None
        found: bytes = row["batch_id"].bytes
        return found

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

    async def admin_page(
        self, tenant_id: TenantId, from_seq: int, count: int
    ) -> tuple[AdminRun, StoredRun] | None:
        """About so many records of the administration run, unverified, to the end of a batch."""
        async with self._database.snapshot(tenant_id) as raw:
            found = await self.admin_run_in(raw, tenant_id)
            if found is None:
                return None
            last = from_seq + count - 1
            end = await raw.fetchval(_END_OF_PAGE, tenant_id, found.run_id, last)
            to_seq = (last if end is None else end) + 1
            ids = (tenant_id, found.run_id)
            return found, await self._stored(raw, ids, (from_seq, to_seq))

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
            records=[stored_record(row) for row in records],
            fields=[
                SealedField(seq=row["seq"], field=row["field"], blob=row["blob"]) for row in fields
            ],
            batches={row["batch_id"].bytes: stored_batch(row) for row in batches},
            ended=False,
            entries=None,
        )


def append_arguments(batch: SealedBatch, companions: Sequence[JsonObject]) -> tuple[object, ...]:
    """What `ledger_append` takes for one batch."""
    # The driver's own UUID: it is made and sent in a fifth of the time.
    pairs = [(DriverUUID(append.run), append) for append in batch.appends]
    records = [(run, record) for run, append in pairs for record in append.records]
    fields = [(run, item) for run, append in pairs for item in append.fields]
    ops = {told["op"] for told in companions}
    return (
        UUID(bytes=batch.log),
        UUID(bytes=batch.batch_id),
        UUID(bytes=batch.writer),
        batch.ranges,
        batch.entries,
        batch.tip,
        batch.signature,
        [run for run, _ in records],
        [record.seq for _, record in records],
        [record.epoch for _, record in records],
        [record.kind for _, record in records],
        [record.at for _, record in records],
        [record.header for _, record in records],
        [record.rc for _, record in records],
        [record.chain for _, record in records],
        [run for run, _ in fields],
        [item.seq for _, item in fields],
        [item.field for _, item in fields],
        [item.blob for _, item in fields],
        json.dumps(companions) if companions else None,
        not _OF_THE_WORKING_COPY.isdisjoint(ops),
        "key.take" in ops,
        not _TOLD_BY_WEBHOOKS.isdisjoint(ops),
        not _OF_THE_QUEUE.isdisjoint(ops),
        not _OF_APPROVALS.isdisjoint(ops),
        not POLICY_OPS.isdisjoint(ops),
    )


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
        case "MF020" | "MF021" as state:
            return KeyBusyError() if state == "MF020" else KeyTakenError()
        case _:
            return LedgerError(f"the ledger refused the append ({error.sqlstate})")
