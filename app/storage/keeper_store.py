"""What the leader keeps beside the leaves: checkpoints, cosignatures, alarms, retirements, halts.

Every write is fenced by the leader's term.

Threat: Ledger tampering
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from app.domain.run import TenantId
from app.ledger.chain import Resume
from app.storage.log_store import StoredCheckpoint, stored_checkpoint
from app.storage.sequencer_store import Leader, LeftOut

_UNSIGNED = """
SELECT h.tenant_id, h.origin, h.size, h.root FROM log_head h
WHERE h.size > 0 AND (h.tenant_id = $1) = $2 AND NOT EXISTS (
  SELECT 1 FROM checkpoint c
  WHERE c.tenant_id = h.tenant_id AND c.origin = h.origin AND c.size >= h.size
) ORDER BY h.tenant_id LIMIT $3
"""
_ADD = """
INSERT INTO checkpoint (tenant_id, origin, size, root, note, created_at, anchor_run, anchor_seq)
SELECT u.tenant_id, u.origin, u.size, u.root, u.note, $6, u.run, u.seq
FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bytea[], $5::text[], $7::uuid[], $8::bigint[])
  AS u(tenant_id, origin, size, root, note, run, seq)
ON CONFLICT DO NOTHING RETURNING tenant_id, origin, size, root, note
"""
_TELL = "SELECT webhook_tell_checkpoints($1, $2, $3, $4, $5, $6)"
# A writer is recorded as retired when all it can have written is in the logs.
_RETIRED = """
SELECT writer_id FROM writer_key
WHERE retired_at IS NOT NULL AND retirement_seq IS NULL AND retired_xid < $1::text::xid8
ORDER BY retired_at LIMIT 100
"""
# The operator log holds one run: that of its first leaf.
_SINCE = """
SELECT r.run_id, r.seq FROM record r
WHERE r.tenant_id = $1 AND r.run_id = (SELECT run_id FROM leaf WHERE tenant_id = $1 AND idx = 0)
  AND r.seq >= $3 AND r.kind = $2 ORDER BY r.seq
"""
_NAMED = "SELECT anchor_seq FROM checkpoint WHERE anchor_run = $1 AND anchor_seq >= $2"
_BEFORE_BATCH = """
SELECT p.seq + 1 AS seq, p.chain, p.epoch FROM record r JOIN record p
  ON p.tenant_id = r.tenant_id AND p.run_id = r.run_id AND p.seq = (
    SELECT min(b.seq) FROM record b WHERE b.tenant_id = r.tenant_id AND b.run_id = r.run_id
      AND b.batch_id = r.batch_id AND b.seq <= r.seq) - 1
WHERE r.tenant_id = $1 AND r.run_id = $2 AND r.seq = $3
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsignedHead:
    """A log that has grown since its newest checkpoint."""

    tenant_id: TenantId
    origin: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCheckpoint:
    """A signed head, and where the operator log took it in (None for the operator's own)."""

    head: UnsignedHead
    note: str
    anchor: tuple[UUID, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WithoutRows:
    """Records of the operator log that no row of `checkpoint` names.

    `resume`: where the batch of the first of them begins; None for the log's first record.
    """

    run_id: UUID
    seqs: tuple[int, ...]
    resume: Resume | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterSeen:
    """A writer that is not retired, and its last heartbeat."""

    writer_id: UUID
    seen_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedWriter:
    """A writer that is not retired; whose certificate it has is not checked here."""

    writer_id: bytes
    public_key: bytes
    certificate: bytes | None


async def unsigned_heads(
    leader: Leader, operator: TenantId, *, is_operator: bool, limit: int
) -> list[UnsignedHead]:
    """Heads beyond their newest checkpoint: of the operator log, or of all others."""
    rows = await leader.raw.fetch(_UNSIGNED, operator, is_operator, limit)
    return [
        UnsignedHead(
            tenant_id=TenantId(UUID(bytes=row["tenant_id"].bytes)),
            origin=row["origin"],
            size=row["size"],
            root=row["root"],
        )
        for row in rows
    ]


async def add_checkpoints(
    leader: Leader, checkpoints: Sequence[NewCheckpoint], now: datetime
) -> None:
    """Durable when this returns; one that is there already stays as it is.

    Of each new one webhooks tell its tenant, from the same transaction.
    """
    async with leader.fenced() as raw:
        rows = await raw.fetch(
            _ADD,
            [item.head.tenant_id for item in checkpoints],
            [item.head.origin for item in checkpoints],
            [item.head.size for item in checkpoints],
            [item.head.root for item in checkpoints],
            [item.note for item in checkpoints],
            now,
            [None if item.anchor is None else item.anchor[0] for item in checkpoints],
            [None if item.anchor is None else item.anchor[1] for item in checkpoints],
        )
        if rows:
            columns = ("tenant_id", "origin", "size", "root", "note")
            told = [[row[name] for row in rows] for name in columns]
            await raw.execute(_TELL, *told, now)


async def records_without_rows(
    leader: Leader, operator: TenantId, kind: str, from_seq: int
) -> WithoutRows | None:
    """Records of checkpoints from a seq of the operator log on that have no row; None of none."""
    raw = leader.raw
    found = await raw.fetch(_SINCE, operator, kind, from_seq)
    if not found:
        return None
    run_id = UUID(bytes=found[0]["run_id"].bytes)
    named = {row["anchor_seq"] for row in await raw.fetch(_NAMED, run_id, from_seq)}
    seqs = tuple(row["seq"] for row in found if row["seq"] not in named)
    if not seqs:
        return None
    row = await raw.fetchrow(_BEFORE_BATCH, operator, run_id, seqs[0])
    resume = None
    if row is not None:
        resume = Resume(next_seq=row["seq"], chain=row["chain"], epoch=row["epoch"])
    return WithoutRows(run_id=run_id, seqs=seqs, resume=resume)


async def add_cosignature(
    leader: Leader, checkpoint: NewCheckpoint, witness: str, line: str, cosigned_at: datetime
) -> None:
    """A witness's line to a checkpoint that is stored."""
    async with leader.fenced() as raw:
        await raw.execute(
            "INSERT INTO cosignature (tenant_id, origin, size, witness, line, cosigned_at)"
            " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
            checkpoint.head.tenant_id,
            checkpoint.head.origin,
            checkpoint.head.size,
            witness,
            line,
            cosigned_at,
        )


async def unnoted_findings(leader: Leader) -> list[LeftOut]:
    """Runs that were left out and whose alarm is not recorded yet."""
    rows = await leader.raw.fetch(
        "SELECT tenant_id, run_id, seq, reason FROM left_out WHERE alarm_seq IS NULL LIMIT 100"
    )
    return [
        LeftOut(
            log=row["tenant_id"].bytes,
            run=row["run_id"].bytes,
            seq=row["seq"],
            reason=row["reason"],
        )
        for row in rows
    ]


async def note_finding(leader: Leader, finding: LeftOut, alarm_seq: int) -> None:
    """The alarm of a finding is recorded: there will be no second one."""
    async with leader.fenced() as raw:
        await raw.execute(
            "UPDATE left_out SET alarm_seq = $3 WHERE tenant_id = $1 AND run_id = $2"
            " AND alarm_seq IS NULL",
            UUID(bytes=finding.log),
            UUID(bytes=finding.run),
            alarm_seq,
        )


async def silent_writers(leader: Leader, seconds: float) -> list[WriterSeen]:
    """Writers that are not retired and were not seen for so long, by the database's clock."""
    rows = await leader.raw.fetch(
        "SELECT writer_id, seen_at FROM writer_key"
        " WHERE retired_at IS NULL AND seen_at < now() - make_interval(secs => $1)",
        seconds,
    )
    return [_seen(row) for row in rows]


async def certified_writers(leader: Leader) -> list[CertifiedWriter]:
    """All writers that are not retired, with what certifies them."""
    rows = await leader.raw.fetch(
        "SELECT writer_id, public_key, certificate FROM writer_key WHERE retired_at IS NULL"
        " ORDER BY writer_id"
    )
    return [
        CertifiedWriter(
            writer_id=row["writer_id"].bytes,
            public_key=row["public_key"],
            certificate=row["certificate"],
        )
        for row in rows
    ]


async def writers_seen(leader: Leader) -> list[WriterSeen]:
    """All writers that are not retired."""
    rows = await leader.raw.fetch(
        "SELECT writer_id, seen_at FROM writer_key WHERE retired_at IS NULL"
    )
    return [_seen(row) for row in rows]


def _seen(row: asyncpg.Record) -> WriterSeen:
    return WriterSeen(writer_id=UUID(bytes=row["writer_id"].bytes), seen_at=row["seen_at"])


async def retire_writer(leader: Leader, writer: WriterSeen) -> None:
    """From now on its appends are refused; nothing happens if it was seen meanwhile."""
    async with leader.fenced() as raw:
        await raw.execute(
            "UPDATE writer_key SET retired_at = now(), retired_xid = pg_current_xact_id()"
            " WHERE writer_id = $1 AND seen_at = $2 AND retired_at IS NULL",
            writer.writer_id,
            writer.seen_at,
        )


async def retired_writers(leader: Leader) -> list[UUID]:
    """Retired writers whose every batch is integrated and whose retirement is not recorded."""
    rows = await leader.raw.fetch(_RETIRED, str(leader.watermark))
    return [UUID(bytes=row["writer_id"].bytes) for row in rows]


async def log_sizes(raw: asyncpg.Connection) -> dict[str, int]:
    """The size of each log that has leaves, by its id in hex."""
    rows = await raw.fetch("SELECT tenant_id, size FROM log_head WHERE size > 0")
    return {row["tenant_id"].hex: row["size"] for row in rows}


async def newest_checkpoint(leader: Leader, tenant_id: TenantId) -> StoredCheckpoint | None:
    """The largest checkpoint of a log, whatever the log was called then."""
    row = await leader.raw.fetchrow(
        "SELECT origin, size, root, note, created_at, anchor_run, anchor_seq FROM checkpoint"
        " WHERE tenant_id = $1 ORDER BY size DESC, created_at DESC LIMIT 1",
        tenant_id,
    )
    return None if row is None else stored_checkpoint(row)


async def signed_sizes(leader: Leader) -> dict[str, int]:
    """The size of the newest checkpoint of each log, by its id in hex."""
    rows = await leader.raw.fetch("SELECT tenant_id, max(size) AS size FROM checkpoint GROUP BY 1")
    return {row["tenant_id"].hex: row["size"] for row in rows}


async def note_retirement(leader: Leader, writer_id: UUID, seq: int) -> None:
    """The retirement is recorded."""
    async with leader.fenced() as raw:
        await raw.execute(
            "UPDATE writer_key SET retirement_seq = $2 WHERE writer_id = $1", writer_id, seq
        )


async def halt(leader: Leader, tenant_id: TenantId, reason: str) -> None:
    """Every append is refused from now on, until the owner opens a recovery."""
    async with leader.fenced() as raw:
        await raw.execute(
            "UPDATE tenants SET halted = $2 WHERE tenant_id = $1 AND halted IS NULL",
            tenant_id,
            reason,
        )


async def is_halted(raw: asyncpg.Connection) -> bool:
    """Whether any log is halted."""
    found: bool = await raw.fetchval(
        "SELECT EXISTS (SELECT 1 FROM tenants WHERE halted IS NOT NULL)"
    )
    return found
