"""Webhook endpoints, the outbox that is also the log of deliveries, and the functions around them.

Threat: Exfiltration via web/shell tools
"""

from pathlib import Path

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_OWN_TENANT = "tenant_id = nullif(current_setting('app.tenant', true), '')::uuid"
_TABLES = ("webhook_endpoint", "webhook_delivery")
# Who may call what; what nobody is named for is called by the others only.
_FUNCTIONS = {
    "webhook_new_id()": "",
    "webhook_moment(timestamptz)": "",
    "webhook_tell(uuid, uuid, jsonb)": "mf_app, mf_eraser",
    "webhook_tell_checkpoints(uuid[], text[], bigint[], bytea[], text[], timestamptz)": (
        "mf_sequencer"
    ),
    "webhook_register(uuid, uuid, text, bytea, text[], boolean, integer)": "mf_app",
    "webhook_change(uuid, uuid, bigint, text, bytea, text[], boolean)": "mf_app",
    "webhook_remove(uuid, uuid, bigint)": "mf_app",
    "webhook_test(uuid, uuid)": "mf_app",
    "webhook_redeliver(uuid, uuid, uuid)": "mf_app",
    "webhook_due(integer)": "mf_app",
    "webhook_claim(uuid, uuid[], integer[], uuid, integer)": "mf_app",
    "webhook_settle(uuid, uuid, uuid, text, integer, text, double precision)": "mf_app",
    "webhook_trim(integer, integer, integer)": "mf_app",
}


def upgrade() -> None:
    source = Path(__file__).with_name("0010_webhooks.sql").read_text(encoding="utf-8")
    for statement in source.split("--;;"):
        op.execute(statement)
    for table in _TABLES:
        _rights(table)
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
    """Whoever was to be told something is not told any more, and all endpoints are forgotten."""
    op.execute("GRANT mf_writer TO CURRENT_USER")
    for signature in reversed(_FUNCTIONS):
        op.execute(f"DROP FUNCTION {signature}")
    op.execute("REVOKE mf_writer FROM CURRENT_USER")
    for table in reversed(_TABLES):
        op.execute(f"DROP TABLE {table}")
