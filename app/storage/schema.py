"""Brings the schema to the revision this code knows, under a lock and with timeouts."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.domain.errors import ConfigurationError, LedgerUnavailableError

Step = Callable[[Connection, str], None]

_ADVISORY_LOCK = 0x6D657368666C6F77  # "meshflow"
_LOCK_WAIT_SECONDS = 60


def migrations_directory() -> Path:
    """Where the migrations are: in the tree, or inside an installed wheel."""
    package = Path(__file__).resolve().parents[1]
    packed = package / "_migrations"
    return packed if packed.is_dir() else package.parent / "migrations"


def known_revision() -> str:
    """The revision this code was written for."""
    return (migrations_directory() / "HEAD").read_text(encoding="ascii").strip()


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_directory()))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _prepare(connection: Connection) -> None:
    connection.execute(text("SET lock_timeout = '4s'"))
    connection.execute(text("SET statement_timeout = '30s'"))
    connection.commit()


def _upgrade(connection: Connection, revision: str) -> None:
    _prepare(connection)
    command.upgrade(_config(connection), revision)


def _downgrade(connection: Connection, revision: str) -> None:
    _prepare(connection)
    command.downgrade(_config(connection), revision)


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def heads() -> list[str]:
    """The newest revisions of the migrations; more than one is a defect."""
    config = Config()
    config.set_main_option("script_location", str(migrations_directory()))
    config.set_main_option("path_separator", "os")
    return list(ScriptDirectory.from_config(config).get_heads())


async def upgrade(owner_url: str, revision: str = "head") -> str | None:
    """Migrate as the owner. Two at once wait for each other; each migration is one transaction."""
    return await _locked(owner_url, _upgrade, revision)


async def downgrade(owner_url: str, revision: str) -> str | None:
    """Go back to `revision`."""
    return await _locked(owner_url, _downgrade, revision)


async def current_revision(url: str) -> str | None:
    """The revision the database is at, or None before the first migration."""
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(_current)
    except (SQLAlchemyError, OSError, asyncpg.PostgresError) as error:
        raise LedgerUnavailableError("the database did not answer") from error
    finally:
        await engine.dispose()


async def owns_ledger(url: str) -> bool:
    """Whether this login owns the ledger's tables. LedgerUnavailableError."""
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            owner = text(
                "SELECT pg_has_role(current_user, relowner, 'USAGE') FROM pg_class"
                " WHERE oid = 'public.record'::regclass"
            )
            return bool((await connection.execute(owner)).scalar_one())
    except (SQLAlchemyError, OSError, asyncpg.PostgresError) as error:
        raise LedgerUnavailableError("the database did not answer") from error
    finally:
        await engine.dispose()


async def _locked(url: str, step: Step, revision: str) -> str | None:
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with asyncio.timeout(_LOCK_WAIT_SECONDS), engine.connect() as lock:
            # A session-level lock on a connection of its own: migrations commit, the lock stays.
            await lock.execute(text(f"SELECT pg_advisory_lock({_ADVISORY_LOCK})"))
            async with engine.connect() as connection:
                await connection.run_sync(step, revision)
                await connection.rollback()
                return await connection.run_sync(_current)
    except TimeoutError as error:
        raise ConfigurationError("another migration holds the lock; try again later") from error
    except (OSError, asyncpg.CannotConnectNowError) as error:
        raise LedgerUnavailableError("the database did not answer") from error
    finally:
        await engine.dispose()
