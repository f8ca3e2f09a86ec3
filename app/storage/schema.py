"""Brings the schema to the revision this code knows, under a lock and with timeouts.

A server asks for the revision alone and does not carry the library that migrates.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import asyncpg
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


def known_revisions() -> frozenset[str]:
    """The revisions that this code has a migration for. Those of newer code are not among them."""
    return frozenset(path.name[:4] for path in (migrations_directory() / "versions").glob("*.py"))


def _prepare(connection: Connection) -> None:
    connection.execute(text("SET lock_timeout = '4s'"))
    connection.execute(text("SET statement_timeout = '30s'"))
    connection.commit()


def _upgrade(connection: Connection, revision: str) -> None:
    from app.storage import migrating  # noqa: PLC0415  # imports alembic: 6 MB

    _prepare(connection)
    migrating.upgrade(connection, migrations_directory(), revision)


def _downgrade(connection: Connection, revision: str) -> None:
    from app.storage import migrating  # noqa: PLC0415  # as above

    _prepare(connection)
    migrating.downgrade(connection, migrations_directory(), revision)


def _current(connection: Connection) -> str | None:
    if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar_one() is None:
        return None
    found: str | None = connection.execute(
        text("SELECT version_num FROM alembic_version")
    ).scalar_one_or_none()
    return found


def heads() -> list[str]:
    """The newest revisions of the migrations; more than one is a defect."""
    from app.storage import migrating  # noqa: PLC0415  # as above

    return migrating.heads(migrations_directory())


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
