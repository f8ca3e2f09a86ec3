"""The schema can be spread over servers by tenant: the rules that Citus does not bend."""

from collections.abc import Sequence

import pytest

from tests.support.databases import Roles, connect
from tests.support.tenant_statements import (
    Statement,
    changing_clocks,
    for_all_tenants,
    of_a_function,
    of_the_application,
)

pytestmark = pytest.mark.anyio

# Whole on every server, or only on the first: what is known of all tenants, and the schema's mark.
QUEUE = frozenset({"pgqueuer", "pgqueuer_log", "pgqueuer_schedules", "pgqueuer_statistics"})
SHARED = frozenset({"tenants", "writer_key", "alembic_version"}) | QUEUE
# Statements that look at all tenants: on Citus these go to every server, or run on the first.
OF_ALL_TENANTS = {
    "run_store._COLUMNS": "the beginning of statements that go on with the tenant",
    "sequencer_store._BATCH_COLUMNS": "the beginning of statements that go on with the tenant",
    "sequencer_store._BATCHES": "the sequencer reads what is new in all logs",
    "sequencer_store._STRAYS": "after a restore the sequencer looks for what is in no log",
    "recovery_store._LOGS": "a restart compares every log with its witness",
    "keeper_store._NAMED": "which checkpoints the operator's log names, whosever they are",
    "sweep_store._UNNAMED": "the audit of the operator's log: checkpoints of all tenants",
    "sweep_store._NAMED_TWICE": "the audit of the operator's log: checkpoints of all tenants",
    "erasure_waiting": "the eraser serves all tenants",
    "work_outlived": "a work key is the deployment's, of one day",
    "work_forget": "a work key is the deployment's, of one day",
    "results_expire": "results of all tenants expire by the clock",
    "queue_mend": "open runs of all tenants have a place in the queue",
    "idempotency_trim": "keys of all tenants expire by the clock",
    "webhook_pulse": "figures of the whole deployment",
    "webhook_due": "a process delivers for all tenants",
    "webhook_trim": "deliveries of all tenants expire by the clock",
    "rates_exchange": "minutes that are over go for all tenants",
}

_KEYS = """
SELECT c.relname AS table_name, i.indexrelid::regclass::text AS key,
  (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = i.indkey[0])
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relnamespace = 'public'::regnamespace AND i.indisunique
UNION ALL
SELECT c.relname, f.conname,
  (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = f.conrelid AND a.attnum = f.conkey[1])
FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid
WHERE f.connamespace = 'public'::regnamespace AND f.contype = 'f'
"""
_COUNTERS = """
SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'S'
"""
_TABLES = """
SELECT c.relname, EXISTS (
  SELECT FROM pg_attribute a
  WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND a.attnotnull
) AS is_by_tenant
FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
"""
_FUNCTIONS = """
SELECT proname, pg_get_functiondef(oid) AS definition, prosrc FROM pg_proc
WHERE pronamespace = 'public'::regnamespace
"""


async def _by_tenant(roles: Roles) -> frozenset[str]:
    raw = await connect(roles.superuser)
    rows = await raw.fetch(_TABLES)
    await raw.close()
    others = {row["relname"] for row in rows if not row["is_by_tenant"]}
    assert others <= SHARED
    return frozenset(row["relname"] for row in rows) - SHARED


async def _statements(roles: Roles) -> Sequence[Statement]:
    raw = await connect(roles.superuser)
    rows = await raw.fetch(_FUNCTIONS)
    await raw.close()
    within = [
        statement
        for row in rows
        for statement in of_a_function(row["proname"], row["definition"], row["prosrc"])
    ]
    return [*of_the_application(), *within]


async def test_the_tenant_comes_first_in_every_key(roles: Roles) -> None:
    raw = await connect(roles.superuser)
    keys = await raw.fetch(_KEYS)
    counters = await raw.fetch(_COUNTERS)
    await raw.close()
    tables = await _by_tenant(roles)
    assert {row["table_name"] for row in keys} >= tables
    loose = [(table, key) for table, key, first in keys if first != "tenant_id"]
    assert {table for table, _ in loose} <= SHARED, loose
    of_the_queue = {f"{table}_id_seq" for table in QUEUE}
    assert {
        row["relname"] for row in counters
    } <= of_the_queue  # a counter of the whole deployment would be the one server's


async def test_every_statement_says_of_which_tenant_it_speaks(roles: Roles) -> None:
    tables = await _by_tenant(roles)
    statements = await _statements(roles)
    assert {statement.place for statement in statements} >= {"ledger_append", "run_store._PAGE"}
    loose = {one.place for one in statements if for_all_tenants(one.sql, tables)}
    assert loose == OF_ALL_TENANTS.keys()


async def test_no_update_asks_a_clock_that_goes_on_within_it(roles: Roles) -> None:
    assert [one.place for one in await _statements(roles) if changing_clocks(one.sql)] == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 FROM runs WHERE run_id = $1",
        "SELECT 1 FROM runs r JOIN record d USING (run_id) WHERE r.tenant_id = $1",
        "SELECT 1 FROM runs r, record d WHERE r.tenant_id = $1 AND d.run_id = r.run_id",
        "SELECT 1 FROM tenants t WHERE t.tenant_id = $1 AND EXISTS (SELECT 1 FROM runs r)",
        "DELETE FROM runs WHERE run_id IN (SELECT run_id FROM record WHERE tenant_id = $1)",
        "UPDATE runs r SET status = 'failed' WHERE r.run_id = $1",
        "INSERT INTO record SELECT * FROM runs",
        "WITH mine AS (SELECT 1 FROM runs) SELECT * FROM mine",
        "SELECT 1 FROM record WHERE tenant_id = $1 UNION SELECT 1 FROM runs",
    ],
)
def test_a_statement_without_its_tenant_is_seen(sql: str) -> None:
    assert for_all_tenants(sql, frozenset({"runs", "record"}))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 FROM runs WHERE tenant_id = $1 AND run_id = $2",
        "SELECT 1 FROM runs r JOIN record d USING (tenant_id, run_id) WHERE r.tenant_id = $1",
        "DELETE FROM runs r USING record d WHERE r.tenant_id = $1 AND d.tenant_id = $1",
        "UPDATE runs r SET epoch = 1 WHERE (r.tenant_id, r.run_id) = ($1, $2)",
        "WITH runs AS (SELECT 1 AS n) SELECT n FROM runs",
        "INSERT INTO runs (tenant_id) VALUES ($1)",
    ],
)
def test_a_statement_that_names_its_tenant_is_let_through(sql: str) -> None:
    assert not for_all_tenants(sql, frozenset({"runs", "record"}))


def test_a_clock_within_an_update_is_seen() -> None:
    assert changing_clocks("UPDATE runs SET created_at = clock_timestamp() WHERE tenant_id = $1")
    assert not changing_clocks("UPDATE runs SET created_at = now() WHERE tenant_id = $1")
