"""Migrations give the schema that the code knows, back and forth, together, and never hang."""

import asyncio
import re

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.domain.errors import LedgerUnavailableError, MeshFlowError
from app.storage import schema
from app.storage.tables import METADATA, Xid8
from tests.migrations.catalogue import schema_dump
from tests.support.databases import DatabaseServer, Roles, connect

pytestmark = pytest.mark.anyio


def _is_ours(name: str | None, kind: str, _: object) -> bool:
    """Partitions are storage of their parents, not tables of their own."""
    return not (kind == "table" and name is not None and name.endswith("_default"))


@pytest.fixture(autouse=True)
def _xid8_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLAlchemy's reflection has no name for a 64-bit transaction id."""
    monkeypatch.setitem(ischema_names, "xid8", Xid8)


def _difference(connection: Connection) -> list[object]:
    context = MigrationContext.configure(
        connection,
        opts={
            "include_name": _is_ours,
            "compare_type": True,
            "compare_server_default": True,
            "target_metadata": METADATA,
        },
    )
    found: list[object] = list(compare_metadata(context, METADATA))
    return found


async def test_there_is_one_head_and_the_file_names_it() -> None:
    assert schema.heads() == [schema.known_revision()]
    names = [path.name for path in (schema.migrations_directory() / "versions").glob("*.py")]
    assert all(re.fullmatch(r"\d{4}_[a-z0-9_]+\.py", name) for name in names)


async def test_a_migrated_database_says_that_it_is_at_the_head(roles: Roles) -> None:
    assert await schema.current_revision(roles.owner) == schema.known_revision()
    assert await schema.current_revision(roles.app) == schema.known_revision()


async def test_the_tables_in_code_and_in_the_database_are_the_same(roles: Roles) -> None:
    engine = create_async_engine(roles.owner, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            assert await connection.run_sync(_difference) == []
    finally:
        await engine.dispose()


async def test_a_column_that_only_the_database_has_would_be_seen(postgres: DatabaseServer) -> None:
    drifted = await asyncio.to_thread(postgres.new_database)
    connection = await connect(drifted.owner)
    await connection.execute("ALTER TABLE runs ADD COLUMN extra text")
    await connection.execute("ALTER TABLE runs ALTER COLUMN agent SET NOT NULL")
    await connection.execute("ALTER TABLE batch DROP CONSTRAINT ck_batch_tip")
    await connection.close()
    engine = create_async_engine(drifted.owner, poolclass=NullPool)
    async with engine.connect() as opened:
        told = repr(await opened.run_sync(_difference))
    await engine.dispose()
    assert "extra" in told
    assert "modify_nullable" in told


async def test_check_constraints_in_code_are_those_in_the_database(roles: Roles) -> None:
    """Alembic's comparison is blind to them."""
    connection = await connect(roles.owner)
    rows = await connection.fetch(
        "SELECT conname FROM pg_constraint WHERE contype = 'c'"
        " AND connamespace = 'public'::regnamespace AND NOT conrelid::regclass::text ~ '_default$'"
    )
    await connection.close()
    declared = {
        str(constraint.name)
        for table in METADATA.tables.values()
        for constraint in table.constraints
        if str(constraint.name).startswith("ck_")
    }
    assert {row["conname"] for row in rows} == declared


async def test_down_and_up_again_leaves_the_same_schema(postgres: DatabaseServer) -> None:
    empty = await asyncio.to_thread(lambda: postgres.new_database(migrated=False))
    await schema.upgrade(empty.owner)
    first = await schema_dump(empty.superuser)
    assert all(first[part] for part in first if part != "types"), "the dump sees nothing"
    versions = schema.migrations_directory() / "versions"
    revisions = sorted((path.name[:4] for path in versions.glob("*.py")), reverse=True)
    steps = {schema.known_revision(): first}
    for revision in revisions[1:]:
        await schema.downgrade(empty.owner, revision)
        steps[revision] = await schema_dump(empty.superuser)
    await schema.downgrade(empty.owner, "base")
    left = await schema_dump(empty.superuser)
    assert left["functions"] == []
    assert {line.split("'")[1] for line in left["relations"]} == {
        "alembic_version",
        "alembic_version_pkc",
    }
    for revision in reversed(revisions):
        await schema.upgrade(empty.owner, revision)
        assert await schema_dump(empty.superuser) == steps[revision], revision


async def test_a_step_down_asks_for_the_same_schema_as_never_having_gone_up(
    postgres: DatabaseServer,
) -> None:
    fresh = await asyncio.to_thread(lambda: postgres.new_database(migrated=False))
    returned = await asyncio.to_thread(postgres.new_database)
    for revision in ("0002", "0001"):
        await schema.downgrade(returned.owner, revision)
    await schema.upgrade(fresh.owner, "0001")
    before, after = await schema_dump(fresh.superuser), await schema_dump(returned.superuser)
    for part in ("columns", "constraints", "indexes", "policies", "triggers", "functions"):
        assert after[part] == before[part], part


async def test_two_at_once_both_succeed(postgres: DatabaseServer) -> None:
    empty = await asyncio.to_thread(lambda: postgres.new_database(migrated=False))
    done = await asyncio.gather(*(schema.upgrade(empty.owner) for _ in range(2)))
    assert done == [schema.known_revision()] * 2
    migrated = await asyncio.to_thread(postgres.new_database)
    assert await schema_dump(empty.superuser) == await schema_dump(migrated.superuser)


async def test_a_lock_that_somebody_holds_makes_a_migration_give_up(
    postgres: DatabaseServer,
) -> None:
    held = await asyncio.to_thread(postgres.new_database)
    holder = await connect(held.owner)
    async with holder.transaction():
        await holder.execute("LOCK TABLE runs IN ACCESS SHARE MODE")
        async with asyncio.timeout(50):  # the bound is the promise; the lock is held all the while
            with pytest.raises((DBAPIError, MeshFlowError)):
                await schema.downgrade(held.owner, "base")
    await holder.close()
    assert await schema.current_revision(held.owner) is not None


async def test_a_migration_runs_under_both_timeouts(postgres: DatabaseServer) -> None:
    """Seen from outside while a migration waits for a lock."""
    held = await asyncio.to_thread(postgres.new_database)
    holder = await connect(held.owner)
    seen: dict[str, int] = {}

    def look(connection: Connection) -> None:
        schema._prepare(connection)
        for name in ("lock_timeout", "statement_timeout"):
            seen[name] = int(
                connection.exec_driver_sql(
                    f"SELECT setting FROM pg_settings WHERE name = '{name}'"
                ).scalar_one()
            )

    engine = create_async_engine(held.owner, poolclass=NullPool)
    async with engine.connect() as opened:
        await opened.run_sync(look)
    await engine.dispose()
    await holder.close()
    assert 0 < seen["lock_timeout"] <= 5_000
    assert 0 < seen["statement_timeout"] <= 60_000


async def test_a_database_that_is_not_there_is_named_as_such(roles: Roles) -> None:
    gone = roles.named("no_such_database")
    with pytest.raises(LedgerUnavailableError):
        await schema.current_revision(gone.owner)
