"""The queue of runs: tables of pgqueuer, changed in the transactions of records.

Threat: Ledger tampering
"""

import re
from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_NEW = {
    "queue_keep(uuid, uuid, jsonb)": "mf_app, mf_eraser",
    "queue_mend(integer)": "mf_app",
}
# What a worker changes of a place in the queue: who holds it, since when, and when it is due.
_CLAIM = "status, updated, heartbeat, queue_manager_id, execute_after, attempts, slot"
_TABLES = ("pgqueuer", "pgqueuer_log", "pgqueuer_schedules", "pgqueuer_statistics")


def upgrade() -> None:
    _as_writer(_statements("0008_dispatch.sql"))
    op.execute("GRANT SELECT, DELETE ON pgqueuer TO mf_app")
    op.execute(f"GRANT UPDATE ({_CLAIM}) ON pgqueuer TO mf_app")
    op.execute("GRANT SELECT, INSERT, DELETE ON pgqueuer_log TO mf_app")
    op.execute("GRANT SELECT, DELETE ON pgqueuer_statistics TO mf_app")
    op.execute("GRANT SELECT, INSERT, DELETE ON pgqueuer TO mf_writer")
    op.execute(f"GRANT UPDATE ({_CLAIM}) ON pgqueuer TO mf_writer")
    op.execute("GRANT USAGE ON SEQUENCE pgqueuer_id_seq TO mf_writer")
    for signature, callers in _NEW.items():
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO {callers}")
    _as_writer([f"ALTER FUNCTION {signature} OWNER TO mf_writer" for signature in _NEW])


def _statements(name: str) -> list[str]:
    return Path(__file__).with_name(name).read_text(encoding="utf-8").split("--;;")


def _as_writer(statements: list[str]) -> None:
    op.execute("GRANT mf_writer TO CURRENT_USER")
    op.execute("GRANT CREATE ON SCHEMA public TO mf_writer")
    for statement in statements:
        op.execute(statement)
    op.execute("REVOKE CREATE ON SCHEMA public FROM mf_writer")
    op.execute("REVOKE mf_writer FROM CURRENT_USER")


def downgrade() -> None:
    """Runs that wait stay with the processes that let them in."""
    opening = re.compile(r"CREATE OR REPLACE FUNCTION writer_tick\(")
    before = [text for text in _statements("0006_working.sql") if opening.search(text)]
    _as_writer([*before, *(f"DROP FUNCTION {signature}" for signature in _NEW)])
    for table in _TABLES:
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP TYPE pgqueuer_status")
