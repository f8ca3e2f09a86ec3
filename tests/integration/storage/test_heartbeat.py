"""The heartbeat: who is to be cancelled, and which runs nobody drives."""

from uuid import UUID, uuid4

import pytest

from app.domain.run import RunId, RunStatus
from app.storage.run_store import Beat
from tests.integration.storage.append_scene import Author, Scene, ending, scene_on
from tests.support.databases import Roles, connect

pytestmark = pytest.mark.anyio

_STALE_SECONDS = 15
_BLOCKED = RunStatus.BLOCKED


async def _beat(scene: Scene, *active: RunId) -> Beat:
    return await scene.runs.beat(UUID(bytes=scene.writer.writer_id), active, _STALE_SECONDS)


async def _silent_for(roles: Roles, scene: Scene, seconds: int) -> None:
    raw = await connect(roles.superuser)
    await raw.execute(
        "UPDATE writer_key SET seen_at = now() - make_interval(secs => $2) WHERE writer_id = $1",
        UUID(bytes=scene.writer.writer_id),
        seconds,
    )
    await raw.close()


async def _asked_to_cancel(scene: Scene, author: Author) -> None:
    await scene.runs.request_cancel(author.tenant_id, author.run_id, uuid4(), "key:somebody")


async def test_the_owner_and_nobody_else_hears_of_a_cancellation(roles: Roles) -> None:
    async with scene_on(roles) as scene, scene_on(roles) as other:
        author = await scene.begun()
        await _asked_to_cancel(other, author)
        assert (await _beat(other)).cancel == ()
        assert (await _beat(scene, author.run_id)).cancel == ((author.run_id, "key:somebody"),)


async def test_a_cancellation_is_told_again_until_the_run_is_over(roles: Roles) -> None:
    async with scene_on(roles) as scene:
        author = await scene.begun()
        await _asked_to_cancel(scene, author)
        for _ in range(3):
            assert len((await _beat(scene, author.run_id)).cancel) == 1
        batch = author.seal()
        await scene.write(author, batch, ending(author, batch, _BLOCKED))
        assert (await _beat(scene)).cancel == ()


async def test_a_process_that_was_silent_for_long_still_hears_of_it(roles: Roles) -> None:
    """The time that counts is its own last heartbeat's, not the command's age."""
    async with scene_on(roles) as scene:
        author = await scene.begun()
        await _asked_to_cancel(scene, author)
        raw = await connect(roles.superuser)
        await raw.execute("UPDATE run_command SET created_at = now() - interval '1 hour'")
        await raw.close()
        await _silent_for(roles, scene, 3600)
        assert len((await _beat(scene, author.run_id)).cancel) == 1


async def test_an_own_run_that_is_not_named_is_an_orphan_unless_it_is_over(roles: Roles) -> None:
    async with scene_on(roles) as scene:
        driven, lost, over = [await scene.begun() for _ in range(3)]
        batch = over.seal()
        await scene.write(over, batch, ending(over, batch, _BLOCKED))
        beat = await _beat(scene, driven.run_id)
        assert beat.orphans == ((lost.tenant_id, lost.run_id, 1),)
        assert beat.own == {lost.run_id}


async def test_a_heartbeat_that_names_no_runs_does_not_ask_about_its_own(roles: Roles) -> None:
    async with scene_on(roles) as scene:
        await scene.begun()
        writer_id = UUID(bytes=scene.writer.writer_id)
        assert (await scene.runs.beat(writer_id, None, _STALE_SECONDS)).orphans == ()
        assert len((await scene.runs.beat(writer_id, (), _STALE_SECONDS)).orphans) == 1


async def test_open_runs_of_a_silent_process_are_orphans_to_every_other(roles: Roles) -> None:
    async with scene_on(roles) as scene, scene_on(roles) as other:
        author = await scene.begun()
        assert (await _beat(other)).orphans == ()
        await _silent_for(roles, scene, _STALE_SECONDS + 1)
        assert (await _beat(other)).orphans == ((author.tenant_id, author.run_id, 1),)
        await _beat(scene, author.run_id)
        assert (await _beat(other)).orphans == ()


async def test_runs_of_a_process_that_said_goodbye_are_orphans_at_once(roles: Roles) -> None:
    async with scene_on(roles) as scene, scene_on(roles) as other:
        author = await scene.begun()
        await scene.runs.leave(UUID(bytes=scene.writer.writer_id))
        beat = await _beat(other)
        assert (author.tenant_id, author.run_id, 1) in beat.orphans
        assert beat.own == frozenset()


async def test_a_process_that_was_silent_itself_does_not_judge_the_others_at_that_beat(
    roles: Roles,
) -> None:
    """After an outage of the database whoever comes back first would take everything."""
    async with scene_on(roles) as scene, scene_on(roles) as other:
        author = await scene.begun()
        for one in (scene, other):
            await _silent_for(roles, one, _STALE_SECONDS + 1)
        assert (await _beat(other)).orphans == ()
        assert (author.tenant_id, author.run_id, 1) in (await _beat(other)).orphans


async def test_wishes_to_cancel_are_heard_between_heartbeats_by_the_owner_alone(
    roles: Roles,
) -> None:
    async with scene_on(roles) as scene, scene_on(roles) as other:
        author = await scene.begun()
        await _asked_to_cancel(other, author)
        assert await other.runs.hear(UUID(bytes=other.writer.writer_id)) == ()
        heard = await scene.runs.hear(UUID(bytes=scene.writer.writer_id))
        assert heard == ((author.run_id, "key:somebody"),)
