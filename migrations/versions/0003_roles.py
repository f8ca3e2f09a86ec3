"""Who may do what: roles, row-level security for each of them, and the functions that write."""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ROLES = ("mf_app", "mf_sequencer", "mf_eraser", "mf_audit", "mf_writer", "mf_erase_owner")
_TENANT_TABLES = (
    "runs",
    "run_command",
    "run_result",
    "record",
    "payload",
    "batch",
    "run_key",
)
_LEDGER_TABLES = ("record", "payload", "batch", "run_key")
_OWN_TENANT = "tenant_id = nullif(current_setting('app.tenant', true), '')::uuid"

_READS = {
    "mf_app": ("tenants", "writer_key", *_TENANT_TABLES),
    "mf_audit": ("tenants", "writer_key", "runs", *_LEDGER_TABLES),
    "mf_sequencer": ("tenants", "writer_key", "record", "batch"),
    "mf_erase_owner": ("tenants", "writer_key", *_TENANT_TABLES),
    "mf_writer": ("tenants", "writer_key", *_TENANT_TABLES),
}
_FUNCTIONS = {
    "ledger_append": (
        "uuid, uuid, uuid, bytea, bytea, bytea, bytea, uuid[], bigint[], bigint[], text[],"
        " timestamptz[], bytea[], bytea[], bytea[], uuid[], bigint[], smallint[], bytea[], jsonb"
    ),
    "tenant_ensure": "text",
    "writer_register": "uuid, bytea, bytea",
    "writer_leave": "uuid",
    "writer_tick": "uuid, uuid[], integer",
    "results_expire": "timestamptz",
}


def upgrade() -> None:
    for role in _ROLES:
        # Roles belong to the server, not to the database: another database may have made them.
        op.execute(
            f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; "
            "EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        )
    op.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    for role in _ROLES:
        op.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
    for role, tables in _READS.items():
        for table in tables:
            op.execute(f"GRANT SELECT ON {table} TO {role}")
    op.execute("GRANT INSERT ON run_command TO mf_app")
    op.execute("GRANT SELECT ON alembic_version TO mf_app, mf_audit")
    for table in (*_TENANT_TABLES, "tenants", "writer_key"):
        op.execute(f"GRANT INSERT ON {table} TO mf_writer")
    op.execute("GRANT UPDATE ON runs, writer_key TO mf_writer")
    op.execute("GRANT DELETE ON run_result TO mf_writer")
    _row_level_security()
    _functions()


def _row_level_security() -> None:
    for table in _TENANT_TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY app_own_tenant ON {table} TO mf_app"
            f" USING ({_OWN_TENANT}) WITH CHECK ({_OWN_TENANT})"
        )
        op.execute(
            f"CREATE POLICY writer_all ON {table} TO mf_writer USING (true) WITH CHECK (true)"
        )
        op.execute(f"CREATE POLICY owner_reads ON {table} FOR SELECT TO CURRENT_USER USING (true)")
        op.execute(
            f"CREATE POLICY erase_owner_all ON {table} TO mf_erase_owner"
            " USING (true) WITH CHECK (true)"
        )
        op.execute(f"CREATE POLICY eraser_none ON {table} TO mf_eraser USING (false)")
        for reader in ("mf_audit", "mf_sequencer"):
            allowed = "true" if table in _READS[reader] else "false"
            op.execute(
                f"CREATE POLICY {reader}_reads ON {table} FOR SELECT TO {reader} USING ({allowed})"
            )


def _functions() -> None:
    source = Path(__file__).with_name("0003_functions.sql").read_text(encoding="utf-8")
    for statement in source.split("--;;"):
        op.execute(statement)
    op.execute("GRANT mf_writer TO CURRENT_USER")
    op.execute("GRANT CREATE ON SCHEMA public TO mf_writer")
    for name, arguments in _FUNCTIONS.items():
        op.execute(f"REVOKE ALL ON FUNCTION {name}({arguments}) FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {name}({arguments}) TO mf_app")
        op.execute(f"ALTER FUNCTION {name}({arguments}) OWNER TO mf_writer")
    op.execute("REVOKE CREATE ON SCHEMA public FROM mf_writer")
    op.execute("REVOKE mf_writer FROM CURRENT_USER")


def downgrade() -> None:
    """Roles stay: other databases of the server may use them."""
    op.execute("GRANT mf_writer TO CURRENT_USER")
    for name, arguments in _FUNCTIONS.items():
        op.execute(f"DROP FUNCTION {name}({arguments})")
    op.execute("REVOKE mf_writer FROM CURRENT_USER")
    for table in _TENANT_TABLES:
        for policy in (
            "app_own_tenant",
            "writer_all",
            "owner_reads",
            "erase_owner_all",
            "eraser_none",
            "mf_audit_reads",
            "mf_sequencer_reads",
        ):
            op.execute(f"DROP POLICY {policy} ON {table}")
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    for role in _ROLES:
        op.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}")
        op.execute(f"REVOKE ALL ON SCHEMA public FROM {role}")
    op.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
