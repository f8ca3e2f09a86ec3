"""The keeper outlives its database: after a crash of the server it goes on where that left off."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from app.domain.errors import LedgerError
from app.sequencing.anchor_file import AnchorFile
from tests.integration.sequencing.keeper_scene import eventually, exists, watch_on
from tests.integration.sequencing.log_scene import PATIENCE_SECONDS, assert_logs_whole, integrated
from tests.support.databases import Roles, connect, durable_database

pytestmark = pytest.mark.anyio


@pytest.fixture
def own() -> Iterator[Roles]:
    """A server that may crash without harm to other tests."""
    with durable_database() as roles:
        yield roles


async def test_a_crash_of_the_database_ends_no_keeper(own: Roles, tmp_path: Path) -> None:
    anchor = AnchorFile(tmp_path / "anchor")
    in_log = "SELECT 1 FROM leaf WHERE run_id = $1"
    async with watch_on(own, tmp_path, [anchor]) as watch, watch.running():
        author = await watch.scene.begun()
        await eventually(exists(in_log, author.run_id), own)
        raw = await connect(own.superuser)
        victim = await raw.fetchval(
            "SELECT pid FROM pg_stat_activity WHERE usename = 'mf_sequencer' LIMIT 1"
        )
        await raw.close()
        # Postgres ends every session and recovers when one of its processes dies like this.
        os.kill(victim, signal.SIGKILL)
        late = None
        async with asyncio.timeout(PATIENCE_SECONDS):
            while late is None:
                try:
                    late = await watch.scene.begun()
                except LedgerError:
                    await asyncio.sleep(0)
        await eventually_again(in_log, late.run_id, own)
    await integrated(own)
    assert await assert_logs_whole(own) >= 2


async def eventually_again(query: str, argument: object, roles: Roles) -> None:
    """As `eventually`, from a server that may still refuse sessions."""
    async with asyncio.timeout(PATIENCE_SECONDS):  # a TimeoutError is an OSError too
        while True:
            try:
                await eventually(exists(query, argument), roles)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                continue
            return
