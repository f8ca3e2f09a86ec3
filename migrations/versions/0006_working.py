"""The working copy of runs under way, and what erasure, key rotation and the heartbeat know of it.

Threat: PHI leakage in audit logs
"""

import re
from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_OWN_TENANT = "tenant_id = nullif(current_setting('app.tenant', true), '')::uuid"
# New functions, their owner and who may call them.
_NEW = {
    "work_keep(uuid, uuid, jsonb)": ("mf_writer", "mf_app, mf_eraser"),
    "work_forget(text[])": ("mf_writer", "mf_app"),
}
# Functions of earlier migrations that are other ones from here on, and where they came from.
_CHANGED = {
    "results_expire": "0003_functions.sql",
    "writer_tick": "0003_functions.sql",
    "erase_anonymize_run": "0005_erasure.sql",
    "erase_delete_run": "0005_erasure.sql",
    "kek_wraps": "0005_erasure.sql",
    "kek_rewrap": "0005_erasure.sql",
    "kek_destroyed": "0005_erasure.sql",
}
_OWNERS = ("mf_writer", "mf_erase_owner")


def upgrade() -> None:
    _as_owners(_statements("0006_working.sql"))
    _rights()
    for signature, (owner, callers) in _NEW.items():
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO {callers}")
        op.execute(f"GRANT {owner} TO CURRENT_USER")
        op.execute(f"GRANT CREATE ON SCHEMA public TO {owner}")
        op.execute(f"ALTER FUNCTION {signature} OWNER TO {owner}")
        op.execute(f"REVOKE CREATE ON SCHEMA public FROM {owner}")
        op.execute(f"REVOKE {owner} FROM CURRENT_USER")


def _statements(name: str) -> list[str]:
    return Path(__file__).with_name(name).read_text(encoding="utf-8").split("--;;")


def _as_owners(statements: list[str]) -> None:
    """A function keeps its owner when it is replaced; only who may act as that one can do it."""
    for owner in _OWNERS:
        op.execute(f"GRANT {owner} TO CURRENT_USER")
        op.execute(f"GRANT CREATE ON SCHEMA public TO {owner}")
    for statement in statements:
        op.execute(statement)
    for owner in _OWNERS:
        op.execute(f"REVOKE CREATE ON SCHEMA public FROM {owner}")
        op.execute(f"REVOKE {owner} FROM CURRENT_USER")


def _rights() -> None:
    op.execute("GRANT SELECT ON run_work TO mf_app")
    op.execute(
        "GRANT SELECT, INSERT, UPDATE (kek_id, wrapped, blob), DELETE ON run_work TO mf_writer"
    )
    op.execute("GRANT SELECT, UPDATE (kek_id, wrapped), DELETE ON run_work TO mf_erase_owner")
    op.execute("ALTER TABLE run_work ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE run_work FORCE ROW LEVEL SECURITY")
    for policy in (
        f"app_own_tenant ON run_work FOR SELECT TO mf_app USING ({_OWN_TENANT})",
        "writer_all ON run_work TO mf_writer USING (true) WITH CHECK (true)",
        "erase_owner_all ON run_work TO mf_erase_owner USING (true) WITH CHECK (true)",
        "owner_reads ON run_work FOR SELECT TO CURRENT_USER USING (true)",
        "audit_none ON run_work TO mf_audit USING (false)",
        "eraser_none ON run_work TO mf_eraser USING (false)",
        "sequencer_none ON run_work TO mf_sequencer USING (false)",
    ):
        op.execute(f"CREATE POLICY {policy}")


def downgrade() -> None:
    """Runs under way lose their working copy: whoever finds one of them ends it as interrupted."""
    before = []
    for name, source in _CHANGED.items():
        opening = re.compile(rf"CREATE FUNCTION {name}\(")
        (found,) = [text for text in _statements(source) if opening.search(text)]
        before.append(found.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
    dropped = [f"DROP FUNCTION {signature}" for signature in _NEW]
    _as_owners([*before, *dropped])
    op.execute("DROP TABLE run_work")
