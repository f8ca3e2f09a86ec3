"""What each login may do: the application appends through one function and alters nothing."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.integration.storage.append_scene import Author, scene_on
from tests.support.databases import Roles, connect

pytestmark = pytest.mark.anyio

LEDGER = ("record", "payload", "batch", "run_key")
LOG_ROWS = {
    "leaf": "0, gen_random_uuid(), 0",
    "tile": "0, 0, decode(repeat('00', 32), 'hex')",
    "log_head": "'o', 1, decode(repeat('00', 32), 'hex'), 0, now()",
    "checkpoint": "'o', 1, decode(repeat('00', 32), 'hex'), 'note', now(), NULL, NULL",
    "cosignature": "'o', 1, 'w', 'line', '2026-01-01'",
    "left_out": "'00000000-0000-0000-0000-000000000000', 0, 'code', now(), NULL",
    "sequencer_state": "1, 's', '1', now()",
}
LOG = tuple(LOG_ROWS)
ERASING = ("erasure", "run_hold", "kek_retirement")
TENANT_TABLES = (
    *LEDGER,
    *LOG,
    *ERASING,
    "runs",
    "run_command",
    "run_result",
    "run_work",
    "run_file",
    "run_label",
    "rate_use",
    "idempotency",
    "webhook_endpoint",
    "webhook_delivery",
    "policy_version",
    "policy_activation",
    "approval",
)
EMPTY = (
    "run_command",
    "run_result",
    "run_work",
    "run_file",
    "run_label",
    "rate_use",
    "idempotency",
    "webhook_endpoint",
    "webhook_delivery",
    "policy_version",
    "policy_activation",
    "approval",
)
PARTITIONS = ("record_default", "payload_default", "leaf_default", "tile_default")
ROLES = ("mf_app", "mf_audit", "mf_sequencer", "mf_eraser", "mf_writer", "mf_erase_owner")
QUEUE = ("pgqueuer", "pgqueuer_log", "pgqueuer_statistics")
ALL = (*TENANT_TABLES, "tenants", "writer_key", "alembic_version")


@pytest.fixture
async def author(roles: Roles) -> Author:
    """A run of tenant acme with one record of each kind of row."""
    async with scene_on(roles) as scene:
        author = await scene.begun()
    async with logged_in(roles.superuser) as raw:
        for table, values in LOG_ROWS.items():
            await raw.execute(
                f"INSERT INTO {table} VALUES ($1, {values}) ON CONFLICT DO NOTHING",
                author.tenant_id,
            )
    return author


@asynccontextmanager
async def logged_in(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def acting_as(roles: Roles, role: str) -> AsyncIterator[asyncpg.Connection]:
    """A session of a role for which the tests have no login: rights are the role's."""
    async with logged_in(roles.superuser) as raw:
        await raw.execute(f"SET SESSION AUTHORIZATION {role}")
        yield raw


@pytest.mark.parametrize("table", [*TENANT_TABLES, *PARTITIONS])
async def test_the_application_changes_no_row_itself(
    roles: Roles, author: Author, table: str
) -> None:
    column = "header" if table.startswith("record") else "tenant_id"
    attempts = [
        f"UPDATE {table} SET {column} = {column}",
        f"UPDATE {table} SET {column} = {column} WHERE false",
        f"DELETE FROM {table}",
        f"DELETE FROM {table} WHERE tenant_id = '{author.tenant_id}'",
        f"TRUNCATE {table}",
        f"TRUNCATE {table} CASCADE",
        f"ALTER TABLE {table} DISABLE TRIGGER ALL",
        f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} OWNER TO mf_app",
        f"DROP TABLE {table} CASCADE",
        f"CREATE POLICY mine ON {table} USING (true)",
        f"CREATE INDEX ON {table} (tenant_id)",
        f"CREATE TRIGGER t BEFORE INSERT ON {table} EXECUTE FUNCTION ledger_deny_change()",
        f"CREATE RULE r AS ON INSERT TO {table} DO INSTEAD NOTHING",
        f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",
        f"COPY {table} FROM PROGRAM 'true'",
        f"COPY {table} TO '/tmp/never'",
        f"SELECT 1 FROM {table} FOR UPDATE",
    ]
    if table != "run_command":
        attempts += [
            f"INSERT INTO {table} SELECT * FROM {table}",
            f"INSERT INTO {table} DEFAULT VALUES",
            f"INSERT INTO {table} SELECT * FROM {table} ON CONFLICT DO NOTHING",
            f"COPY {table} FROM STDIN",
        ]
    async with logged_in(roles.app) as raw:
        await raw.execute(f"SET app.tenant = '{author.tenant_id}'")
        for attempt in attempts:
            tried = raw.transaction()
            await tried.start()
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await raw.execute(attempt)
            await tried.rollback()


@pytest.mark.parametrize("table", PARTITIONS)
async def test_a_partition_is_no_way_around_the_tenant(
    roles: Roles, author: Author, table: str
) -> None:
    for url in (roles.app, roles.audit):
        async with logged_in(url) as raw:
            await raw.execute(f"SET app.tenant = '{author.tenant_id}'")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await raw.fetch(f"SELECT * FROM {table}")


@pytest.mark.parametrize(
    "setting",
    [
        "SET session_replication_role = replica",
        "SET ROLE mf_writer",
        "SET ROLE mf_owner",
        "SET ROLE mf_erase_owner",
        "SET SESSION AUTHORIZATION mf_owner",
        "ALTER ROLE mf_app SUPERUSER",
        "ALTER ROLE mf_app BYPASSRLS",
        "CREATE ROLE mine",
        "CREATE TABLE public.mine (id int)",
        "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA mine",
        "ALTER FUNCTION tenant_ensure(text) SET search_path = pg_temp",
        "CREATE OR REPLACE FUNCTION tenant_ensure(p_name text) RETURNS uuid LANGUAGE sql AS 'x'",
        "DROP FUNCTION tenant_ensure(text)",
        "CREATE EXTENSION pageinspect",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT pg_read_file('postgresql.conf')",
        "SELECT lo_import('/etc/passwd')",
        "ALTER DEFAULT PRIVILEGES FOR ROLE mf_owner GRANT ALL ON TABLES TO mf_app",
        "UPDATE alembic_version SET version_num = '0'",
        "INSERT INTO tenants (name) VALUES ('mine')",
        "UPDATE tenants SET name = 'mine'",
        "DELETE FROM tenants",
        "INSERT INTO writer_key (writer_id, public_key) VALUES (gen_random_uuid(), ''::bytea)",
        "UPDATE writer_key SET public_key = public_key",
        "DELETE FROM writer_key",
    ],
)
async def test_the_application_gives_itself_no_right(roles: Roles, setting: str) -> None:
    async with logged_in(roles.app) as raw:
        with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.FeatureNotSupportedError)):
            await raw.execute(setting)


@pytest.mark.parametrize("table", TENANT_TABLES)
async def test_row_level_security_hides_every_other_tenant(
    roles: Roles, author: Author, table: str
) -> None:
    async with scene_on(roles, tenant="other") as scene:
        theirs = await scene.begun()
    assert theirs.tenant_id != author.tenant_id
    seen = f"SELECT DISTINCT tenant_id FROM {table}"
    filled = table not in (*EMPTY, *ERASING)
    async with logged_in(roles.superuser) as raw:
        for name, values in LOG_ROWS.items():
            await raw.execute(
                f"INSERT INTO {name} VALUES ($1, {values}) ON CONFLICT DO NOTHING", theirs.tenant_id
            )
    async with logged_in(roles.app) as raw:
        assert await raw.fetch(seen) == []
        await raw.execute("SET app.tenant = ''")
        assert await raw.fetch(seen) == []
        for tenant in (author.tenant_id, theirs.tenant_id):
            await raw.execute(f"SET app.tenant = '{tenant}'")
            assert [row[0] for row in await raw.fetch(seen)] == ([tenant] if filled else [])
            other = author.tenant_id if tenant == theirs.tenant_id else theirs.tenant_id
            assert await raw.fetch(f"SELECT 1 FROM {table} WHERE tenant_id = $1", other) == []
        await raw.execute("SET app.tenant = 'x'' OR true --'")
        with pytest.raises(asyncpg.InvalidTextRepresentationError):
            await raw.fetch(seen)


async def test_a_command_goes_to_a_run_of_the_own_tenant_only(roles: Roles, author: Author) -> None:
    command = (
        "INSERT INTO run_command (tenant_id, run_id, command_id, command, actor)"
        " VALUES ($1, $2, gen_random_uuid(), 'cancel', 'key:0')"
    )
    async with scene_on(roles, tenant="other") as scene:
        theirs = await scene.begun()
    async with logged_in(roles.app) as raw:
        await raw.execute(f"SET app.tenant = '{author.tenant_id}'")
        await raw.execute(command, author.tenant_id, author.run_id)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await raw.execute(command, theirs.tenant_id, theirs.run_id)
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await raw.execute(command, author.tenant_id, theirs.run_id)


async def test_each_role_has_a_policy_of_its_own_on_each_tenants_table(roles: Roles) -> None:
    async with logged_in(roles.superuser) as raw:
        rows = await raw.fetch("SELECT tablename, unnest(roles)::text AS role FROM pg_policies")
        forced = await raw.fetch(
            "SELECT relname FROM pg_class WHERE relrowsecurity AND relforcerowsecurity"
            " AND relnamespace = 'public'::regnamespace"
        )
        tenant = await raw.fetch(
            "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
            " WHERE c.relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
            " AND attname = 'tenant_id' AND NOT relispartition AND relname <> 'tenants'"
        )
    assert {row["relname"] for row in tenant} == set(TENANT_TABLES)
    assert {row["relname"] for row in forced} == set(TENANT_TABLES)
    for table in TENANT_TABLES:
        named = {row["role"] for row in rows if row["tablename"] == table}
        assert named == {*ROLES, "mf_owner"}, table
    assert "public" not in {row["role"] for row in rows}


RIGHTS = {
    "mf_app": {
        "SELECT": {*ALL, *QUEUE},
        "INSERT": {"run_command", "pgqueuer_log"},
        "UPDATE": {"pgqueuer"},
        "DELETE": {*QUEUE},
        "EXECUTE": {
            "ledger_append",
            "erasure_request",
            "tenant_ensure",
            "writer_register",
            "writer_leave",
            "writer_tick",
            "results_expire",
            "rates_exchange",
            "idempotency_begin",
            "idempotency_end",
            "idempotency_keep",
            "idempotency_trim",
            "runs_heads",
            "runs_pulse",
            "work_forget",
            "work_outlived",
            "work_rewrap",
            "work_files",
            "queue_wishes",
            "webhook_turn_key",
            "webhook_reseal",
            "webhook_pulse",
            "writer_commands",
            "work_keep",
            "webhook_tell",
            "webhook_register",
            "webhook_change",
            "webhook_remove",
            "webhook_test",
            "webhook_redeliver",
            "webhook_due",
            "webhook_claim",
            "webhook_settle",
            "webhook_trim",
            "approval_keep",
            "queue_keep",
            "queue_mend",
            "policy_keep",
        },
    },
    "mf_audit": {
        "SELECT": {*LEDGER, *LOG, *ERASING, "runs", "tenants", "writer_key", "alembic_version"}
    },
    "mf_sequencer": {
        "SELECT": {"record", "batch", "tenants", "writer_key", *LOG},
        "INSERT": {*LOG},
        "UPDATE": {"tile", "log_head", "left_out", "sequencer_state", "tenants", "writer_key"},
        "EXECUTE": {"webhook_tell_checkpoints"},
    },
    "mf_eraser": {
        "EXECUTE": {
            "ledger_append",
            "erase_anonymize_run",
            "erase_delete_run",
            "erase_delete_tenant",
            "erasure_refuse",
            "erasure_waiting",
            "erasure_complete",
            "kek_waiting",
            "kek_retire",
            "kek_wraps",
            "kek_rewrap",
            "kek_destroyed",
            "work_keep",
            "idempotency_keep",
            "webhook_tell",
            "queue_keep",
            "policy_keep",
            "approval_keep",
        }
    },
}
# Called by other functions only.
INNER = {"erase_recorded", "erase_locked", "erase_receipt", "kek_in_use"}
WRITERS_INNER = {
    "idempotency_held",
    "idempotency_anonymized",
    "labels_anonymized",
    "approval_tell",
    "approval_ended",
}


@pytest.mark.parametrize("role", sorted(RIGHTS))
async def test_a_role_has_exactly_these_rights(roles: Roles, role: str) -> None:
    """Asked of Postgres itself, so that a right by way of PUBLIC or another role counts."""
    kinds = (
        "SELECT",
        "INSERT",
        "UPDATE",
        "DELETE",
        "TRUNCATE",
        "REFERENCES",
        "TRIGGER",
        "MAINTAIN",
    )
    async with logged_in(roles.superuser) as raw:
        found: dict[str, set[str]] = {}
        for kind in kinds:
            rows = await raw.fetch(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
                " AND relkind IN ('r', 'p', 'v', 'm')"
                " AND (has_table_privilege($1, oid, $2) OR CASE WHEN $2 IN"
                "  ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')"
                "  THEN has_any_column_privilege($1, oid, $2) ELSE false END)",
                role,
                kind,
            )
            if rows:
                found[kind] = {row[0] for row in rows}
        rows = await raw.fetch(
            "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
            " AND has_function_privilege($1, oid, 'EXECUTE') AND prorettype <> 'trigger'::regtype",
            role,
        )
        if rows:
            found["EXECUTE"] = {row[0] for row in rows}
        creates = await raw.fetchval("SELECT has_schema_privilege($1, 'public', 'CREATE')", role)
        memberships = await raw.fetch(
            "SELECT roleid::regrole::text FROM pg_auth_members WHERE member = $1::text::regrole",
            role,
        )
    assert found == RIGHTS[role]
    assert creates is False
    assert memberships == []


@pytest.mark.parametrize("role", ["mf_sequencer", "mf_eraser"])
async def test_a_narrow_role_reads_only_its_own(roles: Roles, author: Author, role: str) -> None:
    allowed = RIGHTS[role].get("SELECT", set())
    async with acting_as(roles, role) as raw:
        for table in ALL:
            if table in allowed:
                assert await raw.fetch(f"SELECT * FROM {table}"), (table, author.run_id)
            else:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await raw.fetch(f"SELECT * FROM {table}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await raw.execute("SELECT tenant_ensure('x')")


async def test_the_auditor_reads_every_tenant_and_writes_nothing(
    roles: Roles, author: Author
) -> None:
    async with logged_in(roles.audit) as raw:
        for table in LEDGER:
            assert await raw.fetchval(f"SELECT count(*) FROM {table}") > 0, author.run_id
            for attempt in (
                f"DELETE FROM {table}",
                f"UPDATE {table} SET tenant_id = tenant_id",
                f"INSERT INTO {table} SELECT * FROM {table}",
                f"TRUNCATE {table}",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await raw.execute(attempt)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await raw.execute("SELECT writer_register(gen_random_uuid(), ''::bytea, ''::bytea)")


@pytest.mark.parametrize("table", LEDGER)
async def test_even_the_owner_changes_nothing_while_the_triggers_stand(
    roles: Roles, author: Author, table: str
) -> None:
    async with logged_in(roles.owner) as raw:
        assert await raw.fetchval(f"SELECT count(*) FROM {table}") > 0, author.run_id
        for attempt in (
            f"UPDATE {table} SET tenant_id = tenant_id",
            f"DELETE FROM {table}",
            f"INSERT INTO {table} SELECT * FROM {table}",
        ):
            before = await raw.fetchval(f"SELECT count(*) FROM {table}")
            # Row-level security shows it no row to change; it may insert none.
            with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
                assert (await raw.execute(attempt)).endswith(" 0"), attempt
            assert await raw.fetchval(f"SELECT count(*) FROM {table}") == before
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await raw.execute(f"TRUNCATE {table}")


@pytest.mark.parametrize("target", [*LEDGER, *PARTITIONS])
@pytest.mark.parametrize("mode", ["origin", "replica", "local"])
async def test_a_superuser_in_any_replication_mode_still_meets_the_trigger(
    roles: Roles, author: Author, target: str, mode: str
) -> None:
    async with logged_in(roles.superuser) as raw:
        assert await raw.fetchval(f"SELECT count(*) FROM {target}") > 0, author.run_id
        await raw.execute(f"SET session_replication_role = {mode}")
        for attempt in (
            f"UPDATE {target} SET tenant_id = tenant_id",
            f"DELETE FROM {target}",
            f"TRUNCATE {target}",
        ):
            with pytest.raises(asyncpg.PostgresError, match="append-only"):
                await raw.execute(attempt)


HIJACK = (
    "CREATE TEMP TABLE runs (LIKE public.runs)",
    "CREATE TEMP TABLE record (LIKE public.record)",
    "CREATE TEMP TABLE batch (LIKE public.batch)",
    "CREATE TEMP TABLE payload (LIKE public.payload)",
    "CREATE TEMP TABLE run_key (LIKE public.run_key)",
    "CREATE TEMP TABLE tenants (tenant_id uuid DEFAULT gen_random_uuid(), name text UNIQUE)",
    "CREATE TEMP TABLE writer_key (LIKE public.writer_key)",
    (
        "CREATE FUNCTION pg_temp.bad(a bigint, b bigint) RETURNS boolean LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE EXCEPTION 'hijacked by %', current_user; END $$"
    ),
    (
        "CREATE FUNCTION pg_temp.bad(a uuid, b uuid) RETURNS boolean LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE EXCEPTION 'hijacked by %', current_user; END $$"
    ),
    "CREATE OPERATOR pg_temp.<> (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = pg_temp.bad)",
    "CREATE OPERATOR pg_temp.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = pg_temp.bad)",
    "CREATE OPERATOR pg_temp.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = pg_temp.bad)",
    (
        "CREATE FUNCTION pg_temp.jsonb_array_elements(jsonb) RETURNS SETOF jsonb LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE EXCEPTION 'hijacked'; END $$"
    ),
    (
        "CREATE FUNCTION pg_temp.cardinality(anyarray) RETURNS int LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE EXCEPTION 'hijacked'; END $$"
    ),
    "SET search_path = pg_temp, public, pg_catalog",
)


async def test_objects_of_a_session_do_not_hijack_the_functions(
    roles: Roles, author: Author
) -> None:
    async with scene_on(roles, pool_size=1) as scene:
        async with scene.database.driver() as raw:
            for statement in HIJACK:
                await raw.execute(statement)
            # The bait is live: the session's own queries take it.
            assert await raw.fetchval("SELECT count(*) FROM runs") == 0
        before = author.head.next_seq
        author.writer = scene.writer
        await scene.write(author, author.seal())
        async with scene.database.driver() as raw:
            for table in ("runs", "record", "batch", "payload", "run_key", "tenants", "writer_key"):
                assert await raw.fetchval(f"SELECT count(*) FROM pg_temp.{table}") == 0, table
    async with scene_on(roles) as reader:
        assert len((await reader.verified(author)).records) == before + 1


async def test_every_function_with_borrowed_rights_fixes_its_search_path(roles: Roles) -> None:
    async with logged_in(roles.superuser) as raw:
        rows = await raw.fetch(
            "SELECT proname, prosecdef, proconfig, proowner::regrole::text AS owner FROM pg_proc"
            " WHERE pronamespace = 'public'::regnamespace"
        )
        login = await raw.fetchval(
            "SELECT bool_or(rolcanlogin OR rolsuper OR rolbypassrls) FROM pg_roles"
            " WHERE rolname IN ('mf_writer', 'mf_erase_owner')"
        )
        inherited = await raw.fetch(
            "SELECT member::regrole::text FROM pg_auth_members"
            " WHERE roleid IN ('mf_writer'::regrole, 'mf_erase_owner'::regrole)"
            " AND (inherit_option OR set_option)"
        )
    borrowed = [row for row in rows if row["prosecdef"]]
    erased = RIGHTS["mf_eraser"]["EXECUTE"]
    written = RIGHTS["mf_app"]["EXECUTE"] | RIGHTS["mf_sequencer"]["EXECUTE"]
    assert {row["proname"] for row in borrowed} == written | erased | INNER | WRITERS_INNER
    for row in borrowed:
        assert row["proconfig"] == ["search_path=pg_catalog, public, pg_temp"], row["proname"]
        owner = "mf_writer" if row["proname"] in written | WRITERS_INNER else "mf_erase_owner"
        assert row["owner"] == owner, row["proname"]
    assert login is False
    assert inherited == []
