"""What the sequencer reads and writes: one leader at a time, each write fenced by its term.

Two guards: the advisory lock is held by the connection that writes, and every transaction first
touches the state row under the leader's term. A leader that lost either writes nothing more.

Threat: Ledger tampering
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

import asyncpg

from app.domain.errors import LedgerError, StaleTermError
from app.storage.database import Database
from app.transparency.tiles import TileAddress

RunPlace: TypeAlias = tuple[bytes, bytes]  # log and run

_LEADER_LOCK = 0x6D665F736571  # "mf_seq"
_RANGE_BYTES = 32
# A batch of more ranges than records is malformed; nothing after this many is looked at.
_MOST_RANGES = 100_000
_PREFETCH = 1000
# All that a leader reads, it reads by key. A plan made before the tables had statistics would scan.
# A leader that falls silent loses its session, and with it the lock.
_AS_LEADER = (
    "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off;"
    " SET idle_session_timeout = '30s'"
)
_AS_EVER = (
    "RESET enable_hashjoin; RESET enable_mergejoin; RESET enable_seqscan;"
    " RESET idle_session_timeout"
)

_TAKE_TERM = """
INSERT INTO sequencer_state AS s (tenant_id, term, system_identifier, xid, beaten_at)
VALUES ($1, 1, $2, '0', now())
ON CONFLICT (tenant_id) DO UPDATE SET term = s.term + 1, beaten_at = now()
RETURNING term, system_identifier, xid::text
"""
_BEAT = """
UPDATE sequencer_state SET system_identifier = $3, xid = $4::text::xid8, beaten_at = now()
WHERE tenant_id = $1 AND term = $2
"""
_SETTLED = """
SELECT xid::text FROM sequencer_state WHERE tenant_id = $1
  AND system_identifier = (SELECT system_identifier::text FROM pg_control_system())
"""
_BATCH_COLUMNS = """
SELECT b.tenant_id, b.batch_id, b.xid::text, b.writer_id, b.n, b.ranges, b.entries, b.tip, b.sig,
  k.public_key, k.certificate
FROM batch b LEFT JOIN writer_key k ON k.writer_id = b.writer_id
"""
_BATCHES = (
    _BATCH_COLUMNS
    + """
WHERE b.xid >= $1::text::xid8 AND b.xid < $2::text::xid8 ORDER BY b.xid, b.ranges LIMIT $3
"""
)
# Found without the watermark: batches whose first range does not end in the log.
_NOT_IN_LOG = """
WHERE NOT EXISTS (
  SELECT 1 FROM leaf l WHERE l.tenant_id = b.tenant_id
    AND l.run_id = encode(substr(b.ranges, 1, 16), 'hex')::uuid
    AND l.seq = ('x' || encode(substr(b.ranges, 25, 8), 'hex'))::bit(64)::bigint
)
"""
_STRAYS = _BATCH_COLUMNS + _NOT_IN_LOG
_RECORDS = """
SELECT u.ord, r.run_id, r.seq, r.chain, r.batch_id
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[]) WITH ORDINALITY
  AS u(tenant_id, run_id, first, last, ord)
JOIN record r ON r.tenant_id = u.tenant_id AND r.run_id = u.run_id
  AND r.seq BETWEEN u.first AND u.last
ORDER BY u.ord, r.seq
"""
_NEXT_SEQS = """
SELECT u.tenant_id, u.run_id, l.seq + 1 AS due
FROM unnest($1::uuid[], $2::uuid[]) AS u(tenant_id, run_id)
CROSS JOIN LATERAL (
  SELECT seq FROM leaf WHERE tenant_id = u.tenant_id AND run_id = u.run_id
  ORDER BY seq DESC LIMIT 1
) AS l
"""


@dataclass(frozen=True, slots=True, order=True)
class BatchRange:
    """Records of one run in a batch, first and last seq included."""

    place: RunPlace
    first: int
    last: int

    @property
    def count(self) -> int:
        """How many they are."""
        return self.last - self.first + 1

    @property
    def seqs(self) -> range:
        """Their places in the run."""
        return range(self.first, self.last + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingBatch:
    """A row of `batch` that is not in a log yet, believed by nobody."""

    log: bytes
    batch_id: bytes
    xid: int
    writer: bytes
    count: int
    ranges: tuple[BatchRange, ...]
    entries: bytes | None
    tip: bytes
    signature: bytes
    public_key: bytes | None
    certificate: bytes | None


@dataclass(frozen=True, slots=True)
class PendingRecord:
    """What the log needs of a record."""

    run: bytes
    seq: int
    chain: bytes
    batch_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLeaf:
    """A leaf to be: whose it is, and its hash."""

    run: bytes
    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A run that goes no further into the log, from which seq, and why."""

    log: bytes
    run: bytes
    seq: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """Which server this is, below which xid all is settled, and which xid comes next."""

    system_identifier: str
    settled: int
    upcoming: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How one log grows: leaves from `size` on, changed tiles, the new root."""

    log: bytes
    origin: str
    size: int
    leaves: Sequence[NewLeaf]
    tiles: Mapping[TileAddress, bytes]
    root: bytes


class Leader:
    """The one that integrates, for as long as its connection and its term last."""

    def __init__(
        self, raw: asyncpg.Connection, operator: UUID, term: int, state: tuple[str, int]
    ) -> None:
        self.raw = raw
        self.term = term
        self.system_identifier, self.watermark = state
        self._operator = operator

    async def horizon(self) -> Horizon:
        """Where all transactions have ended. Asked before the batches below it are read."""
        row = await self.raw.fetchrow(
            "SELECT (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,"
            " pg_snapshot_xmin(s)::text AS settled, pg_snapshot_xmax(s)::text AS upcoming"
            " FROM pg_current_snapshot() AS s"
        )
        return Horizon(
            system_identifier=row["system_identifier"],
            settled=int(row["settled"]),
            upcoming=int(row["upcoming"]),
        )

    async def batches(self, from_xid: int, to_xid: int, limit: int) -> list[PendingBatch]:
        """Committed batches of these transactions in xid order, at most `limit`."""
        rows = await self.raw.fetch(_BATCHES, str(from_xid), str(to_xid), limit)
        return [_batch(row) for row in rows]

    async def stray_batches(self) -> list[PendingBatch]:
        """All batches that do not end in the log, in the order in which a server numbered them."""
        async with self.raw.transaction():
            await self.raw.execute("SET LOCAL statement_timeout = 0")
            rows = self.raw.cursor(_STRAYS, prefetch=_PREFETCH)
            found = [_batch(row) async for row in rows]
        return sorted(found, key=lambda batch: (batch.xid, batch.ranges))

    async def records(self, batches: Sequence[PendingBatch]) -> dict[bytes, list[PendingRecord]]:
        """The records that the ranges name, by batch id, in range order."""
        owners = [(batch.batch_id, item) for batch in batches for item in batch.ranges]
        found: dict[bytes, list[PendingRecord]] = {batch.batch_id: [] for batch in batches}
        rows = await self.raw.fetch(
            _RECORDS,
            [UUID(bytes=item.place[0]) for _, item in owners],
            [UUID(bytes=item.place[1]) for _, item in owners],
            [item.first for _, item in owners],
            [item.last for _, item in owners],
        )
        for order, run_id, seq, chain, batch_id in rows:
            found[owners[order - 1][0]].append(
                PendingRecord(run_id.bytes, seq, chain, batch_id.bytes)
            )
        return found

    async def next_seqs(self, places: Collection[RunPlace]) -> dict[RunPlace, int]:
        """For each run that is in the log: which seq it waits for."""
        rows = await self.raw.fetch(
            _NEXT_SEQS,
            [UUID(bytes=log) for log, _ in places],
            [UUID(bytes=run) for _, run in places],
        )
        return {(row["tenant_id"].bytes, row["run_id"].bytes): row["due"] for row in rows}

    async def left_out(self) -> set[RunPlace]:
        """Every run that goes no further."""
        rows = await self.raw.fetch("SELECT tenant_id, run_id FROM left_out")
        return {(row["tenant_id"].bytes, row["run_id"].bytes) for row in rows}

    async def integrate(
        self,
        growths: Sequence[Growth],
        left_out: Sequence[LeftOut],
        *,
        system_identifier: str,
        watermark: int,
    ) -> None:
        """Leaves, tiles, heads, findings and the watermark in one transaction; durable.

        StaleTermError, and nothing written, when somebody else leads by now.
        """
        async with self.fenced(system_identifier, watermark):
            await self._add_leaves(growths)
            await self._widen_tiles(growths)
            await self._move_heads(growths)
            await self._note_left_out(left_out)
        self.system_identifier, self.watermark = system_identifier, watermark

    @asynccontextmanager
    async def fenced(
        self, system_identifier: str | None = None, watermark: int | None = None
    ) -> AsyncIterator[asyncpg.Connection]:
        """A transaction that only the present leader can begin."""
        identifier = self.system_identifier if system_identifier is None else system_identifier
        mark = self.watermark if watermark is None else watermark
        async with self.raw.transaction():
            done = await self.raw.execute(_BEAT, self._operator, self.term, identifier, str(mark))
            if done != "UPDATE 1":
                raise StaleTermError("another sequencer leads")
            yield self.raw

    async def _add_leaves(self, growths: Sequence[Growth]) -> None:
        if not growths:
            return
        await self.raw.execute(
            "INSERT INTO leaf (tenant_id, idx, run_id, seq)"
            " SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::bigint[])",
            [log for g in growths for log in [UUID(bytes=g.log)] * len(g.leaves)],
            [index for g in growths for index in range(g.size, g.size + len(g.leaves))],
            [UUID(bytes=item.run) for g in growths for item in g.leaves],
            [item.seq for g in growths for item in g.leaves],
        )

    async def _widen_tiles(self, growths: Sequence[Growth]) -> None:
        changed = [(g.log, place, data) for g in growths for place, data in g.tiles.items()]
        if not changed:
            return
        await self.raw.execute(
            "INSERT INTO tile (tenant_id, level, n, data)"
            " SELECT * FROM unnest($1::uuid[], $2::smallint[], $3::bigint[], $4::bytea[])"
            " ON CONFLICT (tenant_id, level, n) DO UPDATE SET data = EXCLUDED.data",
            [UUID(bytes=log) for log, _, _ in changed],
            [place.level for _, place, _ in changed],
            [place.n for _, place, _ in changed],
            [data for _, _, data in changed],
        )

    async def _move_heads(self, growths: Sequence[Growth]) -> None:
        if not growths:
            return
        await self.raw.execute(
            "INSERT INTO log_head (tenant_id, origin, size, root, integrated_at)"
            " SELECT u.*, now() FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bytea[]) u"
            " ON CONFLICT (tenant_id) DO UPDATE SET size = EXCLUDED.size, root = EXCLUDED.root,"
            " integrated_at = EXCLUDED.integrated_at",
            [UUID(bytes=g.log) for g in growths],
            [g.origin for g in growths],
            [g.size + len(g.leaves) for g in growths],
            [g.root for g in growths],
        )

    async def _note_left_out(self, left_out: Sequence[LeftOut]) -> None:
        for item in left_out:
            await self.raw.execute(
                "INSERT INTO left_out (tenant_id, run_id, seq, reason) VALUES ($1, $2, $3, $4)"
                " ON CONFLICT DO NOTHING",
                UUID(bytes=item.log),
                UUID(bytes=item.run),
                item.seq,
                item.reason,
            )


async def next_transaction(raw: asyncpg.Connection) -> int:
    """The number that no transaction has yet: whatever was begun before has a smaller one."""
    return int(await raw.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"))


async def settled_transactions(raw: asyncpg.Connection, operator: UUID) -> int:
    """Below which number this server's transactions are in the logs; 0 while nobody knows."""
    found: str | None = await raw.fetchval(_SETTLED, operator)
    return 0 if found is None else int(found)


@asynccontextmanager
async def leading(database: Database, operator: UUID) -> AsyncIterator[Leader | None]:
    """The leader, if nobody else leads; None otherwise. Leading ends with the block."""
    async with database.driver() as raw:
        if not await raw.fetchval("SELECT pg_try_advisory_lock($1)", _LEADER_LOCK):
            yield None
            return
        identifier = await raw.fetchval("SELECT system_identifier::text FROM pg_control_system()")
        row = await raw.fetchrow(_TAKE_TERM, operator, identifier)
        state = (str(row["system_identifier"]), int(row["xid"]))
        await raw.execute(_AS_LEADER)
        try:
            yield Leader(raw, operator, row["term"], state)
        except asyncpg.PostgresError as error:
            # As an error of the driver it would let the session, and the lock, back into the pool.
            raise LedgerError(f"sequencing was refused ({error.sqlstate})") from error
        await raw.execute(_AS_EVER)
        await raw.execute("SELECT pg_advisory_unlock($1)", _LEADER_LOCK)


def _batch(row: asyncpg.Record) -> PendingBatch:
    log = row["tenant_id"].bytes
    return PendingBatch(
        log=log,
        batch_id=row["batch_id"].bytes,
        xid=int(row["xid"]),
        writer=row["writer_id"].bytes,
        count=row["n"],
        ranges=_ranges(log, row["ranges"]),
        entries=row["entries"],
        tip=row["tip"],
        signature=row["sig"],
        public_key=row["public_key"],
        certificate=row["certificate"],
    )


def _ranges(log: bytes, data: bytes) -> tuple[BatchRange, ...]:
    """The ranges of a batch; none when they are malformed, so that no record fits them."""
    if not data or len(data) % _RANGE_BYTES or len(data) > _RANGE_BYTES * _MOST_RANGES:
        return ()
    found = []
    for at in range(0, len(data), _RANGE_BYTES):
        first = int.from_bytes(data[at + 16 : at + 24], "big")
        last = int.from_bytes(data[at + 24 : at + 32], "big")
        if not first <= last < 1 << 63:
            return ()
        found.append(BatchRange((log, data[at : at + 16]), first, last))
    return tuple(found)
