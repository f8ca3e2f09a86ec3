"""Lawful erasure: requests, holds, retired keys, and the functions that alone take anything away.

Threat: PHI leakage in audit logs
"""

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TABLES = ("erasure", "run_hold", "kek_retirement")
_OWN_TENANT = "tenant_id = nullif(current_setting('app.tenant', true), '')::uuid"
_UUIDS_OF_A_RECORD = "uuid, uuid, uuid, uuid, bigint"
_SNAPSHOT = "bigint[], bytea[], bytea[], bigint[], smallint[]"
_MOMENTS = "timestamptz, timestamptz, text"
# Functions of the owner of erasure, and who may call each: nobody, where only others of them do.
_FUNCTIONS = {
    f"erase_anonymize_run({_UUIDS_OF_A_RECORD}, {_SNAPSHOT}, bigint[], smallint[], bytea[],"
    f" text, bytea, {_MOMENTS})": "mf_eraser",
    f"erase_delete_run({_UUIDS_OF_A_RECORD}, {_SNAPSHOT}, {_MOMENTS})": "mf_eraser",
    f"erase_delete_tenant({_UUIDS_OF_A_RECORD}, text[], {_MOMENTS})": "mf_eraser",
    "erasure_refuse(uuid, uuid, text)": "mf_eraser",
    "erasure_waiting()": "mf_eraser",
    "erasure_complete(uuid, timestamptz)": "mf_eraser",
    "kek_waiting()": "mf_eraser",
    "kek_retire(uuid, text, text, timestamptz)": "mf_eraser",
    "kek_wraps(uuid, text)": "mf_eraser",
    "kek_rewrap(uuid, text, uuid, text, text, bytea)": "mf_eraser",
    "kek_destroyed(uuid, text, timestamptz, timestamptz)": "mf_eraser",
    "kek_in_use(uuid, text)": "mf_writer",
    "erase_recorded(uuid, text, uuid, bigint)": None,
    f"erase_locked(uuid, uuid, {_SNAPSHOT})": None,
    "erase_receipt(uuid, uuid, text[], uuid, bigint, timestamptz, timestamptz, text)": None,
}
_REQUEST = (
    "erasure_request(uuid, uuid, uuid, text, uuid, text[], text, bytea, text, timestamptz,"
    " uuid, bytea)"
)
_APPEND = (
    "ledger_append(uuid, uuid, uuid, bytea, bytea, bytea, bytea, uuid[], bigint[], bigint[],"
    " text[], timestamptz[], bytea[], bytea[], bytea[], uuid[], bigint[], smallint[], bytea[],"
    " jsonb)"
)
# What erasing may change: nothing that a hash was taken of, except to make it empty.
_ERASES = (
    ("UPDATE (header, kind, ts, epoch)", "record"),
    ("UPDATE (blob)", "payload"),
    ("UPDATE (kek_id, wrapped)", "run_key"),
    ("UPDATE (kek_id, wrapped)", "run_result"),
    ("UPDATE (owner)", "runs"),  # to lock a row, one column must be open
    ("UPDATE (halted)", "tenants"),
    ("DELETE", "record, payload, batch, run_key, run_result, run_command, runs, tenants"),
    ("SELECT, INSERT, UPDATE, DELETE", "erasure, run_hold, kek_retirement"),
)


def upgrade() -> None:
    source = Path(__file__).with_name("0005_erasure.sql").read_text(encoding="utf-8")
    for statement in source.split("--;;"):
        op.execute(statement)
    for table in _TABLES:
        _row_level_security(table)
    for right, table in _ERASES:
        op.execute(f"GRANT {right} ON {table} TO mf_erase_owner")
    op.execute("GRANT SELECT ON erasure, run_hold, kek_retirement TO mf_app, mf_audit, mf_writer")
    op.execute("GRANT INSERT ON erasure TO mf_writer")
    op.execute("GRANT INSERT, DELETE ON run_hold TO mf_writer")
    op.execute("GRANT mf_writer TO CURRENT_USER")
    op.execute(f"GRANT EXECUTE ON FUNCTION {_APPEND} TO mf_eraser")
    op.execute("REVOKE mf_writer FROM CURRENT_USER")
    for signature, caller in _FUNCTIONS.items():
        _owned(signature, "mf_erase_owner", caller)
    _owned(_REQUEST, "mf_writer", "mf_app")


def _owned(signature: str, owner: str, caller: str | None) -> None:
    op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
    if caller is not None:
        op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO {caller}")
    op.execute(f"GRANT {owner} TO CURRENT_USER")
    op.execute(f"GRANT CREATE ON SCHEMA public TO {owner}")
    op.execute(f"ALTER FUNCTION {signature} OWNER TO {owner}")
    op.execute(f"REVOKE CREATE ON SCHEMA public FROM {owner}")
    op.execute(f"REVOKE {owner} FROM CURRENT_USER")


def _row_level_security(table: str) -> None:
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    for policy in (
        f"app_own_tenant ON {table} FOR SELECT TO mf_app USING ({_OWN_TENANT})",
        f"mf_audit_reads ON {table} FOR SELECT TO mf_audit USING (true)",
        f"writer_all ON {table} TO mf_writer USING (true) WITH CHECK (true)",
        f"erase_owner_all ON {table} TO mf_erase_owner USING (true) WITH CHECK (true)",
        f"owner_reads ON {table} FOR SELECT TO CURRENT_USER USING (true)",
        f"eraser_none ON {table} TO mf_eraser USING (false)",
        f"sequencer_none ON {table} TO mf_sequencer USING (false)",
    ):
        op.execute(f"CREATE POLICY {policy}")


def downgrade() -> None:
    for owner in ("mf_erase_owner", "mf_writer"):
        op.execute(f"GRANT {owner} TO CURRENT_USER")
    for signature in (*_FUNCTIONS, _REQUEST):
        op.execute(f"DROP FUNCTION {signature}")
    op.execute(f"REVOKE EXECUTE ON FUNCTION {_APPEND} FROM mf_eraser")
    for owner in ("mf_erase_owner", "mf_writer"):
        op.execute(f"REVOKE {owner} FROM CURRENT_USER")
    for right, table in _ERASES[:-1]:
        op.execute(f"REVOKE {right} ON {table} FROM mf_erase_owner")
    for table in reversed(_TABLES):
        op.execute(f"DROP TABLE {table}")
