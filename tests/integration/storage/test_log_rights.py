"""The log only grows: what the sequencer may add, what it may change, and who may halt or go on."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.domain.errors import LedgerUnavailableError, WriterRetiredError
from tests.integration.storage.append_scene import Author, scene_on, step
from tests.integration.storage.test_rights import LOG_ROWS, PARTITIONS, logged_in
from tests.support.databases import DatabaseServer, Roles

pytestmark = pytest.mark.anyio

ZEROS, ONES = bytes(32), b"\1" * 32


@pytest.fixture
async def log(roles: Roles) -> UUID:
    """A log with one row of each kind, written by the sequencer itself."""
    tenant_id = uuid4()
    async with logged_in(roles.sequencer) as raw:
        for table, values in LOG_ROWS.items():
            await raw.execute(f"INSERT INTO {table} VALUES ($1, {values})", tenant_id)
    return tenant_id


@pytest.fixture
async def sequencer(roles: Roles) -> AsyncIterator[asyncpg.Connection]:
    async with logged_in(roles.sequencer) as raw:
        yield raw


async def refused(raw: asyncpg.Connection, statement: str, *arguments: object) -> None:
    with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.PostgresError)) as told:
        await raw.execute(statement, *arguments)
    assert told.value.sqlstate in ("42501", "MF004"), told.value


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE leaf SET idx = idx + 1",
        "UPDATE leaf SET run_id = run_id",
        "UPDATE checkpoint SET note = 'other'",
        "UPDATE checkpoint SET anchor_seq = 1",
        "UPDATE cosignature SET line = 'other'",
        "UPDATE tile SET n = n + 1",
        "UPDATE log_head SET origin = 'other'",
        "UPDATE log_head SET recovery = recovery + 1",
        "UPDATE writer_key SET public_key = public_key",
        "UPDATE writer_key SET certificate = certificate",
        "UPDATE tenants SET name = 'other'",
        "INSERT INTO record SELECT * FROM record",
        "INSERT INTO batch SELECT * FROM batch",
        "UPDATE record SET rc = rc",
        *(f"DELETE FROM {table}" for table in LOG_ROWS),
        *(f"TRUNCATE {table}" for table in LOG_ROWS),
    ],
)
async def test_the_sequencer_alters_nothing_that_stands(
    sequencer: asyncpg.Connection, log: UUID, change: str
) -> None:
    assert await sequencer.fetchval("SELECT 1 FROM leaf WHERE tenant_id = $1", log)
    await refused(sequencer, change)


async def test_a_tile_only_widens(sequencer: asyncpg.Connection, log: UUID) -> None:
    change = "UPDATE tile SET data = $2 WHERE tenant_id = $1"
    for data in (ZEROS, ONES, ONES + ZEROS):
        await refused(sequencer, change, log, data)
    await sequencer.execute(change, log, ZEROS + ONES)
    await refused(sequencer, change, log, ZEROS)


async def test_a_log_only_grows(sequencer: asyncpg.Connection, log: UUID) -> None:
    change = "UPDATE log_head SET size = $2, root = $3 WHERE tenant_id = $1"
    for size, root in ((0, ZEROS), (1, ONES)):
        await refused(sequencer, change, log, size, root)
    await sequencer.execute(change, log, 2, ONES)
    await refused(sequencer, change, log, 1, ZEROS)


async def test_a_term_only_grows(sequencer: asyncpg.Connection, log: UUID) -> None:
    change = "UPDATE sequencer_state SET term = $2 WHERE tenant_id = $1"
    await sequencer.execute(change, log, 5)
    await refused(sequencer, change, log, 4)


async def test_only_the_owner_renames_a_log_and_only_for_a_recovery(
    roles: Roles, log: UUID
) -> None:
    async with logged_in(roles.owner) as raw:
        await refused(raw, "UPDATE log_head SET origin = 'o/r1' WHERE tenant_id = $1", log)
        await raw.execute(
            "UPDATE log_head SET origin = 'o/r1', recovery = 1 WHERE tenant_id = $1", log
        )
        await refused(
            raw, "UPDATE log_head SET origin = 'o', recovery = 0 WHERE tenant_id = $1", log
        )


@pytest.mark.parametrize("target", [*LOG_ROWS, *(p for p in PARTITIONS if p[:4] in LOG_ROWS)])
@pytest.mark.parametrize("mode", ["origin", "replica"])
async def test_a_superuser_in_any_replication_mode_still_meets_the_triggers(
    roles: Roles, log: UUID, target: str, mode: str
) -> None:
    async with logged_in(roles.superuser) as raw:
        assert await raw.fetchval(f"SELECT count(*) FROM {target}") > 0, log
        await raw.execute(f"SET session_replication_role = {mode}")
        for attempt in (
            f"UPDATE {target} SET tenant_id = gen_random_uuid()",
            f"DELETE FROM {target}",
            f"TRUNCATE {target}",
        ):
            with pytest.raises(asyncpg.PostgresError, match="append-only"):
                await raw.execute(attempt)


@pytest.mark.parametrize("table", LOG_ROWS)
async def test_a_tenant_reads_its_own_log_only(roles: Roles, log: UUID, table: str) -> None:
    async with logged_in(roles.app) as raw:
        assert await raw.fetch(f"SELECT 1 FROM {table}") == []
        await raw.execute(f"SET app.tenant = '{log}'")
        assert {row[0] for row in await raw.fetch(f"SELECT tenant_id FROM {table}")} == {log}
        await refused(raw, f"INSERT INTO {table} SELECT * FROM {table}")


async def test_while_one_log_is_halted_nothing_is_written_but_its_recovery(
    postgres: DatabaseServer,
) -> None:
    roles = await asyncio.to_thread(postgres.new_database)
    async with scene_on(roles) as scene:
        author = await scene.begun()
        await scene.runs.ensure_tenant("another")
        async with logged_in(roles.sequencer) as raw:
            await raw.execute("UPDATE tenants SET halted = 'loss' WHERE name = 'another'")
            assert await scene.runs.halted() == "loss"
            with pytest.raises(LedgerUnavailableError):
                await scene.write(author, author.seal())
            with pytest.raises(LedgerUnavailableError):
                await scene.write(author, author.seal(step("log.recovery"), step()))
            await refused(raw, "UPDATE tenants SET halted = NULL")
            await scene.write(author, author.seal(step("log.recovery")))
        async with logged_in(roles.owner) as raw:
            await raw.execute("UPDATE tenants SET halted = NULL")
        await scene.write(author, author.seal())


async def test_a_writer_that_left_appends_no_more(roles: Roles) -> None:
    async with scene_on(roles) as scene:
        author: Author = await scene.begun()
        await scene.runs.leave(UUID(bytes=scene.writer.writer_id))
        with pytest.raises(WriterRetiredError):
            await scene.write(author, author.seal())
