"""Reads single records of administration runs, and what witnesses said of the operator log.

Nothing read here is believed: the caller checks it from the note's commitment out to a signed root.

Threat: Ledger tampering
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from app.domain.run import RunId, TenantId
from app.ledger.header import FIELD_NUMBERS
from app.storage.place_store import SignedHead, signed_head

NOTE = FIELD_NUMBERS["note"]
_ENTRIES = """
SELECT r.run_id, r.seq, r.header, r.rc, r.chain, q.chain AS previous, p.blob, k.kek_id, k.wrapped,
  l.idx
FROM record r
LEFT JOIN record q ON q.tenant_id = r.tenant_id AND q.run_id = r.run_id AND q.seq = r.seq - 1
LEFT JOIN payload p ON p.tenant_id = r.tenant_id AND p.run_id = r.run_id AND p.seq = r.seq
  AND p.field = $4
LEFT JOIN run_key k ON k.tenant_id = r.tenant_id AND k.run_id = r.run_id
LEFT JOIN leaf l ON l.tenant_id = r.tenant_id AND l.run_id = r.run_id AND l.seq = r.seq
WHERE r.tenant_id = $1 AND r.run_id = $2 AND r.seq = ANY ($3) ORDER BY r.seq
"""
_OF_KINDS = """
SELECT r.run_id, r.seq FROM record r
JOIN runs a ON a.tenant_id = r.tenant_id AND a.run_id = r.run_id
WHERE r.tenant_id = $1 AND a.kind = 'admin' AND r.kind = ANY ($2) AND r.seq > $3 ORDER BY r.seq
LIMIT $4
"""
_END = """
SELECT r.seq FROM runs a CROSS JOIN LATERAL (
  SELECT seq FROM record WHERE tenant_id = a.tenant_id AND run_id = a.run_id
  ORDER BY seq DESC LIMIT 1) r
WHERE a.tenant_id = $1 AND a.kind = 'admin' ORDER BY r.seq DESC LIMIT 1
"""
_COSIGNED = """
SELECT c.origin, c.size, c.root, c.note, c.anchor_run, c.anchor_seq FROM checkpoint c
WHERE c.tenant_id = $1 AND c.origin = $2 AND c.size > $3 AND EXISTS (
  SELECT 1 FROM cosignature s
  WHERE s.tenant_id = c.tenant_id AND s.origin = c.origin AND s.size = c.size
) ORDER BY c.size
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEntry:
    """A record of an administration run with its note, sealed; `index` when it has a place."""

    run_id: RunId
    seq: int
    header: bytes | None
    rc: bytes
    chain: bytes
    previous: bytes | None
    blob: bytes | None
    kek_id: str | None
    wrapped: bytes | None
    index: int | None


async def read_entries(
    raw: asyncpg.Connection, log: TenantId, run_id: RunId, seqs: Sequence[int]
) -> list[StoredEntry]:
    """These records, as far as they are there, in order."""
    rows = await raw.fetch(_ENTRIES, log, run_id, list(seqs), NOTE)
    return [
        StoredEntry(
            run_id=RunId(UUID(bytes=row["run_id"].bytes)),
            seq=row["seq"],
            header=row["header"],
            rc=row["rc"],
            chain=row["chain"],
            previous=row["previous"],
            blob=row["blob"],
            kek_id=row["kek_id"],
            wrapped=row["wrapped"],
            index=row["idx"],
        )
        for row in rows
    ]


async def find_entries(
    raw: asyncpg.Connection,
    log: TenantId,
    kinds: Sequence[str],
    after: int = -1,
    limit: int | None = None,
) -> list[tuple[RunId, int]]:
    """Where the records of these kinds stand in the log's administration run: all, or so many."""
    rows = await raw.fetch(_OF_KINDS, log, list(kinds), after, limit)
    return [(RunId(UUID(bytes=row["run_id"].bytes)), row["seq"]) for row in rows]


async def administration_end(raw: asyncpg.Connection, log: TenantId) -> int:
    """The last seq of the log's administration run; -1 while there is none."""
    found: int | None = await raw.fetchval(_END, log)
    return -1 if found is None else found


async def read_cosigned(
    raw: asyncpg.Connection, log: TenantId, origin: str, above: int, limit: int, *, newest: bool
) -> list[SignedHead]:
    """Checkpoints of more than `above` leaves that some witness signed, from one end or other."""
    order = " DESC LIMIT $4" if newest else " LIMIT $4"
    rows = await raw.fetch(_COSIGNED + order, log, origin, above, limit)
    return [signed_head(row) for row in rows]


async def read_lines(raw: asyncpg.Connection, log: TenantId, origin: str, size: int) -> list[str]:
    """All lines of witnesses under a checkpoint. Their columns say nothing that they do not."""
    rows = await raw.fetch(
        "SELECT line FROM cosignature WHERE tenant_id = $1 AND origin = $2 AND size = $3"
        " ORDER BY witness, cosigned_at",
        log,
        origin,
        size,
    )
    return [row["line"] for row in rows]
