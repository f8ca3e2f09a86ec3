"""Keys of work and webhooks that change over, wishes for runs that park, the pulse of the outbox.

Threat: PHI leakage in audit logs
"""

import re
from pathlib import Path

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_OWN_TENANT = "tenant_id = nullif(current_setting('app.tenant', true), '')::uuid"
_TABLES = ("run_file", "run_label")
_NEW = {
    "work_outlived(text, integer)": "mf_app",
    "work_rewrap(uuid, uuid, text, text, bytea)": "mf_app",
    "queue_wishes(interval)": "mf_app",
    "webhook_turn_key(uuid, text, text)": "mf_app",
    "webhook_reseal(uuid, uuid, text, bigint, text, bytea)": "mf_app",
    "webhook_pulse()": "mf_app",
    "work_files(uuid, uuid, bigint, bytea[], bytea[], bytea[], bigint)": "mf_app",
    "labels_anonymized()": None,
}
# Functions of earlier migrations that are other ones from here on, and where they came from.
_CHANGED = {
    "work_forget": "0006_working.sql",
    "work_keep": "0006_working.sql",
    "queue_keep": "0008_dispatch.sql",
}


def upgrade() -> None:
    op.execute("GRANT INSERT, UPDATE (destroyed_at) ON kek_retirement TO mf_writer")
    for statement in _statements("0012_survival.sql"):
        if "CREATE OR REPLACE FUNCTION" in statement:
            _as_writer([statement])
        else:
            op.execute(statement)
    for table in _TABLES:
        _rights(table)
    op.execute("GRANT mf_writer TO CURRENT_USER")
    op.execute("GRANT CREATE ON SCHEMA public TO mf_writer")
    for signature, caller in _NEW.items():
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
        if caller is not None:
            op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO {caller}")
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


def _statements(name: str) -> list[str]:
    return Path(__file__).with_name(name).read_text(encoding="utf-8").split("--;;")


def _as_writer(statements: list[str]) -> None:
    """A function keeps its owner when it is replaced; only who may act as that one can do it."""
    op.execute("GRANT mf_writer TO CURRENT_USER")
    op.execute("GRANT CREATE ON SCHEMA public TO mf_writer")
    for statement in statements:
        op.execute(statement)
    op.execute("REVOKE CREATE ON SCHEMA public FROM mf_writer")
    op.execute("REVOKE mf_writer FROM CURRENT_USER")


def downgrade() -> None:
    """Files of runs under way are forgotten, and lists cannot be narrowed by metadata any more."""
    op.execute("DROP TRIGGER erasure_anonymizes_labels ON erasure")
    _as_writer([_as_before(name, source) for name, source in _CHANGED.items()])
    op.execute("GRANT mf_writer TO CURRENT_USER")
    for signature in reversed(_NEW):
        op.execute(f"DROP FUNCTION {signature}")
    op.execute("REVOKE mf_writer FROM CURRENT_USER")
    op.execute("DROP INDEX ix_webhook_delivery_dead")
    for table in _TABLES:
        op.execute(f"DROP TABLE {table}")
    op.execute("REVOKE INSERT, UPDATE (destroyed_at) ON kek_retirement FROM mf_writer")


def _as_before(name: str, source: str) -> str:
    statement = next(text for text in _statements(source) if f"FUNCTION {name}(" in text)
    return re.sub("CREATE (OR REPLACE )?FUNCTION", "CREATE OR REPLACE FUNCTION", statement, count=1)
