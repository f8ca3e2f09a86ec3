"""kill -9 of the sequencer at any point leaves no gap, nothing twice, and the right root."""

import asyncio
import random  # noqa: TID251 - when to kill: seeded, not secret
import sys

import pytest

from tests.integration.sequencing.log_scene import assert_logs_whole, integrated
from tests.integration.storage.append_scene import Scene, scene_on, step
from tests.support.databases import DatabaseServer, Roles

pytestmark = pytest.mark.anyio
KILLS = 8
PROCESS = "tests.integration.sequencing.sequencer_process"


async def _kill_some(roles: Roles) -> None:
    chance = random.Random(20261125)
    for _ in range(KILLS):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            PROCESS,
            roles.app,
            roles.sequencer,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"leads\n"
        await asyncio.sleep(chance.uniform(0, 0.15))
        process.kill()
        await process.wait()


async def test_a_sequencer_killed_at_random_points_leaves_its_logs_whole(
    postgres: DatabaseServer,
) -> None:
    roles = await asyncio.to_thread(postgres.new_database)
    written = 0
    async with scene_on(roles, pool_size=4) as scene:

        async def write(process: Scene) -> None:
            nonlocal written
            while not killing.done():
                author = await process.begun()
                await process.write(author, author.seal(*[step()] * 40))
                written += 41

        killing = asyncio.create_task(_kill_some(roles))
        await asyncio.gather(killing, *(write(scene) for _ in range(3)))
    await integrated(roles)
    assert await assert_logs_whole(roles) == written
    assert written > 0
