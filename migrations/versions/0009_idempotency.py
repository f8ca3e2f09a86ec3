"""What the idempotency keys of the last 24 hours began: digests under keys that die, and ids.

Threat: PHI leakage in audit logs
"""

from pathlib import Path

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_OWN_TENANT = "tenant_id = nullif(current_setting('app.tenant', true), '')::uuid"
# Functions and who may call them; nobody but their owner where it says None.
_FUNCTIONS = {
    "idempotency_held(uuid, bytea[])": None,
    "idempotency_begin(uuid, bytea[], bytea[], integer)": "mf_app",
    "idempotency_end(uuid, bytea, uuid, smallint, text)": "mf_app",
    # An eraser appends with the same statement as everybody; what it may not call, it cannot send.
    "idempotency_keep(uuid, uuid, jsonb)": "mf_app, mf_eraser",
    "idempotency_trim(integer)": "mf_app",
    "idempotency_anonymized()": None,
}


def upgrade() -> None:
    source = Path(__file__).with_name("0009_idempotency.sql").read_text(encoding="utf-8")
    for statement in source.split("--;;"):
        op.execute(statement)
    op.execute("ALTER TABLE idempotency ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE idempotency FORCE ROW LEVEL SECURITY")
    for policy in (
        f"app_own_tenant ON idempotency FOR SELECT TO mf_app USING ({_OWN_TENANT})",
        "writer_all ON idempotency TO mf_writer USING (true) WITH CHECK (true)",
        "erase_owner_none ON idempotency TO mf_erase_owner USING (false)",
        "owner_reads ON idempotency FOR SELECT TO CURRENT_USER USING (true)",
        "eraser_none ON idempotency TO mf_eraser USING (false)",
        "sequencer_none ON idempotency TO mf_sequencer USING (false)",
        "audit_none ON idempotency TO mf_audit USING (false)",
    ):
        op.execute(f"CREATE POLICY {policy}")
    op.execute("GRANT SELECT ON idempotency TO mf_app")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency TO mf_writer")
    op.execute("GRANT mf_writer TO CURRENT_USER")
    op.execute("GRANT CREATE ON SCHEMA public TO mf_writer")
    for signature, caller in _FUNCTIONS.items():
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
        if caller is not None:
            op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO {caller}")
        op.execute(f"ALTER FUNCTION {signature} OWNER TO mf_writer")
    op.execute("REVOKE CREATE ON SCHEMA public FROM mf_writer")
    op.execute("REVOKE mf_writer FROM CURRENT_USER")


def downgrade() -> None:
    op.execute("DROP TRIGGER erasure_anonymizes_keys ON erasure")
    op.execute("GRANT mf_writer TO CURRENT_USER")
    for signature in reversed(_FUNCTIONS):
        op.execute(f"DROP FUNCTION {signature}")
    op.execute("REVOKE mf_writer FROM CURRENT_USER")
    op.execute("DROP TABLE idempotency")
