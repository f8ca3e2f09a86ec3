"""Runs the migrations of a directory, forward or back, on a connection that somebody else holds."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def upgrade(connection: Connection, directory: Path, revision: str) -> None:
    """Forward to a revision."""
    command.upgrade(_config(directory, connection), revision)


def downgrade(connection: Connection, directory: Path, revision: str) -> None:
    """Back to a revision."""
    command.downgrade(_config(directory, connection), revision)


def heads(directory: Path) -> list[str]:
    """The newest revisions."""
    return list(ScriptDirectory.from_config(_config(directory, None)).get_heads())


def _config(directory: Path, connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(directory))
    config.set_main_option("path_separator", "os")
    if connection is not None:
        config.attributes["connection"] = connection
    return config
