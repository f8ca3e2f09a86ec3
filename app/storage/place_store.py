"""Reads what the log of a tenant says of one run, and how far that log is signed.

Nothing read here is believed: the caller holds it against a signature.

Threat: Ledger tampering
"""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from app.domain.run import RunId, TenantId
from app.storage.log_store import read_tiles
from app.transparency.proven_tree import tiles_for_leaves
from app.transparency.tiles import TileAddress, Tiles

# Times are not read: nothing signed says them.
_STATE = """
SELECT h.origin AS name, h.size AS leaves, h.root AS head_root, h.recovery, c.*,
  EXISTS (SELECT 1 FROM checkpoint o WHERE o.tenant_id = h.tenant_id AND o.origin <> h.origin)
    AS has_other_names
FROM log_head h LEFT JOIN LATERAL (
  SELECT origin, size, root, note, anchor_run, anchor_seq FROM checkpoint k
  WHERE k.tenant_id = h.tenant_id AND k.origin = h.origin ORDER BY size DESC LIMIT 1
) AS c ON true
WHERE h.tenant_id = $1
"""
_PLACES = """
SELECT seq, idx FROM leaf WHERE tenant_id = $1 AND run_id = $2 AND seq >= $3
UNION ALL SELECT -1, seq FROM left_out WHERE tenant_id = $1 AND run_id = $2
"""
_COVERING = """
SELECT origin, size, root, note, anchor_run, anchor_seq FROM checkpoint
WHERE tenant_id = $1 AND origin = $2 AND size >= $3 ORDER BY size LIMIT 1
"""
_BELOW = """
SELECT origin, size, root, note, anchor_run, anchor_seq FROM checkpoint
WHERE tenant_id = $1 AND origin = $2 AND size < $3 ORDER BY size DESC LIMIT $4
"""
# A transaction below the watermark was integrated, whole, in the transaction that moved it there.
# Numbers of another server say nothing of this one's.
_WATERMARK = """
SELECT xid::text FROM sequencer_state WHERE tenant_id = $1
  AND system_identifier = (SELECT system_identifier::text FROM pg_control_system())
"""
_OVERDUE = """
SELECT min(r.seq) FROM record r
JOIN batch b ON b.tenant_id = r.tenant_id AND b.batch_id = r.batch_id
WHERE r.tenant_id = $1 AND r.run_id = $2 AND r.seq >= $3 AND b.xid < $4::text::xid8
"""
_NAMED = "SELECT EXISTS (SELECT 1 FROM leaf WHERE tenant_id = $1 AND run_id = $2)"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedHead:
    """A row of `checkpoint`, without its time."""

    origin: str
    size: int
    root: bytes
    note: str
    anchor_run: RunId | None
    anchor_seq: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogState:
    """How far a log goes, and its newest checkpoint under its present name."""

    origin: str
    size: int
    root: bytes
    recovery: int
    has_other_names: bool  # checkpoints under another origin than this
    checkpoint: SignedHead | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlaces:
    """The index of each record that has one, by seq; from which seq the log leaves the run out."""

    by_seq: Mapping[int, int]
    left_out: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What the log says of a run, and the tiles that have to prove it."""

    state: LogState | None
    places: RunPlaces
    tiles: Tiles
    covering: SignedHead | None = None  # the first checkpoint that has all of it that is signed
    overdue: int | None = None  # a record without a place that must have one


async def read_placement(
    raw: asyncpg.Connection, tenant_id: TenantId, run_id: RunId, from_seq: int
) -> Placement:
    """Where the records of a run stand from a seq on, with all that is needed to check it."""
    state = await read_log_state(raw, tenant_id)
    places = await read_run_places(raw, tenant_id, run_id, from_seq)
    if state is None or not places.by_seq:
        return Placement(state=state, places=places, tiles={})
    signed = 0 if state.checkpoint is None else state.checkpoint.size
    covered = [index for index in places.by_seq.values() if 0 <= index < signed]
    covering = None
    if covered:
        covering = await read_covering(raw, tenant_id, state.origin, max(covered) + 1)
    sizes = {state.size, signed, 0 if covering is None else covering.size}
    wanted: set[TileAddress] = set()
    # What a row claims is not asked for beyond what the log has: nobody holds so many tiles.
    for size in sizes:
        if 0 < size <= state.size:
            indexes = [index for index in places.by_seq.values() if 0 <= index < size]
            wanted |= tiles_for_leaves(indexes, size)
    tiles = await read_tiles(raw, tenant_id, wanted)
    return Placement(state=state, places=places, tiles=tiles, covering=covering)


async def read_overdue(
    raw: asyncpg.Connection,
    operator: TenantId,
    place: tuple[TenantId, RunId],
    from_seq: int,
) -> int | None:
    """The first record from a seq on that must have a place by now. For those that have none.

    Looks at the operator's rows in the same snapshot, and leaves it as a view of the tenant's.
    """
    tenant_id, run_id = place
    await raw.execute("SELECT set_config('app.tenant', $1, true)", str(operator))
    watermark = await raw.fetchval(_WATERMARK, operator)
    await raw.execute("SELECT set_config('app.tenant', $1, true)", str(tenant_id))
    if watermark is None:
        return None
    found: int | None = await raw.fetchval(_OVERDUE, tenant_id, run_id, from_seq, watermark)
    return found


async def read_log_state(raw: asyncpg.Connection, tenant_id: TenantId) -> LogState | None:
    """The log's state, or None before its first leaf."""
    row = await raw.fetchrow(_STATE, tenant_id)
    if row is None:
        return None
    return LogState(
        origin=row["name"],
        size=row["leaves"],
        root=row["head_root"],
        recovery=row["recovery"],
        has_other_names=row["has_other_names"],
        checkpoint=None if row["note"] is None else signed_head(row),
    )


async def read_run_places(
    raw: asyncpg.Connection, tenant_id: TenantId, run_id: RunId, from_seq: int
) -> RunPlaces:
    """Where the records of a run stand, from a seq on."""
    rows = await raw.fetch(_PLACES, tenant_id, run_id, from_seq)
    places = {row["seq"]: row["idx"] for row in rows}
    return RunPlaces(left_out=places.pop(-1, None), by_seq=places)


async def is_named(raw: asyncpg.Connection, tenant_id: TenantId, run_id: RunId) -> bool:
    """Whether the log holds a record of this run."""
    found: bool = await raw.fetchval(_NAMED, tenant_id, run_id)
    return found


async def read_covering(
    raw: asyncpg.Connection, tenant_id: TenantId, origin: str, at_least: int
) -> SignedHead | None:
    """The oldest checkpoint of at least so many leaves."""
    row = await raw.fetchrow(_COVERING, tenant_id, origin, at_least)
    return None if row is None else signed_head(row)


async def read_older(
    raw: asyncpg.Connection, tenant_id: TenantId, origin: str, below: int, limit: int
) -> list[SignedHead]:
    """Checkpoints of fewer leaves, the newest first."""
    return [signed_head(row) for row in await raw.fetch(_BELOW, tenant_id, origin, below, limit)]


def signed_head(row: asyncpg.Record) -> SignedHead:
    """A row of `checkpoint`."""
    run = row["anchor_run"]
    return SignedHead(
        origin=row["origin"],
        size=row["size"],
        root=row["root"],
        note=row["note"],
        anchor_run=None if run is None else RunId(UUID(bytes=run.bytes)),
        anchor_seq=row["anchor_seq"],
    )
