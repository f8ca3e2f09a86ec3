"""The log of each tenant: leaves, tiles, heads, checkpoints, cosignatures, and who leads.

Threat: Ledger tampering
"""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TABLES = (
    "leaf",
    "tile",
    "log_head",
    "checkpoint",
    "cosignature",
    "left_out",
    "sequencer_state",
)
_PARTITIONED = ("leaf", "tile")
_APPEND_ONLY = ("leaf", "checkpoint", "cosignature")
_GROWING = {
    "tile": "tile_only_widens",
    "log_head": "log_head_only_grows",
    "left_out": "left_out_stands",
    "sequencer_state": "sequencer_term_only_grows",
}
_READERS = ("mf_app", "mf_audit", "mf_sequencer", "mf_erase_owner")
# What the sequencer changes of rows that are there; of everything else it only adds rows.
_UPDATES = {
    "tile": "data",
    "log_head": "size, root, integrated_at",
    "sequencer_state": "term, system_identifier, xid, beaten_at",
    "left_out": "alarm_seq",
    "tenants": "halted",
    "writer_key": "retired_at, retired_xid, retirement_seq",
}
_OWN_TENANT = "tenant_id = nullif(current_setting('app.tenant', true), '')::uuid"


def upgrade() -> None:
    source = Path(__file__).with_name("0004_log.sql").read_text(encoding="utf-8")
    for statement in source.split("--;;"):
        op.execute(statement)
    for function in (*_GROWING.values(), "halt_stays"):
        op.execute(f"REVOKE ALL ON FUNCTION {function}() FROM PUBLIC")
    for table in _TABLES:
        _guard(table)
        _rights(table)
    for table, columns in _UPDATES.items():
        op.execute(f"GRANT UPDATE ({columns}) ON {table} TO mf_sequencer")
    op.execute("CREATE POLICY owner_recovers ON log_head FOR UPDATE TO CURRENT_USER USING (true)")
    op.execute(
        "CREATE TRIGGER tenants_halt_stays BEFORE UPDATE ON tenants"
        " FOR EACH ROW EXECUTE FUNCTION halt_stays()"
    )
    op.execute("ALTER TABLE tenants ENABLE ALWAYS TRIGGER tenants_halt_stays")


def _guard(table: str) -> None:
    deny = "ledger_deny_change"
    changes = "UPDATE OR DELETE" if table in _APPEND_ONLY else "DELETE"
    _always(table, f"{table}_no_change", f"BEFORE {changes} ON {table} FOR EACH ROW", deny)
    if table in _GROWING:
        grows = f"BEFORE UPDATE ON {table} FOR EACH ROW"
        _always(table, f"{table}_only_grows", grows, _GROWING[table])
    for target in _with_partition(table):
        name = f"{table}_no_truncate"
        op.execute(
            f"CREATE TRIGGER {name} BEFORE TRUNCATE ON {target}"
            f" FOR EACH STATEMENT EXECUTE FUNCTION {deny}()"
        )
        op.execute(f"ALTER TABLE {target} ENABLE ALWAYS TRIGGER {name}")


def _always(table: str, name: str, when: str, function: str) -> None:
    op.execute(f"CREATE TRIGGER {name} {when} EXECUTE FUNCTION {function}()")
    for target in _with_partition(table):
        op.execute(f"ALTER TABLE {target} ENABLE ALWAYS TRIGGER {name}")


def _with_partition(table: str) -> tuple[str, ...]:
    return (table, f"{table}_default") if table in _PARTITIONED else (table,)


def _rights(table: str) -> None:
    for role in _READERS:
        op.execute(f"GRANT SELECT ON {table} TO {role}")
    op.execute(f"GRANT INSERT ON {table} TO mf_sequencer")
    op.execute(f"GRANT DELETE ON {table} TO mf_erase_owner")
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    for policy in (
        f"app_own_tenant ON {table} FOR SELECT TO mf_app USING ({_OWN_TENANT})",
        f"mf_audit_reads ON {table} FOR SELECT TO mf_audit USING (true)",
        f"sequencer_all ON {table} TO mf_sequencer USING (true) WITH CHECK (true)",
        f"erase_owner_all ON {table} TO mf_erase_owner USING (true) WITH CHECK (true)",
        f"owner_reads ON {table} FOR SELECT TO CURRENT_USER USING (true)",
        f"eraser_none ON {table} TO mf_eraser USING (false)",
        f"writer_none ON {table} TO mf_writer USING (false)",
    ):
        op.execute(f"CREATE POLICY {policy}")


def downgrade() -> None:
    """Rights on tables of earlier revisions go; the rest goes with its table."""
    op.execute("DROP TRIGGER tenants_halt_stays ON tenants")
    for table, columns in _UPDATES.items():
        if table not in _TABLES:
            op.execute(f"REVOKE UPDATE ({columns}) ON {table} FROM mf_sequencer")
    for table in reversed(_TABLES):
        op.execute(f"DROP TABLE {table}")
    for function in (*_GROWING.values(), "halt_stays"):
        op.execute(f"DROP FUNCTION {function}()")
