"""Every table is registered for erasure, and the register says what really happens."""

import asyncio
from collections.abc import Iterator

import pytest

from app.storage.erasure_registry import NOT_A_TENANTS, REGISTRY, Fate
from tests.integration.erasing.erasing_scene import WHY, Erasing, erasing_beside
from tests.security.tampering_scene import finished_run
from tests.support.databases import DatabaseServer, Roles, connect, execute
from tests.support.live_server import LiveServer, live_server

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def live(roles: Roles) -> Iterator[LiveServer]:
    with live_server(roles) as served:
        yield served


async def _tables(roles: Roles) -> dict[str, bool]:
    """Every table and whether its rows say which run they are about."""
    connection = await connect(roles.owner)
    try:
        rows = await connection.fetch(
            "SELECT t.table_name, bool_or(c.column_name = 'run_id') AS of_runs"
            " FROM information_schema.tables t JOIN information_schema.columns c"
            " USING (table_schema, table_name)"
            " WHERE t.table_schema = 'public' AND t.table_type = 'BASE TABLE'"
            " AND NOT t.table_name LIKE '%\\_default' GROUP BY 1"
        )
    finally:
        await connection.close()
    return {row["table_name"]: row["of_runs"] for row in rows}


async def test_every_table_is_registered(roles: Roles) -> None:
    assert set(await _tables(roles)) == {*REGISTRY, *NOT_A_TENANTS}


async def test_a_table_that_nobody_registered_would_be_seen(postgres: DatabaseServer) -> None:
    drifted = await asyncio.to_thread(postgres.new_database)
    await execute(drifted.owner, "CREATE TABLE transcript (tenant_id uuid, run_id uuid, text text)")
    assert set(await _tables(drifted)) - {*REGISTRY, *NOT_A_TENANTS} == {"transcript"}


async def _counts(erasing: Erasing, tables: dict[str, bool], run: object) -> dict[str, int]:
    return {
        table: len([row for row in await erasing.rows(table) if row["run_id"] == run])
        for table, of_runs in tables.items()
        if of_runs and table not in NOT_A_TENANTS
    }


@pytest.mark.parametrize("level", ["anonymize_run", "delete_run"])
async def test_the_register_says_what_an_erasure_of_a_run_does(
    live: LiveServer, level: str
) -> None:
    run = finished_run(live)
    with live.client() as client:
        client.post(f"/v1/runs/{run.public}/cancel")
    async with erasing_beside(live) as erasing:
        tables = await _tables(live.roles)
        before = await _counts(erasing, tables, run.run_id)
        await (
            erasing.delete(run)
            if level == "delete_run"
            else erasing.anonymize(run, ["task", "output"])
        )
        after = await _counts(erasing, tables, run.run_id)
    for table, count in before.items():
        fate: Fate = getattr(REGISTRY[table], level)
        if table == "erasure":
            assert after[table] == count + 1
        elif fate is Fate.GONE:
            assert after[table] == 0, table
        elif table == "payload":
            assert 0 < after[table] < count
        else:
            assert after[table] == count, table
    assert before["run_result"] == 1


async def test_the_register_says_what_is_left_of_a_tenant(live: LiveServer) -> None:
    finished_run(live, "other")
    async with erasing_beside(live, tenant="other") as erasing:
        await erasing.done(await erasing.parts.replay.delete_tenant(erasing.tenant_id, **WHY))
        for table, fates in REGISTRY.items():
            assert fates.delete_tenant is Fate.GONE or table == "sequencer_state"
            assert await erasing.rows(table) == [], table
