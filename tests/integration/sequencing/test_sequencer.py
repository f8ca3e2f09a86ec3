"""The sequencer misses nothing, doubles nothing, and lets one bad run stop only itself."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.domain.errors import LedgerError, StaleTermError
from app.domain.run import RunId
from app.ledger.writing import SealedAppend, WriterKey
from app.storage.database import Database
from app.storage.sequencer_store import leading
from app.transparency.tiles import TileError
from tests.integration.sequencing.log_scene import (
    assert_logs_whole,
    integrated,
    led,
    operator_of,
)
from tests.integration.storage.append_scene import Author, Scene, scene_on, step
from tests.support.databases import DatabaseServer, Roles, connect

pytestmark = pytest.mark.anyio


@pytest.fixture
async def fresh(postgres: DatabaseServer) -> Roles:
    return await asyncio.to_thread(postgres.new_database)


async def test_what_was_committed_is_in_the_log_in_the_order_of_its_runs(fresh: Roles) -> None:
    async with scene_on(fresh) as scene, scene_on(fresh, tenant="other") as other:
        for process in (scene, other):
            for _ in range(3):
                author = await process.begun()
                await process.write(author, author.seal(step(), step()))
        assert await integrated(fresh) == 18
        assert await assert_logs_whole(fresh) == 18
        assert await integrated(fresh) == 0


async def test_a_log_of_many_tiles_has_the_root_of_a_naive_tree(fresh: Roles) -> None:
    async with scene_on(fresh) as scene:
        author = await scene.begun()
        for count in (254, 1, 1, 300, 513):
            await scene.write(author, author.seal(*[step()] * count))
            await integrated(fresh)
        assert await assert_logs_whole(fresh) == 1070


async def _store_nothing(raw: asyncpg.Connection) -> None:
    await raw.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''full''; END';"
        " CREATE TRIGGER refuse BEFORE INSERT ON leaf FOR EACH ROW EXECUTE FUNCTION refuse()"
    )


async def _store_again(raw: asyncpg.Connection) -> None:
    await raw.execute("DROP FUNCTION refuse CASCADE")


async def _hide_tiles(raw: asyncpg.Connection) -> None:
    """Of the log that comes second: the edge of the first one has grown by then."""
    await raw.execute(
        "SET session_replication_role = replica; ALTER TABLE tile DISABLE TRIGGER USER;"
        " CREATE TABLE hidden AS SELECT * FROM tile WHERE tenant_id ="
        " (SELECT tenant_id FROM tenants WHERE name = 'other');"
        " DELETE FROM tile WHERE tenant_id IN (SELECT tenant_id FROM hidden)"
    )


async def _show_tiles(raw: asyncpg.Connection) -> None:
    await raw.execute("INSERT INTO tile SELECT * FROM hidden; DROP TABLE hidden")


@pytest.mark.parametrize(
    ("break_it", "mend"), [(_store_nothing, _store_again), (_hide_tiles, _show_tiles)]
)
async def test_a_tick_that_failed_leaves_nothing_behind_that_the_next_one_builds_on(
    fresh: Roles,
    break_it: Callable[[asyncpg.Connection], Awaitable[None]],
    mend: Callable[[asyncpg.Connection], Awaitable[None]],
) -> None:
    raw = await connect(fresh.superuser)
    async with scene_on(fresh) as scene, scene_on(fresh, tenant="other") as other:
        authors = [(process, await process.begun()) for process in (scene, other)]
        await integrated(fresh)
        for process, author in authors:
            await process.write(author, author.seal(step(), step()))
        await break_it(raw)
        async with led(fresh) as (_, sequencer):
            with pytest.raises((asyncpg.PostgresError, LedgerError, TileError)):
                await sequencer.tick()
            await mend(raw)
            while (await sequencer.tick()).has_more:
                pass
    await raw.close()
    assert await assert_logs_whole(fresh) == 6


async def test_a_transaction_that_is_open_holds_back_what_came_after_it_and_loses_nothing(
    fresh: Roles,
) -> None:
    """Serial order is not commit order: the late one must not be passed over."""
    raw = await connect(fresh.superuser)
    async with scene_on(fresh) as scene:
        early = await scene.begun()
        await integrated(fresh)
        late = scene.author()
        opened = raw.transaction()
        await opened.start()
        assert int(await raw.fetchval("SELECT pg_current_xact_id()::text")) > 0
        await scene.write(early, early.seal())
        await scene.write(late, late.seal(), late.new_run())
        assert await integrated(fresh) == 0, "taken while an older transaction could still commit"
        await opened.rollback()
        assert await integrated(fresh) == 2
    await raw.close()
    assert await assert_logs_whole(fresh) == 3


async def test_of_sixteen_writers_no_record_is_missed_or_doubled(fresh: Roles) -> None:
    async def write(scene: Scene) -> None:
        author = await scene.begun()
        for _ in range(12):
            await scene.write(author, author.seal(step(), step()))

    async with scene_on(fresh, pool_size=16) as scene, led(fresh) as (_, sequencer):
        writing = [asyncio.create_task(write(scene)) for _ in range(16)]
        while not all(task.done() for task in writing):
            await sequencer.tick()
            await asyncio.sleep(0)
        await asyncio.gather(*writing)
        while (await sequencer.tick()).leaves:
            pass
    await integrated(fresh)
    assert await assert_logs_whole(fresh) == 16 * 25


async def test_of_two_sequencers_one_leads(fresh: Roles) -> None:
    database = Database(fresh.sequencer, pool_size=2)
    async with led(fresh), leading(database, await operator_of(fresh)) as second:
        assert second is None
    async with leading(database, await operator_of(fresh)) as second:
        assert second is not None
    await database.close()


async def test_whoever_fails_lets_go_of_the_lead(fresh: Roles) -> None:
    """A session that is kept in the pool would keep the lock for ever."""
    database = Database(fresh.sequencer, pool_size=2)
    operator = await operator_of(fresh)

    async def fail() -> None:
        async with leading(database, operator) as leader:
            assert leader is not None
            await leader.raw.execute("SELECT 1 / 0")

    with pytest.raises(LedgerError):
        await fail()
    async with led(fresh) as (leader, _):
        assert leader.term == 2
    await database.close()


async def test_a_leader_that_falls_silent_loses_its_session(fresh: Roles) -> None:
    async with led(fresh) as (leader, _):
        timeout = await leader.raw.fetchval(
            "SELECT setting::int FROM pg_settings WHERE name = 'idle_session_timeout'"
        )
    assert 0 < timeout <= 60_000


async def test_a_zombie_that_lost_its_term_writes_nothing(fresh: Roles) -> None:
    """Its lock is gone, as when its connection was cut, and it does not know."""
    async with scene_on(fresh) as scene:
        await scene.begun()
        async with led(fresh) as (zombie, sequencer):
            await zombie.raw.execute("SELECT pg_advisory_unlock_all()")
            async with led(fresh) as (leader, _):
                assert leader.term == zombie.term + 1
                with pytest.raises(StaleTermError):
                    await sequencer.tick()
            raw = await connect(fresh.superuser)
            assert await raw.fetchval("SELECT count(*) FROM leaf") == 0
            await raw.close()
        assert await integrated(fresh) == 1


@pytest.mark.parametrize(
    "change",
    [
        "system_identifier = 'another server'",
        "xid = '9000000000000'",
        "system_identifier = 'another server', xid = '9000000000000'",
    ],
)
async def test_on_another_server_work_is_found_without_the_watermark(
    fresh: Roles, change: str
) -> None:
    async with scene_on(fresh) as scene:
        author = await scene.begun()
        await integrated(fresh)
        others = [await scene.begun() for _ in range(3)]
        for one in (author, *others):
            await scene.write(one, one.seal(step(), step()))
            await scene.write(one, one.seal())
        raw = await connect(fresh.superuser)
        await raw.execute(f"UPDATE sequencer_state SET {change}")
        # Numbers of the old server: later records may have lower ones than earlier records.
        await raw.execute("ALTER TABLE batch DISABLE TRIGGER ALL")
        await raw.execute("UPDATE batch SET xid = (8000000000000 - xid::text::bigint)::text::xid8")
        await raw.execute("ALTER TABLE batch ENABLE ALWAYS TRIGGER batch_no_change")
        assert await integrated(fresh) == 15
        state = await raw.fetchrow("SELECT system_identifier, xid::text FROM sequencer_state")
        own = await raw.fetchval("SELECT system_identifier::text FROM pg_control_system()")
        assert state["system_identifier"] == own
        assert int(state["xid"]) < 8_000_000_000_000
        await raw.close()
        await scene.write(author, author.seal())
        assert await integrated(fresh) == 1
    assert await assert_logs_whole(fresh) == 17


async def forge(scene: Scene, author: Author, sealed: SealedAppend) -> None:
    """Append through the function, as somebody with the application's login and no key could."""
    forger = WriterKey(os.urandom(32), sealed.writer.writer_id)
    await scene.write(author, replace(sealed, writer=forger))


async def test_a_forged_batch_stops_its_run_alone_and_is_found_once(fresh: Roles) -> None:
    async with scene_on(fresh) as scene:
        victim, innocent = await scene.begun(), await scene.begun()
        await forge(scene, victim, victim.seal())
        await scene.write(victim, victim.seal())
        await scene.write(innocent, innocent.seal())
        assert await integrated(fresh) == 3
        await scene.write(victim, victim.seal())
        await scene.write(innocent, innocent.seal())
        assert await integrated(fresh) == 1
        raw = await connect(fresh.superuser)
        found = await raw.fetch("SELECT run_id, seq, reason FROM left_out")
        await raw.close()
    assert [tuple(row) for row in found] == [
        (victim.run_id, 1, "the signature of a batch does not hold")
    ]
    assert await assert_logs_whole(fresh, left_out=frozenset({victim.run_id})) == 4


async def test_a_writer_without_a_certificate_counts_for_nothing(fresh: Roles) -> None:
    async with scene_on(fresh) as scene:
        stranger = WriterKey(os.urandom(32), uuid4().bytes)
        await scene.runs.register_writer(
            UUID(bytes=stranger.writer_id), stranger.public_key, bytes(64)
        )
        author = Author(scene.tenant_id, RunId(uuid4()), stranger, os.urandom(32))
        await scene.write(author, author.seal(), author.new_run())
        assert await integrated(fresh) == 0
        assert await _reasons(fresh) == ["the writer of a batch is not certified"]


BATCH = "SELECT batch_id FROM record WHERE run_id = $1 AND seq = 2"
FIRST = "SELECT batch_id FROM record WHERE run_id = $1 AND seq = 1"


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (
            "DELETE FROM record WHERE run_id = $1 AND seq = 2",
            "the records of a batch are not those that its ranges name",
        ),
        (
            "UPDATE record SET chain = sha256(chain) WHERE run_id = $1 AND seq = 2",
            "the tip of a batch does not match its records",
        ),
        (
            f"UPDATE batch SET ranges = ''::bytea WHERE batch_id IN ({BATCH})",
            "the records of a batch are not those that its ranges name",
        ),
        (
            f"DELETE FROM batch WHERE batch_id IN ({BATCH})",
            "a record is missing or out of order",
        ),
    ],
)
async def test_what_was_changed_before_it_was_sequenced_is_left_out(
    fresh: Roles, attack: str, reason: str
) -> None:
    async with scene_on(fresh) as scene:
        author = await scene.begun()
        for _ in range(3):
            await scene.write(author, author.seal(step(), step()))
        raw = await connect(fresh.superuser)
        for table in ("record", "record_default", "batch"):
            await raw.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        await raw.execute(attack, author.run_id)
        await raw.close()
        await integrated(fresh)
        await integrated(fresh)
    assert reason in await _reasons(fresh)


@pytest.mark.parametrize(
    ("attack", "left_out", "reason"),
    [
        (
            "UPDATE record SET chain = sha256(chain) WHERE run_id = $1 AND seq = 1",
            1,
            "the entries of a batch do not match its records",
        ),
        (
            "DELETE FROM record WHERE run_id = $1 AND seq = 1",
            1,
            "the records of a batch are not those that its ranges name",
        ),
        (
            f"UPDATE batch SET entries = NULL WHERE batch_id IN ({FIRST})",
            4,
            "the records of a batch are not those that its ranges name",
        ),
        (
            f"UPDATE batch SET entries = sha256(entries) WHERE batch_id IN ({FIRST})",
            4,
            "the entries of a batch do not match its records",
        ),
    ],
)
async def test_of_a_shared_batch_only_what_was_changed_is_left_out(
    fresh: Roles, attack: str, left_out: int, reason: str
) -> None:
    async with scene_on(fresh) as scene:
        authors = [await scene.begun() for _ in range(4)]
        await asyncio.gather(*(scene.write(author, author.seal()) for author in authors))
        raw = await connect(fresh.superuser)
        for table in ("record", "record_default", "batch"):
            await raw.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        await raw.execute(attack, authors[0].run_id)
        await raw.close()
        assert await integrated(fresh) == 8 - left_out
        assert await _reasons(fresh) == [reason] * left_out


async def _reasons(roles: Roles) -> list[str]:
    raw: asyncpg.Connection = await connect(roles.superuser)
    rows = await raw.fetch("SELECT reason FROM left_out ORDER BY run_id")
    await raw.close()
    return [row["reason"] for row in rows]
