"""Sixteen processes append to one run and are killed at any moment: no fork, nothing said is lost.

MESHFLOW_PROOF=1 raises the number of rounds.
"""

import asyncio
import os
import random  # noqa: TID251 - the moments of the kills: seeded, not secret
import signal
import sys

import pytest

from tests.integration.storage.append_scene import Author, scene_on, seqs
from tests.support.databases import Roles

pytestmark = pytest.mark.anyio

ROUNDS = 12 if os.getenv("MESHFLOW_PROOF") == "1" else 1
PROCESSES = 16
MORE_THAN_IT_LIVES_FOR = 1_000_000


async def _start(roles: Roles, author: Author) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.storage.rival_process",
        roles.app,
        str(author.run_id),
        author.run_key.hex(),
        str(MORE_THAN_IT_LIVES_FOR),
        stdout=asyncio.subprocess.PIPE,
    )


async def _heard_until_killed(process: asyncio.subprocess.Process, wait: float) -> list[str]:
    """What a writer was told is durable, up to its death at some moment of its work."""
    assert process.stdout is not None
    first = await process.stdout.readline()
    await asyncio.sleep(wait)
    process.send_signal(signal.SIGKILL)
    rest = await process.stdout.read()
    assert await process.wait() == -signal.SIGKILL
    return [line for line in (first + rest).decode().splitlines() if len(line) == 64]


async def test_sixteen_killed_processes_fork_nothing_and_lose_nothing_acknowledged(
    roles: Roles,
) -> None:
    dice = random.Random("sixteen")
    async with scene_on(roles) as scene:
        author = await scene.begun()
        acknowledged: list[str] = []
        for _ in range(ROUNDS):
            started = [await _start(roles, author) for _ in range(PROCESSES)]
            heard = await asyncio.gather(
                *(_heard_until_killed(process, dice.random() * 0.5) for process in started)
            )
            acknowledged += [line for lines in heard for line in lines]
        chain = await scene.verified(author)
        kept = [record.chain.hex() for record in chain.records]
        print(f"{ROUNDS * PROCESSES} kills, {len(acknowledged)} acknowledged, {len(kept)} kept")
        assert seqs(chain) == list(range(len(kept)))
        assert len(acknowledged) == len(set(acknowledged)) >= ROUNDS * PROCESSES
        assert set(acknowledged) <= set(kept)
        # Whoever was killed had at most one append under way.
        assert len(kept) - 1 - len(acknowledged) <= ROUNDS * PROCESSES
