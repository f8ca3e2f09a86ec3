"""How often each key has asked within the minute, told once a second by each process.

Threat: Unauthorised API access
"""

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_OWN_TENANT = "tenant_id = nullif(current_setting('app.tenant', true), '')::uuid"
_EXCHANGE = "rates_exchange(uuid[], text[], bigint[])"


def upgrade() -> None:
    source = Path(__file__).with_name("0007_limits.sql").read_text(encoding="utf-8")
    for statement in source.split("--;;"):
        op.execute(statement)
    op.execute("ALTER TABLE rate_use ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE rate_use FORCE ROW LEVEL SECURITY")
    for policy in (
        f"app_own_tenant ON rate_use FOR SELECT TO mf_app USING ({_OWN_TENANT})",
        "writer_all ON rate_use TO mf_writer USING (true) WITH CHECK (true)",
        "erase_owner_none ON rate_use TO mf_erase_owner USING (false)",
        "owner_reads ON rate_use FOR SELECT TO CURRENT_USER USING (true)",
        "eraser_none ON rate_use TO mf_eraser USING (false)",
        "sequencer_none ON rate_use TO mf_sequencer USING (false)",
        "audit_none ON rate_use TO mf_audit USING (false)",
    ):
        op.execute(f"CREATE POLICY {policy}")
    op.execute("GRANT SELECT ON rate_use TO mf_app")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON rate_use TO mf_writer")
    op.execute("GRANT mf_writer TO CURRENT_USER")
    op.execute("GRANT CREATE ON SCHEMA public TO mf_writer")
    op.execute(f"REVOKE ALL ON FUNCTION {_EXCHANGE} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {_EXCHANGE} TO mf_app")
    op.execute(f"ALTER FUNCTION {_EXCHANGE} OWNER TO mf_writer")
    op.execute("REVOKE CREATE ON SCHEMA public FROM mf_writer")
    op.execute("REVOKE mf_writer FROM CURRENT_USER")


def downgrade() -> None:
    op.execute("GRANT mf_writer TO CURRENT_USER")
    op.execute(f"DROP FUNCTION {_EXCHANGE}")
    op.execute("REVOKE mf_writer FROM CURRENT_USER")
    op.execute("DROP TABLE rate_use")
