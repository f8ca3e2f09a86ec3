"""A wish to cancel that meets a run while it parks is heard, whoever drove it."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.domain.run import RunId, RunStatus, Usage
from app.storage.companions import Change, QueuePark
from app.storage.run_queue import RunQueue
from tests.integration.storage.append_scene import AT, Author, Scene, scene_on
from tests.integration.storage.test_run_queue import Worker
from tests.support.databases import DatabaseServer, Roles, connect

pytestmark = pytest.mark.anyio

MINUTE = timedelta(minutes=1)
PARKED = Change(status=RunStatus.AWAITING_APPROVAL, usage=Usage())
RUNNING = Change(status=RunStatus.RUNNING, usage=Usage())


@pytest.fixture
async def fresh(postgres: DatabaseServer) -> Roles:
    return await asyncio.to_thread(postgres.new_database)


def _worker(scene: Scene) -> Worker:
    return Worker(scene=scene, queue=RunQueue(scene.database, UUID(bytes=scene.writer.writer_id)))


async def _wish(raw: asyncpg.Connection, author: Author, minutes: int) -> None:
    """As a process leaves it that finds the run under way: its place is not touched."""
    await raw.execute(
        "INSERT INTO run_command (tenant_id, run_id, command_id, command, actor, created_at)"
        " VALUES ($1, $2, $3, 'cancel', 'key:0', now() - make_interval(mins => $4))",
        author.tenant_id,
        author.run_id,
        uuid4(),
        minutes,
    )


async def _claimed(one: Worker) -> list[RunId]:
    return await one.claim()


async def test_a_run_that_parks_after_the_wish_is_due_at_once(fresh: Roles) -> None:
    async with scene_on(fresh) as scene:
        one = _worker(scene)
        author, other = await one.waiting(worker=one.id), await one.waiting(worker=one.id)
        raw = await connect(fresh.superuser)
        await _wish(raw, author, 60)
        await raw.close()
        park = QueuePark(until=AT.replace(year=2100))
        for parking in (author, other):
            await scene.write(parking, parking.seal(), RUNNING, PARKED, park)
        assert await _claimed(one) == [author.run_id]


async def test_a_wish_that_comes_while_a_run_parks_is_heard_by_whoever_beats(fresh: Roles) -> None:
    async with scene_on(fresh) as scene:
        one = _worker(scene)
        author, other = await one.waiting(worker=one.id), await one.waiting(worker=one.id)
        park = QueuePark(until=AT.replace(year=2100))
        for parking in (author, other):
            await scene.write(parking, parking.seal(), RUNNING, PARKED, park)
        raw = await connect(fresh.superuser)
        await _wish(raw, author, 0)
        assert await one.queue.hear_the_parked(MINUTE) == 1
        assert await _claimed(one) == [author.run_id]
        await _wish(raw, other, 60)
        await raw.close()
        assert await one.queue.hear_the_parked(MINUTE) == 0
        assert await one.queue.hear_the_parked(None) == 1
        assert await _claimed(one) == [other.run_id]
