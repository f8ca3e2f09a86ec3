"""Two flushes at a time: what is being committed delays nobody else, and no run is in both."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest

from app.domain.errors import LedgerError
from app.domain.run import JsonObject, RunId, TenantId
from app.ledger.batches import SealedBatch
from app.ledger.writing import SealedAppend, WriterKey
from app.storage.database import Database
from app.storage.group_commit import AT_ONCE, Call, GroupCommit
from tests.integration.storage.append_scene import Author
from tests.support.databases import Roles, connect

pytestmark = pytest.mark.anyio

HELD: JsonObject = {"held": True}
# Waits while the test has the key, for those who are told to; no timeout of the pool ends it.
WAITING = """
SELECT set_config('lock_timeout', '0', true), CASE WHEN $1 THEN pg_advisory_xact_lock(1) END
"""
STUCK = """
SELECT count(*) FROM pg_locks JOIN pg_database ON oid = database
WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted
"""
# Divides by zero when a run is in another transaction, too.
ALONE = """
SELECT 1 / min(pg_try_advisory_xact_lock(hashtextextended(run::text, 0))::int)
FROM unnest($1::uuid[]) AS run
"""


def writers(count: int) -> list[Author]:
    """Runs that no table knows: these statements write nothing."""
    writer, log = WriterKey(os.urandom(32), uuid4().bytes), TenantId(uuid4())
    return [Author(log, RunId(uuid4()), writer, os.urandom(32)) for _ in range(count)]


def told_to_wait(_: SealedBatch, companions: Sequence[JsonObject]) -> tuple[object, ...]:
    return (HELD in companions,)


def refusal(error: asyncpg.PostgresError) -> Exception:
    return LedgerError(str(error))


@asynccontextmanager
async def pool_of(roles: Roles, size: int = 10) -> AsyncIterator[Database]:
    """The application's pool; a test that hangs in it fails."""
    database = Database(roles.app, pool_size=size, statement_seconds=120)
    try:
        async with asyncio.timeout(120):
            yield database
    finally:
        await database.close()


def flush_on(database: Database, statement: str, call: Call) -> GroupCommit:
    return GroupCommit(database, os.urandom, statement, call, refusal)


async def until_one_is_stuck(raw: asyncpg.Connection) -> None:
    """Asks until somebody waits for the key."""
    stuck = 0
    while not stuck:
        await asyncio.sleep(0.01)
        stuck = await raw.fetchval(STUCK)


async def test_a_flush_that_waits_does_not_keep_a_full_one_from_being_written(
    roles: Roles,
) -> None:
    first, *others = writers(AT_ONCE + 1)
    holder = await connect(roles.superuser)
    async with pool_of(roles) as database:
        flush = flush_on(database, WAITING, told_to_wait)
        await holder.execute("SELECT pg_advisory_lock(1)")
        waiting = asyncio.create_task(flush.append(first.seal(), [HELD]))
        await until_one_is_stuck(holder)
        batches = await asyncio.gather(*(flush.append(other.seal(), []) for other in others))
        assert {type(batch) for batch in batches} == {SealedBatch}
        assert not waiting.done()
        await holder.execute("SELECT pg_advisory_unlock(1)")
        assert (await waiting).appends[0].run == first.run_id.bytes
    await holder.close()


async def test_a_second_flush_leaves_the_last_connection_to_others(roles: Roles) -> None:
    first, *others = writers(AT_ONCE + 1)
    holder = await connect(roles.superuser)
    async with pool_of(roles, size=2) as database:
        flush = flush_on(database, WAITING, told_to_wait)
        await holder.execute("SELECT pg_advisory_lock(1)")
        waiting = asyncio.create_task(flush.append(first.seal(), [HELD]))
        await until_one_is_stuck(holder)
        later = [asyncio.create_task(flush.append(other.seal(), [HELD])) for other in others]
        for _ in range(10):  # turns in which a second flush would be under way
            await asyncio.sleep(0)
        async with database.driver() as raw:
            assert await raw.fetchval("SELECT 1") == 1
        await holder.execute("SELECT pg_advisory_unlock(1)")
        batches = await asyncio.gather(waiting, *later)
        assert len({batch.batch_id for batch in batches}) == 2
    await holder.close()


async def test_no_run_is_in_two_flushes_and_its_appends_keep_their_order(roles: Roles) -> None:
    authors, seen = writers(4 * AT_ONCE), dict[bytes, list[int]]()

    def in_order(batch: SealedBatch, _: Sequence[JsonObject]) -> tuple[object, ...]:
        runs = [append.run for append in batch.appends]
        assert len(set(runs)) == len(runs)
        for append in batch.appends:
            seen.setdefault(append.run, []).append(append.records[0].seq)
        return ([RunId(author.run_id) for author in authors if author.run_id.bytes in runs],)

    async with pool_of(roles) as database:
        flush = flush_on(database, ALONE, in_order)
        appends: list[SealedAppend] = []
        for author in authors * 3:
            sealed = author.seal()
            author.head = sealed.head
            appends.append(sealed)
        batches = await asyncio.gather(*(flush.append(sealed, []) for sealed in appends))
    assert all(sealed in batch.appends for sealed, batch in zip(appends, batches, strict=True))
    assert seen == {author.run_id.bytes: [0, 1, 2] for author in authors}


async def test_all_of_a_flush_are_told_that_it_is_durable_whatever_ends_the_flusher(
    roles: Roles,
) -> None:
    authors = writers(3 * AT_ONCE)

    async def appended(author: Author) -> SealedBatch:
        batch = await flush.append(author.seal(), [])
        for task in asyncio.all_tasks():
            if getattr(task.get_coro(), "__qualname__", "") == GroupCommit._flush_all.__qualname__:
                task.cancel()
        return batch

    async with pool_of(roles) as database:
        flush = flush_on(database, WAITING, told_to_wait)
        batches = await asyncio.gather(*(appended(author) for author in authors))
    assert len({batch.batch_id for batch in batches}) == 1
