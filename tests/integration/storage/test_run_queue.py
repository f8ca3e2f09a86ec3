"""The queue of runs: as pgqueuer makes it, changed with records, claimed once, and given back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import pytest
from pgqueuer.adapters.persistence.schema_ddl import render_install

from app.domain.errors import LedgerUnavailableError, StaleEpochError
from app.domain.run import RunId, RunStatus, TenantId, Usage
from app.storage.companions import Change, Claim, QueuePark, QueuePut, QueueWake
from app.storage.run_queue import NAMES, Claimed, ClaimRules, RunQueue
from tests.integration.storage.append_scene import AT, Author, Scene, ending, scene_on
from tests.migrations.catalogue import schema_dump
from tests.support.databases import DatabaseServer, Roles, connect

pytestmark = pytest.mark.anyio

LEASE = timedelta(seconds=30)


async def _no_cap(_: TenantId) -> int:
    return 0


def rules(
    most: int = 10,
    *,
    cap: Callable[[TenantId], Awaitable[int]] = _no_cap,
    everywhere: int = 0,
    judges: bool = True,
) -> ClaimRules:
    return ClaimRules(
        most=most, most_of_tenant=cap, most_everywhere=everywhere, lease=LEASE, judges=judges
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A process with its own view of the queue."""

    scene: Scene
    queue: RunQueue

    @property
    def id(self) -> UUID:
        return UUID(bytes=self.scene.writer.writer_id)

    async def waiting(self, *, worker: UUID | None = None) -> Author:
        author = self.scene.author()
        put = QueuePut(worker=worker)
        await self.scene.write(author, author.seal(), author.new_run(), put)
        return author

    async def claim(self, most: int = 10, **said: object) -> list[RunId]:
        found = await self.queue.claim(rules(most, **said))  # type: ignore[arg-type]  # named above
        return [claimed.run_id for claimed in found]


@pytest.fixture
async def fresh(postgres: DatabaseServer) -> Roles:
    return await asyncio.to_thread(postgres.new_database)


@pytest.fixture
async def one(fresh: Roles) -> AsyncIterator[Worker]:
    async with scene_on(fresh) as scene:
        queue = RunQueue(scene.database, UUID(bytes=scene.writer.writer_id))
        yield Worker(scene=scene, queue=queue)


@pytest.fixture
async def two(fresh: Roles) -> AsyncIterator[Worker]:
    async with scene_on(fresh) as scene:
        queue = RunQueue(scene.database, UUID(bytes=scene.writer.writer_id))
        yield Worker(scene=scene, queue=queue)


async def _changed(roles: Roles, statement: str, *arguments: object) -> None:
    raw = await connect(roles.superuser)
    await raw.execute(statement, *arguments)
    await raw.close()


async def _places(roles: Roles) -> int:
    raw = await connect(roles.superuser)
    found: int = await raw.fetchval("SELECT count(*) FROM pgqueuer")
    await raw.close()
    return found


async def _silent(roles: Roles) -> None:
    await _changed(roles, "UPDATE pgqueuer SET heartbeat = now() - interval '1 hour'")


async def test_the_migrated_tables_are_those_that_this_version_of_pgqueuer_makes(
    fresh: Roles, postgres: DatabaseServer
) -> None:
    """An update of the package that changes them fails here, and needs a migration."""
    bare = await asyncio.to_thread(lambda: postgres.new_database(migrated=False))
    raw = await connect(bare.owner)
    await raw.execute(render_install(NAMES, create_schema=False))
    await raw.close()
    ours, theirs = await schema_dump(fresh.superuser), await schema_dump(bare.superuser)
    for part in ("columns", "constraints", "indexes"):
        mine = [line for line in ours[part] if "pgqueuer" in line.split(",")[0]]
        assert mine == [line for line in theirs[part] if "alembic" not in line], part
    labels = "SELECT enumlabel FROM pg_enum ORDER BY enumsortorder"
    told = []
    for url in (fresh.superuser, bare.superuser):
        raw = await connect(url)
        told.append([row[0] for row in await raw.fetch(labels)])
        await raw.close()
    assert told[0] == told[1] != []
    assert not any(
        "pgqueuer" in line for line in (*ours["triggers"], *ours["functions"]) if "fn_" in line
    )
    assert any("tg_pgqueuer" in line for line in theirs["triggers"]), "the comparison sees nothing"


def test_no_word_of_the_environment_names_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """pgqueuer takes names from plain words such as CHANNEL, which others use, too."""
    before = NAMES.model_dump()
    for word in (*before, *(f"PGQUEUER_{name}" for name in before), "PGQUEUER_SCHEMA"):
        monkeypatch.setenv(word.upper(), "elsewhere")
    assert type(NAMES)(**before).model_dump() == before


async def test_a_run_that_waits_is_claimed_once(one: Worker, two: Worker) -> None:
    authors = [await one.waiting() for _ in range(12)]
    claims = await asyncio.gather(*(worker.claim(3) for worker in (one, two) * 4))
    found = [run_id for claimed in claims for run_id in claimed]
    assert sorted(found) == sorted(author.run_id for author in authors)
    assert await one.claim() == []


async def test_a_run_that_begins_where_it_was_let_in_is_nobody_elses(
    fresh: Roles, one: Worker, two: Worker
) -> None:
    author = await one.waiting(worker=one.id)
    assert await two.claim() == []
    assert await one.queue.beat([author.run_id]) == set()
    await _silent(fresh)
    assert await two.claim(judges=False) == []
    assert await two.claim() == [author.run_id]
    assert await one.queue.beat([author.run_id]) == {author.run_id}
    assert await two.queue.beat([author.run_id]) == set()


async def test_who_lost_a_run_can_neither_give_it_back_nor_drop_it(
    fresh: Roles, one: Worker, two: Worker
) -> None:
    author = await one.waiting(worker=one.id)
    await _silent(fresh)
    await two.claim()
    await one.queue.give_back([(author.run_id, 0.0)])
    await one.queue.drop(author.run_id)
    await one.queue.leave()
    assert await two.queue.beat([author.run_id]) == set()


async def test_a_run_that_was_given_back_is_due_later_and_tells_how_often_it_was(
    fresh: Roles, one: Worker, two: Worker
) -> None:
    author = await one.waiting(worker=one.id)
    await one.queue.give_back([(author.run_id, 3600.0)])
    assert await two.claim() == []
    await _changed(fresh, "UPDATE pgqueuer SET execute_after = now() - interval '1 second'")
    told = await two.queue.claim(rules())
    expected = Claimed(tenant_id=author.tenant_id, run_id=author.run_id, attempts=1)
    assert told == [expected]


async def test_a_worker_that_leaves_gives_all_back_at_once(one: Worker, two: Worker) -> None:
    authors = [await one.waiting(worker=one.id) for _ in range(3)]
    await one.queue.leave()
    assert sorted(await two.claim()) == sorted(author.run_id for author in authors)


async def test_with_its_last_record_a_run_has_no_place_any_more(fresh: Roles, one: Worker) -> None:
    author = await one.waiting(worker=one.id)
    batch = author.seal()
    await one.scene.write(author, batch, ending(author, batch, RunStatus.BLOCKED))
    assert await _places(fresh) == 0


async def test_a_record_that_is_refused_leaves_the_queue_as_it_was(
    fresh: Roles, one: Worker, two: Worker
) -> None:
    author = await one.waiting(worker=one.id)
    stale = author.seal()
    end = ending(author, stale, RunStatus.BLOCKED)
    author.epoch = 2
    batch = author.seal()
    await two.scene.write(author, batch, Claim(from_epoch=1))
    with pytest.raises(StaleEpochError):
        await one.scene.write(author, stale, end)
    assert await _places(fresh) == 1


async def test_the_queue_is_not_changed_without_records(fresh: Roles, one: Worker) -> None:
    author = await one.waiting()
    raw = await connect(fresh.app)
    told = f'[{{"op": "run.change", "run_id": "{author.run_id}", "finished_at": "x"}}]'
    with pytest.raises(Exception, match="the records are not there"):
        await raw.execute("SELECT queue_keep($1, gen_random_uuid(), $2)", author.tenant_id, told)
    await raw.close()


async def test_a_parked_run_is_nobodys_until_it_is_woken(one: Worker, two: Worker) -> None:
    author = await one.waiting(worker=one.id)
    running = Change(status=RunStatus.RUNNING, usage=Usage())
    parked = Change(status=RunStatus.AWAITING_APPROVAL, usage=Usage())
    until = AT.replace(year=AT.year + 50)
    await one.scene.write(author, author.seal(), running, parked, QueuePark(until=until))
    assert await one.queue.beat([author.run_id]) == {author.run_id}
    assert await two.claim() == []
    author.epoch = 2
    await two.scene.write(author, author.seal(), Claim(from_epoch=1), QueueWake())
    assert await two.claim() == [author.run_id]


async def test_a_parked_run_is_due_when_its_time_is_over(one: Worker, two: Worker) -> None:
    author = await one.waiting(worker=one.id)
    running = Change(status=RunStatus.RUNNING, usage=Usage())
    parked = Change(status=RunStatus.AWAITING_APPROVAL, usage=Usage())
    past = AT.replace(year=2020)
    await one.scene.write(author, author.seal(), running, parked, QueuePark(until=past))
    assert await two.claim() == [author.run_id]


async def test_a_wish_to_cancel_makes_a_parked_run_due(one: Worker, two: Worker) -> None:
    author = await one.waiting(worker=one.id)
    running = Change(status=RunStatus.RUNNING, usage=Usage())
    parked = Change(status=RunStatus.AWAITING_APPROVAL, usage=Usage())
    until = AT.replace(year=AT.year + 50)
    await one.scene.write(author, author.seal(), running, parked, QueuePark(until=until))
    assert await two.scene.runs.request_stop(author.tenant_id, None, "key:somebody") == 1
    assert await two.claim() == [author.run_id]


async def test_a_tenant_has_no_more_runs_under_way_than_its_cap_whoever_claims(
    one: Worker, two: Worker
) -> None:
    async def cap(_: TenantId) -> int:
        return 3

    for _ in range(9):
        await one.waiting()
    claims = await asyncio.gather(*(worker.claim(4, cap=cap) for worker in (one, two) * 4))
    found = [run_id for claimed in claims for run_id in claimed]
    found += await one.claim(4, cap=cap)  # whoever lost the race for a slot comes again
    assert len(found) == 3
    await one.queue.leave()
    await two.queue.leave()
    assert len(await two.claim(9, cap=cap)) == 3


async def test_a_deployment_has_no_more_runs_under_way_than_its_cap_whoever_claims(
    fresh: Roles, one: Worker, two: Worker
) -> None:
    for _ in range(9):
        await one.waiting()
    claims = await asyncio.gather(*(worker.claim(4, everywhere=5) for worker in (one, two) * 4))
    assert sum(map(len, claims)) == 5
    await _silent(fresh)  # those of silent workers are not under way: they are taken over
    assert len(await two.claim(9, everywhere=5)) == 5


async def test_a_tenant_that_asked_for_much_does_not_keep_the_others_waiting(
    fresh: Roles, one: Worker
) -> None:
    many = [await one.waiting() for _ in range(10)]
    async with scene_on(fresh, tenant="other") as scene:
        other = Worker(scene=scene, queue=RunQueue(scene.database, one.id))
        few = [await other.waiting() for _ in range(2)]
    first = await one.claim(4)
    assert {author.run_id for author in few} < set(first)
    assert len(first) == 4
    assert len(await one.claim(10)) == len(many) - 2


async def test_single_places_go_to_one_tenant_after_the_other(fresh: Roles, one: Worker) -> None:
    mine = {(await one.waiting()).run_id for _ in range(4)}
    async with scene_on(fresh, tenant="other") as scene:
        other = Worker(scene=scene, queue=RunQueue(scene.database, one.id))
        theirs = {(await other.waiting()).run_id for _ in range(4)}
    claimed = [(await one.claim(1))[0] for _ in range(8)]
    turns = [run_id in mine for run_id in claimed]
    assert turns in ([True, False] * 4, [False, True] * 4)
    assert set(claimed) == mine | theirs


async def test_an_open_run_without_a_place_is_given_one_when_its_process_is_gone(
    one: Worker, two: Worker
) -> None:
    author, over = await one.scene.begun(), await one.scene.begun()
    batch = over.seal()
    await one.scene.write(over, batch, ending(over, batch, RunStatus.BLOCKED))
    assert await two.queue.mend(3600) == 0
    await one.scene.runs.leave(one.id)
    assert await two.queue.mend(3600) == 1
    assert await two.queue.mend(3600) == 0
    assert await two.claim() == [author.run_id]


async def test_what_pgqueuer_notes_is_kept_for_a_time(fresh: Roles, one: Worker) -> None:
    for _ in range(3):
        await one.waiting()
    assert len(await one.claim()) == 3
    raw = await connect(fresh.superuser)
    await raw.execute(
        "INSERT INTO pgqueuer_statistics (created, count, priority, status, entrypoint)"
        " VALUES (now() - interval '2 hours', 1, 0, 'picked', 'run:')"
    )
    assert await raw.fetchval("SELECT count(*) FROM pgqueuer_log") == 3
    await raw.execute(
        "UPDATE pgqueuer_log SET created = now() - interval '2 hours'"
        " WHERE id IN (SELECT id FROM pgqueuer_log LIMIT 2)"
    )
    assert await one.queue.trim(timedelta(hours=1)) == 3
    assert await raw.fetchval("SELECT count(*) FROM pgqueuer_log") == 1
    assert await raw.fetchval("SELECT count(*) FROM pgqueuer") == 3
    await raw.close()


async def test_who_rings_is_heard_elsewhere_and_a_lost_connection_is_told(
    fresh: Roles, one: Worker, two: Worker
) -> None:
    heard = asyncio.Event()
    listening = asyncio.create_task(two.queue.listen(heard.set))
    async with asyncio.timeout(60):
        await heard.wait()  # it listens
        heard.clear()
        await one.queue.ring()
        await heard.wait()
        await _changed(
            fresh,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN%'",
        )
        with pytest.raises(LedgerUnavailableError):
            await listening
