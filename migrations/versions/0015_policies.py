"""Versions of policies, which one is in force, and the function that changes both with a record.

Threat: Privilege escalation via tool calls
"""

from pathlib import Path

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_OWN_TENANT = "tenant_id = nullif(current_setting('app.tenant', true), '')::uuid"
# A version is never changed: nobody has the right to.
_TABLES = {"policy_version": "SELECT, INSERT", "policy_activation": "SELECT, INSERT, UPDATE"}
_KEEP = "policy_keep(uuid, uuid, jsonb)"


def upgrade() -> None:
    source = Path(__file__).with_name("0015_policies.sql").read_text(encoding="utf-8")
    for statement in source.split("--;;"):
        op.execute(statement)
    for table, rights in _TABLES.items():
        _rights(table, rights)
    op.execute("GRANT mf_writer TO CURRENT_USER")
    op.execute("GRANT CREATE ON SCHEMA public TO mf_writer")
    op.execute(f"REVOKE ALL ON FUNCTION {_KEEP} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {_KEEP} TO mf_app, mf_eraser")
    op.execute(f"ALTER FUNCTION {_KEEP} OWNER TO mf_writer")
    op.execute("REVOKE CREATE ON SCHEMA public FROM mf_writer")
    op.execute("REVOKE mf_writer FROM CURRENT_USER")


def _rights(table: str, of_the_writer: str) -> None:
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    for policy in (
        f"app_own_tenant ON {table} FOR SELECT TO mf_app USING ({_OWN_TENANT})",
        f"writer_all ON {table} TO mf_writer USING (true) WITH CHECK (true)",
        f"owner_reads ON {table} FOR SELECT TO CURRENT_USER USING (true)",
        f"erase_owner_none ON {table} TO mf_erase_owner USING (false)",
        f"eraser_none ON {table} TO mf_eraser USING (false)",
        f"sequencer_none ON {table} TO mf_sequencer USING (false)",
        f"audit_none ON {table} TO mf_audit USING (false)",
    ):
        op.execute(f"CREATE POLICY {policy}")
    op.execute(f"GRANT SELECT ON {table} TO mf_app")
    op.execute(f"GRANT {of_the_writer} ON {table} TO mf_writer")


def downgrade() -> None:
    """What tenants wrote is gone: runs that began under it cannot be gone on with."""
    op.execute("GRANT mf_writer TO CURRENT_USER")
    op.execute(f"DROP FUNCTION {_KEEP}")
    op.execute("REVOKE mf_writer FROM CURRENT_USER")
    for table in reversed(_TABLES):
        op.execute(f"DROP TABLE {table}")
