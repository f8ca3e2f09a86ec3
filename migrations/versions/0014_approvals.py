"""Approvals: the calls that wait for somebody's decision, and the functions around them.

Threat: Privilege escalation via tool calls
"""

from pathlib import Path

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_OWN_TENANT = "tenant_id = nullif(current_setting('app.tenant', true), '')::uuid"
# Who may call what; what nobody is named for is called by the others only.
_FUNCTIONS = {
    "approval_keep(uuid, uuid, jsonb)": "mf_app, mf_eraser",
    "approval_tell(uuid, uuid, text, timestamptz)": "",
    "approval_ended()": "",
}


def upgrade() -> None:
    source = Path(__file__).with_name("0014_approvals.sql").read_text(encoding="utf-8")
    for statement in source.split("--;;"):
        op.execute(statement)
    _rights("approval")
    op.execute("GRANT mf_writer TO CURRENT_USER")
    op.execute("GRANT CREATE ON SCHEMA public TO mf_writer")
    for signature, callers in _FUNCTIONS.items():
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
        if callers:
            op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO {callers}")
        op.execute(f"ALTER FUNCTION {signature} OWNER TO mf_writer")
    op.execute("REVOKE CREATE ON SCHEMA public FROM mf_writer")
    op.execute("REVOKE mf_writer FROM CURRENT_USER")


def _rights(table: str) -> None:
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
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO mf_writer")


def downgrade() -> None:
    """Whatever waits for a decision waits for good, until its run's time is over."""
    op.execute("DROP TRIGGER run_ends_approvals ON runs")
    op.execute("GRANT mf_writer TO CURRENT_USER")
    for signature in _FUNCTIONS:
        op.execute(f"DROP FUNCTION {signature}")
    op.execute("REVOKE mf_writer FROM CURRENT_USER")
    op.execute("DROP TABLE approval")
