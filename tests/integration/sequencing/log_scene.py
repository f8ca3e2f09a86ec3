"""A sequencer on a real database, and the naive tree that its log is compared with."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg

from app.ledger.hashing import leaf_hash
from app.sequencing.sequencer import Sequencer
from app.storage.database import Database
from app.storage.run_store import RunStore
from app.storage.sequencer_store import Leader, leading
from app.transparency.merkle_tree import tree_root
from app.transparency.tiles import TileAddress, root_from
from tests.integration.storage.append_scene import ENROLMENT
from tests.support.databases import Roles, connect

PATIENCE_SECONDS = 60


def origin_of(log: bytes) -> str:
    return f"test.local/ledger/{log.hex()}"


async def operator_of(roles: Roles) -> UUID:
    """The operator log's id."""
    database = Database(roles.app, pool_size=1)
    try:
        return await RunStore(database).ensure_tenant("!operator")
    finally:
        await database.close()


@asynccontextmanager
async def led(roles: Roles) -> AsyncIterator[tuple[Leader, Sequencer]]:
    """The one that leads; a failure if somebody else does, or if what is done never ends."""
    database = Database(roles.sequencer, pool_size=2)
    operator = await operator_of(roles)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), leading(database, operator) as leader:
            assert leader is not None, "somebody else leads"
            yield leader, await Sequencer.start(leader, ENROLMENT, origin_of)
    finally:
        await database.close()


async def integrated(roles: Roles) -> int:
    """Tick until nothing is left; how many leaves that were."""
    count = 0
    async with led(roles) as (_, sequencer):
        while True:
            tick = await sequencer.tick()
            count += tick.leaves
            if not tick.has_more:
                return count


async def assert_logs_whole(roles: Roles, *, left_out: frozenset[UUID] = frozenset()) -> int:
    """Every record once, gapless, and the stored roots and tiles those of a naive tree."""
    raw = await connect(roles.superuser)
    try:
        assert await _uncovered(raw, left_out) == 0
        total = 0
        for head in await raw.fetch("SELECT * FROM log_head"):
            total += await _check_log(raw, head)
        assert total == await raw.fetchval("SELECT count(*) FROM leaf")
        return total
    finally:
        await raw.close()


async def _uncovered(raw: asyncpg.Connection, left_out: frozenset[UUID]) -> int:
    found: int = await raw.fetchval(
        "SELECT count(*) FROM record r WHERE NOT r.run_id = ANY ($1) AND NOT EXISTS (SELECT 1"
        " FROM leaf l WHERE (l.tenant_id, l.run_id, l.seq) = (r.tenant_id, r.run_id, r.seq))",
        list(left_out),
    )
    return found


async def _check_log(raw: asyncpg.Connection, head: asyncpg.Record) -> int:
    log = head["tenant_id"]
    rows = await raw.fetch(
        "SELECT l.idx, l.run_id, l.seq, r.chain FROM leaf l LEFT JOIN record r"
        " USING (tenant_id, run_id, seq) WHERE l.tenant_id = $1 ORDER BY l.idx",
        log,
    )
    assert [row["idx"] for row in rows] == list(range(head["size"]))
    seen: dict[UUID, int] = {}
    for row in rows:
        assert row["seq"] == seen.get(row["run_id"], 0), "a run is out of order in the log"
        seen[row["run_id"]] = row["seq"] + 1
    hashes = [leaf_hash(log.bytes, row["run_id"].bytes, row["seq"], row["chain"]) for row in rows]
    assert tree_root(hashes) == head["root"]
    tiles = {
        TileAddress(level=row["level"], n=row["n"]): row["data"]
        for row in await raw.fetch("SELECT level, n, data FROM tile WHERE tenant_id = $1", log)
    }
    assert root_from(head["size"], tiles) == head["root"]
    level0 = b"".join(tiles[TileAddress(level=0, n=n)] for n in range((len(rows) + 255) // 256))
    assert level0 == b"".join(hashes)
    return len(rows)
