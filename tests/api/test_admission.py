"""One submission too many is told to come again at once, and so is whoever finds no connection."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from app.main import create_app
from app.runs.admission import SubmissionRoom
from app.storage.database import Database
from tests.api.test_overloaded_ledger import held_back, served_here
from tests.support.api_matrix import problem_of
from tests.support.databases import DatabaseServer, connect
from tests.support.live_server import KEYS, settings_for

pytestmark = pytest.mark.anyio
TASK = {"task": "6*7"}
OTHER = {"Authorization": f"Bearer {KEYS['other']}"}


async def _room(app: FastAPI, client: httpx2.AsyncClient) -> SubmissionRoom:
    """The room of the process, once it has begun to serve."""
    assert (await client.get("/healthz")).status_code == 200
    room: SubmissionRoom = app.state.services.runs._parts.room
    return room


async def test_above_the_bounds_a_submission_is_refused_and_nothing_of_it_is_done(
    api_databases: DatabaseServer, tmp_path: Path
) -> None:
    roles = await asyncio.to_thread(api_databases.new_database)
    app = create_app(settings_for(tmp_path, roles))
    async with served_here(app) as client:
        room = await _room(app, client)
        room._most, room._most_of_a_tenant = 3, 2
        with room.taken("acme"), room.taken("acme"):
            refused = await client.post("/v1/runs", json=TASK)
            problem_of(refused, 429, "tenant-busy")
            assert refused.headers["retry-after"] == "1"
            theirs = await client.post("/v1/runs", json=TASK, headers=OTHER)
            assert theirs.status_code == 202, theirs.text
            with room.taken("other"):
                refused = await client.post("/v1/runs", json=TASK, headers=OTHER)
                problem_of(refused, 503, "overloaded")
                assert refused.headers["retry-after"] == "1"
                # Whoever only reads is not in the way.
                assert (await client.get("/v1/runs")).status_code == 200
        again = await client.post("/v1/runs", json=TASK)
        assert again.status_code == 202, again.text
    raw = await connect(roles.superuser)
    runs = await raw.fetchval("SELECT count(*) FROM runs WHERE kind = 'agent'")
    await raw.close()
    assert runs == 2


async def test_a_submission_takes_room_until_it_is_recorded(
    api_databases: DatabaseServer, tmp_path: Path
) -> None:
    roles = await asyncio.to_thread(api_databases.new_database)
    app = create_app(settings_for(tmp_path, roles))
    async with served_here(app) as client:
        room = await _room(app, client)
        async with held_back(roles):
            posted = asyncio.create_task(client.post("/v1/runs", json=TASK))
            async with asyncio.timeout(60):
                while not (room._count == room._of["acme"] == 1):  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0)
        await posted
        assert (room._count, room._of["acme"]) == (0, 0)


async def test_what_is_refused_or_fails_gives_its_room_back(
    api_databases: DatabaseServer, tmp_path: Path
) -> None:
    roles = await asyncio.to_thread(api_databases.new_database)
    app = create_app(settings_for(tmp_path, roles))
    async with served_here(app) as client:
        denied = {"task": "x", "capabilities": {"tools": ["no_such_tool"]}}
        problem_of(await client.post("/v1/runs", json=denied), 403, "policy-denied")
        unknown = {"task": "x", "model": "no-such-model"}
        problem_of(await client.post("/v1/runs", json=unknown), 422, "invalid-submission")
        assert (await _room(app, client))._count == 0


async def test_who_finds_no_connection_within_a_second_is_told_to_come_again(
    api_databases: DatabaseServer, tmp_path: Path
) -> None:
    roles = await asyncio.to_thread(api_databases.new_database)
    app = create_app(settings_for(tmp_path, roles))
    async with served_here(app) as client:
        done = await client.post("/v1/runs", json=TASK, headers={"Prefer": "wait=20"})
        assert done.status_code == 200, done.text
        database: Database = app.state.services.ledger._database
        pool = database._engine.pool
        assert pool._timeout == 1.0  # type: ignore[attr-defined]  # of a QueuePool
        async with AsyncExitStack() as held:
            for _ in range(pool.size()):  # type: ignore[attr-defined]  # of a QueuePool
                await held.enter_async_context(database.driver())
            for answer in await asyncio.gather(*_asked(client, done.json()["id"])):
                problem_of(answer, 503, "ledger-unavailable")
        assert (await client.get("/v1/runs")).status_code == 200


def _asked(client: httpx2.AsyncClient, run_id: str) -> list["asyncio.Task[httpx2.Response]"]:
    key = {"Idempotency-Key": '"no connection"'}
    return [
        asyncio.create_task(asked)
        for asked in (
            client.get("/v1/runs"),
            client.get(f"/v1/runs/{run_id}"),
            client.post("/v1/runs", json=TASK),
            client.post("/v1/runs", json=TASK, headers=key),
            client.post("/v1/stops", json={"agent": "nobody"}),
        )
    ]
