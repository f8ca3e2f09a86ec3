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

_NEW = {
    "work_outlived(text, integer)": "mf_app",
    "work_rewrap(uuid, uuid, text, text, bytea)": "mf_app",
    "queue_wishes(interval)": "mf_app",
    "webhook_turn_key(uuid, text, text)": "mf_app",
    "webhook_reseal(uuid, uuid, text, bigint, text, bytea)": "mf_app",
    "webhook_pulse()": "mf_app",
}
# Functions of earlier migrations that are other ones from here on, and where they came from.
_CHANGED = {"work_forget": "0006_working.sql", "queue_keep": "0008_dispatch.sql"}


def upgrade() -> None:
    op.execute("GRANT INSERT, UPDATE (destroyed_at) ON kek_retirement TO mf_writer")
    _as_writer(_statements("0012_survival.sql"))
    op.execute("GRANT mf_writer TO CURRENT_USER")
    op.execute("GRANT CREATE ON SCHEMA public TO mf_writer")
    for signature, caller in _NEW.items():
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO {caller}")
        op.execute(f"ALTER FUNCTION {signature} OWNER TO mf_writer")
    op.execute("REVOKE CREATE ON SCHEMA public FROM mf_writer")
    op.execute("REVOKE mf_writer FROM CURRENT_USER")


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
    _as_writer([_as_before(name, source) for name, source in _CHANGED.items()])
    op.execute("GRANT mf_writer TO CURRENT_USER")
    for signature in reversed(_NEW):
        op.execute(f"DROP FUNCTION {signature}")
    op.execute("REVOKE mf_writer FROM CURRENT_USER")
    op.execute("DROP INDEX ix_webhook_delivery_dead")
    op.execute("REVOKE INSERT, UPDATE (destroyed_at) ON kek_retirement FROM mf_writer")


def _as_before(name: str, source: str) -> str:
    statement = next(text for text in _statements(source) if f"FUNCTION {name}(" in text)
    return re.sub("CREATE (OR REPLACE )?FUNCTION", "CREATE OR REPLACE FUNCTION", statement, count=1)
