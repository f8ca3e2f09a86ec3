"""The pool, and the two ways to use it: a tenant's read-only snapshot, and a single statement.

No caller may hold a connection across a model call, a tool run or a stream's wait.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import TypeAlias
from uuid import UUID

import asyncpg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from app.domain.errors import LedgerUnavailableError
from app.domain.run import TenantId
from app.telemetry import meters

_POOL_WAIT_SECONDS = 1.0
_CONNECT_SECONDS = 5.0
_CLOSING_TURNS = 100
_UNAVAILABLE = (
    OSError,
    PoolTimeoutError,
    SQLAlchemyError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.QueryCanceledError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InternalClientError,
    asyncio.IncompleteReadError,
    TimeoutError,
)


# What `snapshot` and `writing` give: whoever holds it may read and hand it on to a store.
Snapshot: TypeAlias = asyncpg.Connection


class Database:
    """The application's pool of connections, as the role `mf_app`."""

    def __init__(self, url: str, *, pool_size: int = 16, statement_seconds: int = 5) -> None:
        self._engine: AsyncEngine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=_POOL_WAIT_SECONDS,
            pool_reset_on_return=None,  # this class leaves no transaction open; see `driver`
            hide_parameters=True,
            connect_args={
                "timeout": _CONNECT_SECONDS,
                "command_timeout": statement_seconds * 2.0,
                "server_settings": {
                    "application_name": "meshflow",
                    "statement_timeout": str(statement_seconds * 1000),
                    "lock_timeout": "2000",
                    "idle_in_transaction_session_timeout": "10000",
                },
            },
        )

    def has_connections_to_spare(self) -> bool:
        """Whether one could be had without a wait, and another one after it."""
        pool = self._engine.pool
        return isinstance(pool, QueuePool) and pool.checkedout() + 1 < pool.size()

    async def close(self) -> None:
        """Close every connection; those in use have a moment to come back."""
        pool = self._engine.pool
        for _ in range(_CLOSING_TURNS):
            if not isinstance(pool, QueuePool) or not pool.checkedout():
                break
            await asyncio.sleep(0.01)
        await self._engine.dispose()
        # A connection that was thrown away lets go of its socket at the loop's next turns.
        await asyncio.sleep(0.01)

    @asynccontextmanager
    async def driver(self) -> AsyncIterator[asyncpg.Connection]:
        """The driver's own connection, for the statements that run on every step.

        A connection on which anything went wrong, cancellation included, is thrown away: it may
        be in the middle of a statement. LedgerUnavailableError when the database is not there.
        """
        began = perf_counter()
        try:
            async with self._engine.connect() as connection:
                meters.POOL_WAIT_SECONDS.observe(perf_counter() - began)
                raw = _driver_of(await connection.get_raw_connection())
                while raw.is_closed():  # it died in the pool: the server was restarted, say
                    await connection.invalidate()
                    raw = _driver_of(await connection.get_raw_connection())
                try:
                    yield raw
                except asyncpg.PostgresError as error:
                    if not isinstance(error, _UNAVAILABLE) and not raw.is_in_transaction():
                        raise  # the server answered: the connection is sound
                    await asyncio.shield(connection.invalidate())
                    raise
                except BaseException:  # cancelled in mid-statement: nobody may use it again
                    await asyncio.shield(connection.invalidate())
                    raise
        except _UNAVAILABLE as error:
            raise LedgerUnavailableError("the database did not answer") from error

    @asynccontextmanager
    async def snapshot(self, tenant_id: TenantId) -> AsyncIterator[asyncpg.Connection]:
        """One consistent, read-only view of a tenant's rows under row-level security."""
        async with self.driver() as raw:
            # The tenant is printed from a UUID object, never taken from a request's text.
            tenant = str(UUID(int=tenant_id.int))
            await raw.execute(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
                f" SET LOCAL app.tenant = '{tenant}'"
            )
            yield raw
            await raw.execute("COMMIT")

    @asynccontextmanager
    async def writing(self, tenant_id: TenantId) -> AsyncIterator[asyncpg.Connection]:
        """A short read-write transaction of one tenant; commits on a clean exit."""
        async with self.driver() as raw:
            tenant = str(UUID(int=tenant_id.int))
            await raw.execute(f"BEGIN; SET LOCAL app.tenant = '{tenant}'")
            yield raw
            await raw.execute("COMMIT")

    async def revision(self) -> str | None:
        """The schema's revision as the application sees it."""
        async with self.driver() as raw:
            found: str | None = await raw.fetchval("SELECT version_num FROM alembic_version")
            return found


def _driver_of(raw: PoolProxiedConnection) -> asyncpg.Connection:
    if raw.driver_connection is None:
        raise LedgerUnavailableError("the pool gave a closed connection")
    return raw.driver_connection
