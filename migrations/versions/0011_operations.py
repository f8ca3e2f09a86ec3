"""What those who run the service ask the database for, and how long each role may keep it busy."""

from pathlib import Path

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_FUNCTIONS = ("runs_pulse()", "runs_heads(uuid[], uuid[])")
# Milliseconds: of one statement, of waiting for a lock, and of a transaction that does nothing.
# A process says the same for its connections; these hold where a pooler leaves that out.
_TIMEOUTS = {
    "mf_app": (5_000, 2_000, 10_000),
    "mf_sequencer": (5_000, 2_000, 10_000),
    "mf_audit": (5_000, 2_000, 10_000),
    "mf_eraser": (600_000, 2_000, 10_000),
}
_NAMES = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
# Of a whole transaction, from PostgreSQL 17 on. An audit reads all logs in one.
_TRANSACTION_TIMEOUTS = {"mf_app": 60_000}


def upgrade() -> None:
    source = Path(__file__).with_name("0011_operations.sql").read_text(encoding="utf-8")
    for statement in source.split("--;;"):
        op.execute(statement)
    op.execute("GRANT mf_writer TO CURRENT_USER")
    op.execute("GRANT CREATE ON SCHEMA public TO mf_writer")
    for function in _FUNCTIONS:
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO mf_app")
        op.execute(f"ALTER FUNCTION {function} OWNER TO mf_writer")
    op.execute("REVOKE CREATE ON SCHEMA public FROM mf_writer")
    op.execute("REVOKE mf_writer FROM CURRENT_USER")
    for role, values in _TIMEOUTS.items():
        named = zip(_NAMES, values, strict=True)
        _alter(role, [f"SET {name} = {value}" for name, value in named])
    for role, value in _TRANSACTION_TIMEOUTS.items():
        _alter(role, [f"SET transaction_timeout = {value}"], since=170_000)


def _alter(role: str, changes: list[str], *, since: int = 0) -> None:
    """Of this database alone: another one of the server may use the roles in its own way.

    Whoever made the roles may have kept the right to alter them: then it is theirs to do.
    """
    altered = " ".join(
        f"EXECUTE format('ALTER ROLE {role} IN DATABASE %I {change}', current_database());"
        for change in changes
    )
    op.execute(
        "DO $$ BEGIN"
        f" IF current_setting('server_version_num')::int >= {since} THEN {altered} END IF;"
        " EXCEPTION WHEN insufficient_privilege THEN RAISE WARNING"
        f" 'the timeouts of {role} are not set: the owner may not alter it'; END $$"
    )


def downgrade() -> None:
    for role in _TIMEOUTS:
        _alter(role, ["RESET ALL"])
    op.execute("GRANT mf_writer TO CURRENT_USER")
    for function in _FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}")
    op.execute("REVOKE mf_writer FROM CURRENT_USER")
