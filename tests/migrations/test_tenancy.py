"""The schema distributes by tenant: tenant_id leads every key, and nothing counts globally."""

import pytest

from tests.support.databases import Roles, connect

pytestmark = pytest.mark.anyio

# Settled in the decisions: these belong to the deployment, not to a tenant.
QUEUE = {"pgqueuer", "pgqueuer_log", "pgqueuer_schedules", "pgqueuer_statistics"}
EXEMPT = {"tenants", "writer_key", "alembic_version", *QUEUE}
_TABLES = """
SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
"""
_KEYS = """
SELECT c.conrelid::regclass::text AS "table", c.conname, c.contype,
  (SELECT attname FROM pg_attribute a WHERE a.attrelid = c.conrelid AND a.attnum = c.conkey[1]),
  (SELECT attname FROM pg_attribute a WHERE a.attrelid = c.confrelid AND a.attnum = c.confkey[1])
    AS target
FROM pg_constraint c
WHERE c.connamespace = 'public'::regnamespace AND c.contype IN ('p', 'u', 'f', 'x')
"""
_UNIQUE_INDEXES = """
SELECT i.indrelid::regclass::text AS "table",
  (SELECT attname FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = i.indkey[0])
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relnamespace = 'public'::regnamespace AND i.indisunique
"""


async def test_every_key_of_a_tenants_table_begins_with_the_tenant(roles: Roles) -> None:
    connection = await connect(roles.superuser)
    tables = {row["relname"] for row in await connection.fetch(_TABLES)}
    keys = await connection.fetch(_KEYS)
    unique = await connection.fetch(_UNIQUE_INDEXES)
    await connection.close()
    assert tables > EXEMPT
    primary = {row["table"] for row in keys if row["contype"] == b"p"}
    assert tables == primary, "a table without a primary key"
    wrong = [
        (row["table"], row["conname"])
        for row in keys
        if row["table"] not in EXEMPT
        and (row["attname"] != "tenant_id" or row["target"] not in (None, "tenant_id"))
    ]
    assert wrong == []
    loose = [row["table"] for row in unique if row["table"] not in EXEMPT]
    assert loose
    assert all(row["attname"] == "tenant_id" for row in unique if row["table"] not in EXEMPT)


async def test_nothing_counts_globally(roles: Roles) -> None:
    connection = await connect(roles.superuser)
    found = await connection.fetch("SELECT relname FROM pg_class WHERE relkind = 'S'")
    identity = await connection.fetch(
        "SELECT relname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
        " WHERE c.relnamespace = 'public'::regnamespace AND attidentity <> ''"
    )
    await connection.close()
    # The queue stays on one node: its counters count there.
    assert {row["relname"] for row in found} == {f"{table}_id_seq" for table in QUEUE}
    assert {row["relname"] for row in identity} == {"pgqueuer_log"}


@pytest.mark.parametrize("table", ["record", "payload", "leaf", "tile"])
async def test_the_long_tables_are_partitioned_by_tenant_with_one_default(
    roles: Roles, table: str
) -> None:
    connection = await connect(roles.superuser)
    key = await connection.fetchval("SELECT pg_get_partkeydef($1::text::regclass)", table)
    parts = await connection.fetch(
        "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_inherits i"
        " JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = $1::text::regclass",
        table,
    )
    await connection.close()
    assert key == "LIST (tenant_id)"
    assert [(part["relname"], part["bound"]) for part in parts] == [(f"{table}_default", "DEFAULT")]


async def test_runs_are_fenced_by_an_epoch_from_the_first_migration(roles: Roles) -> None:
    connection = await connect(roles.superuser)
    kind = await connection.fetchrow(
        "SELECT format_type(atttypid, -1) AS kind, attnotnull FROM pg_attribute"
        " WHERE attrelid = 'runs'::regclass AND attname = 'epoch'"
    )
    await connection.close()
    assert kind is not None
    assert (kind["kind"], kind["attnotnull"]) == ("bigint", True)


async def test_tenant_ids_are_random_and_made_by_the_database(roles: Roles) -> None:
    connection = await connect(roles.app)
    one = await connection.fetchval("SELECT tenant_ensure('first')")
    again = await connection.fetchval("SELECT tenant_ensure('first')")
    two = await connection.fetchval("SELECT tenant_ensure('second')")
    await connection.close()
    assert one == again
    assert one != two
    assert one.version == two.version == 4
