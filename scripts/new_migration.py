"""Starts a migration: its file under the next number, and HEAD."""  # a program

import re
import sys
from pathlib import Path

MIGRATIONS = Path(__file__).resolve().parents[1] / "migrations"

_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
_NUMBERED = re.compile(r"(\d{4})_[a-z0-9_]+\.py")
_TEMPLATE = '''"""What this changes, and whether yesterday's code runs on the new schema."""

from alembic import op

revision = "{revision}"
down_revision = "{before}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add first; take away one release later."""
    op.execute("SELECT write_me")


def downgrade() -> None:
    """Undo it, or raise with the reason why that cannot be."""
    op.execute("SELECT write_me")
'''


def start(migrations: Path, name: str) -> Path:
    """Write the next migration and HEAD. Raises ValueError, having written nothing."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"'{name}' is no name: lower-case letters, digits and underscores")
    head = (migrations / "HEAD").read_text(encoding="ascii").strip()
    found = [_NUMBERED.fullmatch(file.name) for file in (migrations / "versions").iterdir()]
    newest = max((match.group(1) for match in found if match), default="none")
    if newest != head:
        raise ValueError(f"migrations/HEAD says {head}, the newest migration is {newest}")
    revision = f"{int(head) + 1:04d}"
    path = migrations / "versions" / f"{revision}_{name}.py"
    with path.open("x", encoding="utf-8") as file:
        file.write(_TEMPLATE.format(revision=revision, before=head))
    (migrations / "HEAD").write_text(f"{revision}\n", encoding="ascii")
    return path


def main(arguments: list[str]) -> int:
    """0 and the new path on standard output, or 2 and one sentence on standard error."""
    if len(arguments) != 1:
        sys.stderr.write("usage: make migration name=what_it_does\n")
        return 2
    try:
        path = start(MIGRATIONS, arguments[0])
    except ValueError as wrong:
        sys.stderr.write(f"{wrong}\n")
        return 2
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
