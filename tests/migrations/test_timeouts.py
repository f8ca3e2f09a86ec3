"""How long a role may keep the database busy is the role's own, whatever a connection says."""

import asyncio

import pytest

from app.storage import schema
from tests.support.databases import DatabaseServer, connect

pytestmark = pytest.mark.anyio

NAMES = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")


async def shown(url: str, *names: str) -> list[str]:
    connection = await connect(url)
    try:
        return [await connection.fetchval(f"SHOW {name}") for name in names]
    finally:
        await connection.close()


async def test_a_bare_login_has_the_timeouts_of_its_role(postgres: DatabaseServer) -> None:
    roles = await asyncio.to_thread(lambda: postgres.new_database(migrated=False))
    await schema.upgrade(roles.owner)
    assert await shown(roles.app, *NAMES) == ["5s", "2s", "10s"]
    assert await shown(roles.sequencer, *NAMES) == ["5s", "2s", "10s"]
    assert await shown(roles.audit, *NAMES) == ["5s", "2s", "10s"]
    assert await shown(roles.eraser, *NAMES) == ["10min", "2s", "10s"]
    (version,) = await shown(roles.app, "server_version_num")
    if int(version) >= 170_000:
        assert await shown(roles.app, "transaction_timeout") == ["1min"]
    await schema.downgrade(roles.owner, "0007")
    assert await shown(roles.app, *NAMES) == ["0", "0", "0"]
