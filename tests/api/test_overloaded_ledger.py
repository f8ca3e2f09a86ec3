"""As many appends wait in a process as are allowed; one more task is told to come again.

The server runs on the loop of the test, so that the queue can be filled to one below its bound.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import httpx2
import pytest
import uvicorn
from fastapi import FastAPI

from app.domain.run import RunId, TenantId
from app.main import create_app
from app.runs.recorder import RecorderParts
from app.storage.group_commit import MOST_OUTSTANDING
from app.storage.ledger_store import Receipt
from tests.integration.storage.append_scene import Author
from tests.support.api_matrix import problem_of
from tests.support.databases import DatabaseServer, Roles, connect
from tests.support.live_server import KEYS, settings_for

pytestmark = pytest.mark.anyio
TASK = {"task": "6*7"}


@asynccontextmanager
async def served_here(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """The application on a loopback port, in this loop, and a client of it."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{listener.getsockname()[1]}",
            headers={"Authorization": f"Bearer {KEYS['acme']}"},
            timeout=60,
            trust_env=False,
        ) as client:
            yield client
    finally:
        server.should_exit = True
        await serving
        listener.close()


@asynccontextmanager
async def held_back(roles: Roles) -> AsyncIterator[asyncpg.Connection]:
    """No batch is written until the block ends."""
    raw = await connect(roles.superuser)
    try:
        await raw.execute("BEGIN; LOCK TABLE batch IN SHARE MODE")
        yield raw
    finally:
        await raw.close()


def _waiting(parts: RecorderParts) -> int:
    appender = parts.store._appender
    return len(appender._queue) + len(appender._in_flight)


async def _append(parts: RecorderParts, author: Author) -> Receipt:
    opened = [author.new_run()]
    return await parts.store.append(author.tenant_id, author.run_id, author.seal(), opened)


async def test_at_the_bound_a_task_is_taken_and_one_above_it_is_told_to_come_again(
    api_databases: DatabaseServer, tmp_path: Path
) -> None:
    roles = await asyncio.to_thread(api_databases.new_database)
    app = create_app(settings_for(tmp_path, roles))
    async with served_here(app) as client:
        first = await client.post("/v1/runs", json=TASK, headers={"Prefer": "wait=20"})
        assert first.status_code == 200, first.text
        parts: RecorderParts = app.state.services.runs._parts.recorder_parts
        tenant_id = TenantId(UUID(first.json()["receipt"]["log"]))
        authors = [
            Author(tenant_id, RunId(uuid4()), parts.writer, os.urandom(32))
            for _ in range(MOST_OUTSTANDING - 1)
        ]
        async with held_back(roles):
            filling = [asyncio.create_task(_append(parts, author)) for author in authors]
            last = asyncio.create_task(client.post("/v1/runs", json=TASK))
            while not last.done() and _waiting(parts) < MOST_OUTSTANDING:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0)
            refused = await client.post("/v1/runs", json=TASK)
            assert not last.done()
        problem_of(refused, 503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert (await last).status_code == 202
        done = await asyncio.gather(*filling)
        assert [type(told) for told in done] == [Receipt] * (MOST_OUTSTANDING - 1)
        again = await client.post("/v1/runs", json=TASK)
        assert again.status_code == 202
    raw = await connect(roles.superuser)
    runs = await raw.fetchval("SELECT count(*) FROM runs WHERE kind = 'agent'")
    await raw.close()
    assert runs == MOST_OUTSTANDING + 2, "nothing was done of the one that was refused"
