"""Group commit: appends that wait at the same time share one transaction, so one fsync.

Each caller still learns of its own fate only: when a shared transaction fails, every part of it is
tried alone.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import asyncpg

from app.domain.errors import MeshFlowError
from app.storage.database import Database

MOST_TOGETHER = 64
Arguments = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class _Waiting:
    arguments: Arguments
    done: asyncio.Future[None]


class GroupCommit:
    """Runs one statement for many callers. One flush at a time: the next one fills meanwhile."""

    def __init__(
        self,
        database: Database,
        statement: str,
        translated: Callable[[asyncpg.PostgresError], Exception],
    ) -> None:
        self._database = database
        self._statement = statement
        self._translated = translated
        self._queue: list[_Waiting] = []
        self._flusher: asyncio.Task[None] | None = None

    async def append(self, arguments: Arguments) -> None:
        """Durable when this returns. Raises what the statement said, or LedgerUnavailableError."""
        waiting = _Waiting(arguments, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush_all())
        await waiting.done

    async def _flush_all(self) -> None:
        while self._queue:
            await self._flush(self._next_group(), go_on=True)

    def _next_group(self) -> list[_Waiting]:
        group, self._queue = self._queue[:MOST_TOGETHER], self._queue[MOST_TOGETHER:]
        return group

    async def _flush(self, group: list[_Waiting], *, go_on: bool) -> None:
        """Never raises: whoever waits is told. May go on with what has come in the meantime."""
        try:
            async with self._database.driver() as raw:
                await self._write(raw, group)
                while go_on and self._queue:
                    _tell(group, None)
                    group = self._next_group()
                    await self._write(raw, group)
        except asyncpg.PostgresError as error:
            if len(group) > 1:
                # One of them was refused and took the others with it: each gets its own try.
                for item in group:
                    await self._flush([item], go_on=False)
                return
            _tell(group, self._translated(error))
        except MeshFlowError as error:
            _tell(group, error)
        except BaseException as error:
            _tell(group, error)
            raise
        else:
            _tell(group, None)  # the last ones once the connection is back in the pool

    async def _write(self, raw: asyncpg.Connection, group: Sequence[_Waiting]) -> None:
        await raw.executemany(self._statement, [item.arguments for item in group])


def _tell(group: Sequence[_Waiting], error: BaseException | None) -> None:
    for item in group:
        if item.done.done():
            continue  # its caller has gone away
        if error is None:
            item.done.set_result(None)
        else:
            item.done.set_exception(error)
