"""A run that begins with its submission is told of as queued too, in the same transaction."""

from pathlib import Path

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _say("0013_begun.sql")


def downgrade() -> None:
    _say("0010_webhooks.sql")


def _say(name: str) -> None:
    """Replace the function by the one in a file; who owns it and who may call it stays."""
    source = Path(__file__).with_name(name).read_text(encoding="utf-8").split("--;;")
    statement = next(part for part in source if "FUNCTION webhook_tell(" in part)
    op.execute("GRANT mf_writer TO CURRENT_USER")
    op.execute("GRANT CREATE ON SCHEMA public TO mf_writer")
    op.execute(statement.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
    op.execute("REVOKE CREATE ON SCHEMA public FROM mf_writer")
    op.execute("REVOKE mf_writer FROM CURRENT_USER")
