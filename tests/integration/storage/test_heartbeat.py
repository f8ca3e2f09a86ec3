"""The heartbeat: which runs of a process are to be cancelled."""

from uuid import UUID, uuid4

import pytest

from app.domain.run import RunId, RunStatus
from tests.integration.storage.append_scene import Author, Scene, ending, scene_on
from tests.support.databases import Roles, connect

pytestmark = pytest.mark.anyio

_BLOCKED = RunStatus.BLOCKED


async def _beat(scene: Scene) -> tuple[tuple[RunId, str], ...]:
    return await scene.runs.beat(UUID(bytes=scene.writer.writer_id))


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
        assert await _beat(other) == ()
        assert await _beat(scene) == ((author.run_id, "key:somebody"),)


async def test_a_cancellation_is_told_again_until_the_run_is_over(roles: Roles) -> None:
    async with scene_on(roles) as scene:
        author = await scene.begun()
        await _asked_to_cancel(scene, author)
        for _ in range(3):
            assert len(await _beat(scene)) == 1
        batch = author.seal()
        await scene.write(author, batch, ending(author, batch, _BLOCKED))
        assert await _beat(scene) == ()


async def test_a_process_that_was_silent_for_long_still_hears_of_it(roles: Roles) -> None:
    """The time that counts is its own last heartbeat's, not the command's age."""
    async with scene_on(roles) as scene:
        author = await scene.begun()
        await _asked_to_cancel(scene, author)
        raw = await connect(roles.superuser)
        await raw.execute("UPDATE run_command SET created_at = now() - interval '1 hour'")
        await raw.close()
        await _silent_for(roles, scene, 3600)
        assert len(await _beat(scene)) == 1


async def test_wishes_to_cancel_are_heard_between_heartbeats_by_the_owner_alone(
    roles: Roles,
) -> None:
    async with scene_on(roles) as scene, scene_on(roles) as other:
        author = await scene.begun()
        await _asked_to_cancel(other, author)
        assert await other.runs.hear(UUID(bytes=other.writer.writer_id)) == ()
        heard = await scene.runs.hear(UUID(bytes=scene.writer.writer_id))
        assert heard == ((author.run_id, "key:somebody"),)
