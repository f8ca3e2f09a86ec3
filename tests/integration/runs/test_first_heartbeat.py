"""A process that has not said itself that it lives takes nothing from one that does not say so."""

import asyncio
from pathlib import Path
from uuid import UUID

import pytest

from app.main import _door
from app.storage.companions import QueuePut
from app.wiring import Overrides, build
from tests.integration.storage.append_scene import scene_on
from tests.support.databases import DatabaseServer, Roles, connect, execute
from tests.support.live_server import KEY_ITEMS, settings_for

pytestmark = pytest.mark.anyio


async def _holder(roles: Roles) -> UUID:
    raw = await connect(roles.superuser)
    found: UUID = await raw.fetchval("SELECT queue_manager_id FROM pgqueuer")
    await raw.close()
    return found


async def test_before_its_first_heartbeat_a_process_claims_no_run_of_a_silent_one(
    postgres: DatabaseServer, tmp_path: Path
) -> None:
    roles = await asyncio.to_thread(postgres.new_database)
    async with scene_on(roles) as scene:
        silent, author = UUID(bytes=scene.writer.writer_id), scene.author()
        await scene.write(author, author.seal(), author.new_run(), QueuePut(worker=silent))
    await execute(roles.superuser, "UPDATE pgqueuer SET heartbeat = now() - interval '1 hour'")
    settings = settings_for(tmp_path, roles)
    deployment = build(settings, _door(settings, KEY_ITEMS), Overrides())
    try:
        await deployment.start()
        await deployment.dispatcher._work()
        assert await _holder(roles) == silent
        await deployment.dispatcher._beat(asks=True)
        await deployment.dispatcher._work()
        assert await _holder(roles) == deployment.writer_id
    finally:
        await deployment.close()
