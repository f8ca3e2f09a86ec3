"""Reads the log of a tenant: head, tiles, places of records, checkpoints and cosignatures.

Each function takes a connection that row-level security lets read that tenant: a snapshot of the
application, the auditor's, or the sequencer's own. Nothing read here is believed: tiles prove
themselves against a signed root.

Threat: Ledger tampering
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from app.domain.run import RunId, TenantId
from app.transparency.tiles import TileAddress

_PLACES = "SELECT seq, idx FROM leaf WHERE tenant_id = $1 AND run_id = $2 ORDER BY seq"
_CHECKPOINT = """
SELECT c.origin, c.size, c.root, c.note, c.created_at, c.anchor_run, c.anchor_seq
FROM checkpoint c JOIN log_head h ON h.tenant_id = c.tenant_id AND h.origin = c.origin
WHERE c.tenant_id = $1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogHead:
    """How far a log has been integrated. Not signed yet."""

    origin: str
    size: int
    root: bytes
    recovery: int
    integrated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCheckpoint:
    """A signed checkpoint, and the record of the operator log that took it in."""

    origin: str
    size: int
    root: bytes
    note: str
    created_at: datetime
    anchor_run: RunId | None
    anchor_seq: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosignature:
    """A witness's line to a checkpoint, its newline included."""

    witness: str
    line: str
    cosigned_at: datetime


async def read_head(raw: asyncpg.Connection, tenant_id: TenantId) -> LogHead | None:
    """The log's head, or None before its first leaf."""
    row = await raw.fetchrow(
        "SELECT origin, size, root, recovery, integrated_at FROM log_head WHERE tenant_id = $1",
        tenant_id,
    )
    return None if row is None else LogHead(**dict(row))


async def read_tiles(
    raw: asyncpg.Connection, tenant_id: TenantId, addresses: Iterable[TileAddress]
) -> dict[TileAddress, bytes]:
    """The tiles that are there; one that is missing is missing from the answer."""
    wanted = list(addresses)
    rows = await raw.fetch(
        "SELECT t.level, t.n, t.data FROM unnest($2::smallint[], $3::bigint[]) AS u(level, n)"
        " JOIN tile t ON t.tenant_id = $1 AND t.level = u.level AND t.n = u.n",
        tenant_id,
        [place.level for place in wanted],
        [place.n for place in wanted],
    )
    return {TileAddress(level=row["level"], n=row["n"]): row["data"] for row in rows}


async def read_places(
    raw: asyncpg.Connection, tenant_id: TenantId, run_id: RunId
) -> dict[int, int]:
    """Where the records of a run stand in its log: index by seq."""
    return {row["seq"]: row["idx"] for row in await raw.fetch(_PLACES, tenant_id, run_id)}


async def read_checkpoint(
    raw: asyncpg.Connection, tenant_id: TenantId, *, at_least: int = 0
) -> StoredCheckpoint | None:
    """The newest checkpoint under the log's present origin, if it has at least so many leaves."""
    row = await raw.fetchrow(
        _CHECKPOINT + " AND c.size >= $2 ORDER BY c.size DESC LIMIT 1", tenant_id, at_least
    )
    return None if row is None else stored_checkpoint(row)


async def read_first_checkpoint(
    raw: asyncpg.Connection, tenant_id: TenantId, *, at_least: int
) -> StoredCheckpoint | None:
    """The oldest checkpoint of at least so many leaves: what first covered them."""
    row = await raw.fetchrow(
        _CHECKPOINT + " AND c.size >= $2 ORDER BY c.size LIMIT 1", tenant_id, at_least
    )
    return None if row is None else stored_checkpoint(row)


async def read_cosignatures(
    raw: asyncpg.Connection, tenant_id: TenantId, checkpoint: StoredCheckpoint
) -> list[Cosignature]:
    """The newest line of each witness under a checkpoint."""
    rows = await raw.fetch(
        "SELECT DISTINCT ON (witness) witness, line, cosigned_at FROM cosignature"
        " WHERE tenant_id = $1 AND origin = $2 AND size = $3 ORDER BY witness, cosigned_at DESC",
        tenant_id,
        checkpoint.origin,
        checkpoint.size,
    )
    return [Cosignature(**dict(row)) for row in rows]


async def read_cosigners(
    raw: asyncpg.Connection, tenant_id: TenantId, origin: str
) -> dict[int, frozenset[str]]:
    """Who cosigned the newest checkpoints of an origin: names of witnesses by size."""
    rows = await raw.fetch(
        "SELECT size, array_agg(DISTINCT witness) AS names FROM cosignature"
        " WHERE tenant_id = $1 AND origin = $2 GROUP BY size ORDER BY size DESC LIMIT 100",
        tenant_id,
        origin,
    )
    return {row["size"]: frozenset(row["names"]) for row in rows}


async def read_sequencer_beat(raw: asyncpg.Connection, operator: TenantId) -> datetime | None:
    """When the leading sequencer last moved its watermark."""
    found: datetime | None = await raw.fetchval(
        "SELECT beaten_at FROM sequencer_state WHERE tenant_id = $1", operator
    )
    return found


async def read_left_out(
    raw: asyncpg.Connection, tenant_id: TenantId, runs: Collection[RunId]
) -> dict[RunId, int]:
    """Those of the runs that the log leaves out, and from which seq."""
    rows = await raw.fetch(
        "SELECT run_id, seq FROM left_out WHERE tenant_id = $1 AND run_id = ANY ($2)",
        tenant_id,
        list(runs),
    )
    return {RunId(UUID(bytes=row["run_id"].bytes)): row["seq"] for row in rows}


def stored_checkpoint(row: asyncpg.Record) -> StoredCheckpoint:
    """A row of `checkpoint`."""
    run = row["anchor_run"]
    return StoredCheckpoint(
        origin=row["origin"],
        size=row["size"],
        root=row["root"],
        note=row["note"],
        created_at=row["created_at"],
        anchor_run=None if run is None else RunId(UUID(bytes=run.bytes)),
        anchor_seq=row["anchor_seq"],
    )
