"""Reads whole logs page by page for an auditor, in one snapshot and with rights to read alone.

Threat: Ledger tampering
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

import asyncpg

from app.domain.run import TenantId
from app.ledger.chain import StoredBatch
from app.ledger.chain_walk import Columns
from app.storage.database import Database
from app.storage.ledger_rows import stored_batch
from app.storage.place_store import SignedHead, signed_head

Snapshot: TypeAlias = asyncpg.Connection
PAGE = 2048
_FIRST = UUID(int=0)
_TENANTS = """
SELECT tenant_id, name FROM tenants WHERE $1::text IS NULL OR name = $1 OR name = '!operator'
ORDER BY tenant_id
"""
_LEAVES = """
SELECT l.idx, l.run_id, l.seq, r.chain FROM leaf l
LEFT JOIN record r ON r.tenant_id = l.tenant_id AND r.run_id = l.run_id AND r.seq = l.seq
WHERE l.tenant_id = $1 AND l.idx >= $2 ORDER BY l.idx LIMIT $3
"""
# No more at once than stays in the processor's cache while it is looked at. The joins say again
# where the page begins: a merge would walk there from the first record, for every page.
_RECORDS = """
SELECT r.run_id, r.seq, r.epoch, r.kind,
  greatest(least(r.ts, '9999-12-30 UTC'), '0001-01-02 UTC') AS ts, r.header, r.rc, r.chain,
  b.writer_id, l.idx, a.entries AS length, a.run_id IS NOT NULL AS has_row,
  ARRAY (SELECT p.field FROM payload p
    WHERE p.tenant_id = r.tenant_id AND p.run_id = r.run_id AND p.seq = r.seq) AS fields
FROM record r
LEFT JOIN leaf l ON l.tenant_id = r.tenant_id AND l.run_id = r.run_id AND l.seq = r.seq
  AND (l.run_id, l.seq) > ($2, $3)
LEFT JOIN batch b ON b.tenant_id = r.tenant_id AND b.batch_id = r.batch_id
LEFT JOIN runs a ON a.tenant_id = r.tenant_id AND a.run_id = r.run_id AND a.run_id >= $2
WHERE r.tenant_id = $1 AND (r.run_id, r.seq) > ($2, $3) ORDER BY r.run_id, r.seq LIMIT 512
"""
_BATCHES = """
SELECT b.batch_id, b.writer_id, b.n, b.ranges, b.entries, b.tip, b.sig, k.public_key, k.certificate
FROM batch b LEFT JOIN writer_key k ON k.writer_id = b.writer_id
WHERE b.tenant_id = $1 AND b.batch_id > $2 ORDER BY b.batch_id LIMIT $3
"""
_IN_RANGES = """
SELECT u.ord, r.seq, r.chain, r.batch_id
FROM unnest($2::uuid[], $3::bigint[], $4::bigint[]) WITH ORDINALITY AS u(run_id, first, last, ord)
JOIN record r ON r.tenant_id = $1 AND r.run_id = u.run_id AND r.seq BETWEEN u.first AND u.last
ORDER BY u.ord, r.seq
"""
_UNNAMED = """
SELECT count(*) FROM record r
JOIN runs a ON a.tenant_id = r.tenant_id AND a.run_id = r.run_id AND a.kind = 'admin'
WHERE r.tenant_id = $1 AND r.kind = $2 AND NOT EXISTS (
  SELECT 1 FROM checkpoint c WHERE c.anchor_run = r.run_id AND c.anchor_seq = r.seq)
"""
_NAMED_TWICE = """
SELECT count(*) FROM (
  SELECT 1 FROM checkpoint WHERE anchor_seq IS NOT NULL
  GROUP BY anchor_run, anchor_seq HAVING count(*) > 1
) AS t
"""
_NOTES = """
SELECT c.note FROM unnest($1::uuid[], $2::bigint[], $3::text[]) AS u(tenant_id, size, origin)
JOIN checkpoint c ON c.tenant_id = u.tenant_id AND c.size = u.size AND c.origin = u.origin
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptLeaf:
    """A row of `leaf` with the chain hash of its record, if that is there."""

    index: int
    run: bytes
    seq: int
    chain: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptRecord:
    """A row of `record` with what stands beside it."""

    run: bytes
    seq: int
    epoch: int | None
    kind: str | None
    at: datetime | None
    header: bytes | None
    rc: bytes
    chain: bytes
    writer: bytes | None  # of its batch; None when that is gone
    index: int | None
    length: int | None  # what the run's row says
    has_row: bool
    fields: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptPage:
    """Rows of `record` with what stands beside them, as columns."""

    records: Columns
    indexes: Sequence[int | None]
    lengths: Sequence[int | None]
    have_rows: Sequence[bool]
    fields: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.indexes)

    def part(self, start: int, end: int) -> "SweptPage":
        """Some rows of it."""
        return SweptPage(
            records=self.records.part(start, end),
            indexes=self.indexes[start:end],
            lengths=self.lengths[start:end],
            have_rows=self.have_rows[start:end],
            fields=self.fields[start:end],
        )

    def rows(self) -> Iterator[SweptRecord]:
        """One row after the other."""
        beside = zip(self.indexes, self.lengths, self.have_rows, self.fields, strict=True)
        for own, (index, length, has_row, fields) in zip(
            zip(*self.records, strict=True), beside, strict=True
        ):
            run, seq, epoch, kind, at, header, rc, chain, writer = own
            yield SweptRecord(
                run=run.bytes,
                seq=seq,
                epoch=epoch,
                kind=kind,
                at=at,
                header=header,
                rc=rc,
                chain=chain,
                writer=None if writer is None else writer.bytes,
                index=index,
                length=length,
                has_row=has_row,
                fields=frozenset(fields),
            )


@asynccontextmanager
async def sweeping(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """One consistent, read-only view of all tenants, for as long as a sweep takes."""
    async with database.driver() as raw:
        await raw.execute(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
            " SET LOCAL idle_in_transaction_session_timeout = 0;"
            " SET LOCAL enable_sort = off"  # pages come by index, whatever old statistics say
        )
        yield raw
        await raw.execute("COMMIT")


async def logs_of(raw: asyncpg.Connection, name: str | None) -> list[tuple[TenantId, str]]:
    """The logs with their tenants' names: all, or one tenant's and the operator's."""
    rows = await raw.fetch(_TENANTS, name)
    return [(TenantId(UUID(bytes=row["tenant_id"].bytes)), row["name"]) for row in rows]


async def leaves_from(raw: asyncpg.Connection, log: TenantId, index: int) -> list[SweptLeaf]:
    """A page of leaves from an index on."""
    return [
        SweptLeaf(index=row["idx"], run=row["run_id"].bytes, seq=row["seq"], chain=row["chain"])
        for row in await raw.fetch(_LEAVES, log, index, PAGE)
    ]


async def checkpoints_from(raw: asyncpg.Connection, log: TenantId, above: int) -> list[SignedHead]:
    """A page of checkpoints, of whatever origin, above a size, the smallest first."""
    rows = await raw.fetch(
        "SELECT origin, size, root, note, anchor_run, anchor_seq FROM checkpoint"
        " WHERE tenant_id = $1 AND size > $2 ORDER BY size, origin LIMIT $3",
        log,
        above,
        PAGE,
    )
    return [signed_head(row) for row in rows]


async def count_unnamed(raw: asyncpg.Connection, operator: TenantId, kind: str) -> tuple[int, int]:
    """How many records of checkpoints no row of `checkpoint` names, and how many several do."""
    unnamed: int = await raw.fetchval(_UNNAMED, operator, kind)
    twice: int = await raw.fetchval(_NAMED_TWICE)
    return unnamed, twice


async def stored_notes(
    raw: asyncpg.Connection, places: Sequence[tuple[UUID, int, str]]
) -> set[str]:
    """The notes of the checkpoints of these logs, sizes and origins, as far as they are there."""
    columns = [list(column) for column in zip(*places, strict=True)] or [[], [], []]
    return {row["note"] for row in await raw.fetch(_NOTES, *columns)}


async def pages_of_records(raw: asyncpg.Connection, log: TenantId) -> AsyncIterator[SweptPage]:
    """All records, run by run, in order."""
    run, seq = _FIRST, -1
    while rows := await raw.fetch(_RECORDS, log, run, seq):
        *records, indexes, lengths, have_rows, fields = zip(*rows, strict=True)
        yield SweptPage(
            records=Columns(*records),
            indexes=indexes,
            lengths=lengths,
            have_rows=have_rows,
            fields=fields,
        )
        run, seq = UUID(bytes=rows[-1]["run_id"].bytes), rows[-1]["seq"]


async def pages_of_batches(
    raw: asyncpg.Connection, log: TenantId
) -> AsyncIterator[list[StoredBatch]]:
    """All batches."""
    last = _FIRST
    while rows := await raw.fetch(_BATCHES, log, last, PAGE // 8):
        yield [stored_batch(row) for row in rows]
        last = UUID(bytes=rows[-1]["batch_id"].bytes)


async def chains_in(
    raw: asyncpg.Connection, log: TenantId, ranges: Sequence[tuple[bytes, int, int]]
) -> list[list[tuple[int, bytes, bytes]]]:
    """Seq, chain hash and batch of the records in each range (run, first, last)."""
    found: list[list[tuple[int, bytes, bytes]]] = [[] for _ in ranges]
    rows = await raw.fetch(
        _IN_RANGES,
        log,
        [UUID(bytes=run) for run, _, _ in ranges],
        [first for _, first, _ in ranges],
        [last for _, _, last in ranges],
    )
    for row in rows:
        found[row["ord"] - 1].append((row["seq"], row["chain"], row["batch_id"].bytes))
    return found
