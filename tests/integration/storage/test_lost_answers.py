"""An append whose answer is lost is written once: acknowledged later and never doubled."""

import asyncio
import os
import random  # noqa: TID251 - the moments of the kills: seeded, not secret
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from app.domain.errors import LedgerUnavailableError, StaleEpochError
from app.domain.idempotency import KeyClaim, Outcome
from app.domain.run import RunStatus
from app.embedded.postgres_server import start_embedded_postgres
from app.storage import schema
from app.storage.companions import TakenKey
from app.storage.idempotency_store import IdempotencyStore
from tests.integration.storage.append_scene import (
    Scene,
    count,
    ending,
    scene_on,
    seqs,
    step,
)
from tests.integration.storage.cutting_proxy import CuttingProxy, proxied
from tests.support.databases import Roles, connect, state_directory

pytestmark = pytest.mark.anyio


@pytest.fixture
def socket_dir() -> Iterator[Path]:
    """Short: a socket's path may have some hundred bytes only."""
    directory = Path(tempfile.mkdtemp(prefix="mf-"))
    yield directory
    shutil.rmtree(directory)


@asynccontextmanager
async def behind_a_proxy(
    roles: Roles, directory: Path
) -> AsyncIterator[tuple[CuttingProxy, Scene]]:
    async with (
        proxied(roles.app, directory) as (proxy, url),
        scene_on(replace(roles, app=url)) as scene,
    ):
        yield proxy, scene


async def _once(roles: Roles, run_id: object, records: int) -> None:
    connection = await connect(roles.superuser)
    found = await connection.fetchrow(
        "SELECT count(*) AS records, count(DISTINCT batch_id) AS batches FROM record"
        " WHERE run_id = $1",
        run_id,
    )
    await connection.close()
    assert tuple(found) == (records, records)


async def test_an_answer_lost_on_the_way_is_found_in_the_database(
    roles: Roles, socket_dir: Path
) -> None:
    async with behind_a_proxy(roles, socket_dir) as (proxy, scene):
        author = await scene.begun()
        for number in range(1, 25):
            batch = author.seal()
            proxy.marker = batch.records[-1].chain
            await scene.write(author, batch)
            assert proxy.cuts == number, "nothing was cut"
        assert seqs(await scene.verified(author)) == list(range(25))
        await _once(roles, author.run_id, 25)


async def test_a_lost_first_record_has_taken_its_key_once(roles: Roles, socket_dir: Path) -> None:
    """The repeat meets its own key, and knows that it is its own."""
    async with behind_a_proxy(roles, socket_dir) as (proxy, scene):
        for number in range(1, 11):
            author = scene.author()
            batch = author.seal()
            proxy.marker = batch.records[-1].chain
            claim = KeyClaim(keys=(os.urandom(32),), requests=(os.urandom(32),))
            taken = TakenKey(claim=claim, status=202)
            await scene.write(author, batch, author.new_run(), taken)
            assert proxy.cuts == number, "nothing was cut"
            stored = await IdempotencyStore(scene.database).find(author.tenant_id, claim)
            assert stored is not None
            assert stored.outcome == Outcome(status=202, run_id=author.run_id)


async def test_a_lost_final_record_ends_the_run_once(roles: Roles, socket_dir: Path) -> None:
    """The repeat meets a state that the first attempt has made terminal."""
    async with behind_a_proxy(roles, socket_dir) as (proxy, scene):
        for _ in range(10):
            author = await scene.begun(RunStatus.RUNNING)
            batch = author.seal(step("run.finished"))
            proxy.marker = batch.records[-1].chain
            await scene.write(author, batch, ending(author, batch))
            await _once(roles, author.run_id, 2)
        assert proxy.cuts == 10


async def _waiting(watcher: asyncpg.Connection, how_many: int) -> None:
    """Return when so many backends wait for the lock on `batch`."""
    query = "SELECT count(*) FROM pg_locks WHERE relation = 'batch'::regclass AND NOT granted"
    async with asyncio.timeout(20):
        while await watcher.fetchval(query) < how_many:  # noqa: ASYNC110 - Postgres sends no event
            await asyncio.sleep(0.005)


async def test_a_first_attempt_that_commits_during_the_second_counts(
    roles: Roles, socket_dir: Path
) -> None:
    """Both attempts are in the database at once; the second is refused for the first's sake."""
    watcher, holder = await connect(roles.superuser), await connect(roles.superuser)
    async with behind_a_proxy(roles, socket_dir) as (proxy, scene):
        for _ in range(5):
            author = await scene.begun()
            batch = author.seal()
            proxy.marker = batch.records[-1].chain
            lock = holder.transaction()
            await lock.start()
            await holder.execute("LOCK TABLE batch IN SHARE MODE")
            writing = asyncio.create_task(scene.write(author, batch))
            await _waiting(watcher, 2)
            await lock.rollback()
            await writing
            await _once(roles, author.run_id, 2)
    await watcher.close()
    await holder.close()


async def test_somebody_elses_record_is_not_taken_for_the_lost_one(
    roles: Roles, socket_dir: Path
) -> None:
    async with behind_a_proxy(roles, socket_dir) as (proxy, scene), scene_on(roles) as other:
        author = await scene.begun()
        rival = other.author(author.run_id, author.run_key)
        rival.head = author.head
        await other.write(rival, rival.seal())
        batch = author.seal()
        proxy.marker = batch.records[-1].chain
        with pytest.raises(StaleEpochError):
            await scene.write(author, batch)
        await _once(roles, author.run_id, 2)


async def test_a_backend_killed_at_any_moment_loses_and_doubles_nothing(roles: Roles) -> None:
    """Kills fall before, in and after the commit; who is not answered repeats the same batch."""
    dice = random.Random("killed")
    killer = await connect(roles.superuser)
    kills = 0

    async def kill_until(done: asyncio.Event) -> None:
        nonlocal kills
        while not done.is_set():
            await asyncio.sleep(dice.random() * 0.02)
            kills += await killer.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE usename = 'mf_app' AND datname = current_database()"
                " AND query LIKE '%ledger_append%'"
            )

    async with scene_on(roles) as scene:
        author = await scene.begun()
        done = asyncio.Event()
        killing = asyncio.create_task(kill_until(done))
        unanswered = appended = 0
        # A fast machine appends much between two kills: the kills decide when it is enough.
        while kills <= 20 and appended < 20_000:
            appended += 1
            batch = author.seal()
            while True:
                try:
                    await scene.write(author, batch)
                except LedgerUnavailableError:
                    unanswered += 1
                    continue
                break
        done.set()
        await killing
        await killer.close()
        print(f"{kills} kills, {unanswered} of {appended} appends without an answer")
        assert kills > 20
    async with scene_on(roles) as reader:  # the last kill may still be on its way to the old pool
        assert seqs(await reader.verified(author)) == list(range(appended + 1))
        await _once(roles, author.run_id, appended + 1)


async def test_connections_that_died_while_nobody_used_them_fail_nobody(roles: Roles) -> None:
    """As after a restart of the server: neither reads nor appends are the ones to find out."""
    killer = await connect(roles.superuser)
    async with scene_on(roles, pool_size=8) as scene:
        authors = await asyncio.gather(*(scene.begun() for _ in range(8)))
        async with AsyncExitStack() as stack:
            pooled = [await stack.enter_async_context(scene.database.driver()) for _ in range(8)]
        for raw in pooled:
            await killer.execute("SELECT pg_terminate_backend($1)", raw.get_server_pid())
        async with asyncio.timeout(20):
            while not all(r.is_closed() for r in pooled):  # noqa: ASYNC110 - no event to wait for
                await asyncio.sleep(0.005)
        await asyncio.gather(*(scene.verified(author) for author in authors[:4]))
        await asyncio.gather(*(scene.write(author, author.seal()) for author in authors))
        for author in authors:
            assert seqs(await scene.verified(author)) == [0, 1]
    await killer.close()


async def test_without_a_database_nothing_is_acknowledged_and_it_comes_back() -> None:
    state = await asyncio.to_thread(state_directory)
    server = await asyncio.to_thread(lambda: start_embedded_postgres(state, durable=False))
    try:
        await schema.upgrade(server.owner_url)
        roles = Roles(
            app=server.app_url,
            owner=server.owner_url,
            audit=server.audit_url,
            superuser=server.superuser_url(),
        )
        async with scene_on(roles) as scene:
            author = await scene.begun()
            await asyncio.to_thread(server.stop)
            batch = author.seal()
            for _ in range(3):
                with pytest.raises(LedgerUnavailableError):
                    await scene.write(author, batch)
            with pytest.raises(LedgerUnavailableError):
                await scene.stored(author)
            server = await asyncio.to_thread(lambda: start_embedded_postgres(state, durable=False))
            await scene.write(author, batch)
            assert seqs(await scene.verified(author)) == [0, 1]
    finally:
        await asyncio.to_thread(server.stop)
        shutil.rmtree(state)


async def test_a_lock_that_nobody_releases_is_an_error_and_not_a_wait(roles: Roles) -> None:
    """Bounded by the session's lock timeout; afterwards the same batch goes in."""
    holder = await connect(roles.superuser)
    async with scene_on(roles) as scene:
        author = await scene.begun()
        batch = author.seal()
        async with holder.transaction():
            await holder.execute("LOCK TABLE batch IN SHARE MODE")
            async with asyncio.timeout(30):
                with pytest.raises(Exception, match="55P03"):
                    await scene.write(author, batch)
            assert await count(holder, "record", author.run_id) == 1
        await scene.write(author, batch)
        assert seqs(await scene.verified(author)) == [0, 1]
    await holder.close()
