"""Group commit: appends that wait at the same time share a transaction, and one signature a log.

Each caller still learns of its own fate only: whoever is refused is dropped, and the others are
signed anew and written without it.

Threat: Ledger tampering
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from app.domain.errors import LedgerUnavailableError, OverloadedError
from app.domain.run import JsonObject
from app.ledger.batches import SealedBatch, signed_batch
from app.ledger.writing import Entropy, SealedAppend
from app.storage.database import Database
from app.telemetry import meters

MOST_TOGETHER = 512
MOST_OUTSTANDING = 4096
_MOST_BYTES = 4 << 20  # of payloads in one statement; one append alone may be larger
# Answered at a time, and enough for a flush of its own: while half of those who append are being
# committed, the other half seal what comes next.
AT_ONCE = 64
_MOST_FLUSHERS = 2
_PATIENCE_TURNS = 3  # of the loop: what those who were just answered append next comes at once
_BATCH_ID_BYTES = 16
_HELD = "MF014"  # somebody holds a row of the named runs: they wait for it alone
_EVERYBODYS = frozenset({"MF006", "55P03"})  # the writer is retired; a lock on a whole table
Arguments = tuple[object, ...]
Call = Callable[[SealedBatch, Sequence[JsonObject]], Arguments]
Translation = Callable[[asyncpg.PostgresError], Exception]


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    sealed: SealedAppend
    companions: Sequence[JsonObject]
    done: asyncio.Future[SealedBatch]

    @property
    def place(self) -> tuple[bytes, bytes]:
        return self.sealed.log, self.sealed.run


_Group = Sequence[_Waiting]


class GroupCommit:
    """Runs one statement for many callers: what is appended during a flush goes with the next one.

    A second flush runs beside the first when enough wait; never both with records of one run.
    """

    def __init__(
        self,
        database: Database,
        entropy: Entropy,
        statement: str,
        call: Call,
        translated: Translation,
    ) -> None:
        self._database = database
        self._entropy = entropy
        self._statement = statement
        self._call = call
        self._translated = translated
        self._queue: deque[_Waiting] = deque()
        self._in_flight: set[tuple[bytes, bytes]] = set()
        self._flushers: list[asyncio.Task[None]] = []

    async def append(self, sealed: SealedAppend, companions: Sequence[JsonObject]) -> SealedBatch:
        """The batch that holds it; durable when this returns.

        Raises what the database said of this append, LedgerUnavailableError when it said nothing,
        OverloadedError before anything is done when too many wait already.
        """
        if len(self._queue) + len(self._in_flight) >= MOST_OUTSTANDING:
            raise OverloadedError(retry_after_seconds=1)
        waiting = _Waiting(sealed, companions, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._see_to_a_flusher()
        return await waiting.done

    def _see_to_a_flusher(self) -> None:
        """One at least; a second one when it has a flush to do and need not wait to do it."""
        self._flushers = [task for task in self._flushers if not task.done()]
        running = len(self._flushers)
        if not running or (
            running < _MOST_FLUSHERS
            and len(self._queue) >= AT_ONCE
            and self._database.has_connections_to_spare()
        ):
            self._flushers.append(asyncio.create_task(self._flush_all()))

    async def _flush_all(self) -> None:
        """Ends when nobody waits, and gives way to nobody between that look and its end.

        Whoever waits for a run in another flush is left to that one, which looks again after it.
        """
        try:
            while group := self._next_group():
                await self._flush(deque([group]))
        except BaseException:
            _refuse(self._queue, LedgerUnavailableError("the process is about to end"))
            self._queue.clear()
            raise

    def _next_group(self) -> _Group:
        """Those who have waited longest; of each run one at a time, for the next builds on it."""
        group: list[_Waiting] = []
        later: list[_Waiting] = []
        size = 0
        while self._queue and len(group) < MOST_TOGETHER and size < _MOST_BYTES:
            item = self._queue.popleft()
            if item.done.done():
                continue  # its caller has gone away before anything was done
            if item.place in self._in_flight:
                later.append(item)
                continue
            self._in_flight.add(item.place)
            group.append(item)
            size += sum([len(part.blob) for part in item.sealed.fields])
        self._queue.extendleft(reversed(later))
        return group

    async def _flush(self, groups: deque[_Group]) -> None:
        """Settle the groups, and go on with what comes meanwhile while the connection is there.

        Never raises but for what ends the task, and then nobody is left waiting.
        """
        while groups:
            try:
                async with self._database.driver() as raw:
                    await self._write_all(raw, groups)
            except asyncpg.PostgresError as error:
                groups.extendleft(reversed(self._without_refused(groups.popleft(), error)))
            except Exception as error:  # noqa: BLE001 - whoever waits must hear of a fault of ours
                if groups:  # else all was written, and the connection broke afterwards
                    self._refuse(groups.popleft(), error)
            except BaseException:
                for group in groups:
                    self._refuse(group, LedgerUnavailableError("the process is about to end"))
                raise

    async def _write_all(self, raw: asyncpg.Connection, groups: deque[_Group]) -> None:
        while groups:
            batches = await self._write(raw, groups[0])
            await self._acknowledge_all(groups.popleft(), batches)
            for _ in range(_PATIENCE_TURNS):
                if groups:
                    break
                await asyncio.sleep(0)
                if group := self._next_group():
                    groups.append(group)

    async def _write(self, raw: asyncpg.Connection, group: _Group) -> Sequence[SealedBatch]:
        """All of a group or nothing, in one transaction; the batch of each."""
        shares: dict[tuple[bytes, bytes], list[_Waiting]] = {}
        for item in group:
            # In one order everywhere, so that two processes do not wait for each other.
            shares.setdefault((item.sealed.log, item.sealed.writer.writer_id), []).append(item)
        calls: list[Arguments] = []
        batches: dict[tuple[bytes, bytes], SealedBatch] = {}
        for key, share in sorted(shares.items()):
            share.sort(key=lambda item: item.sealed.run)
            batch = signed_batch([item.sealed for item in share], self._entropy(_BATCH_ID_BYTES))
            batches[key] = batch
            calls.append(self._call(batch, [told for item in share for told in item.companions]))
        if calls:
            with meters.timed(meters.COMMIT_SECONDS):
                await raw.executemany(self._statement, calls)
        return [batches[item.sealed.log, item.sealed.writer.writer_id] for item in group]

    def _without_refused(self, group: _Group, error: asyncpg.PostgresError) -> list[_Group]:
        """What to try next. Who is named is refused; when nobody is, each half tries alone."""
        if error.sqlstate in _EVERYBODYS:
            self._refuse(group, self._translated(error))
            return []
        named, rest = _named(group, error)
        if error.sqlstate == _HELD:
            return [group for group in (rest, *([item] for item in named)) if group]
        if named or len(group) == 1:
            self._refuse(named or group, self._translated(error))
            return [rest] if rest and named else []
        middle = len(group) // 2
        return [group[:middle], group[middle:]]

    async def _acknowledge_all(self, group: _Group, batches: Sequence[SealedBatch]) -> None:
        """Some at a time, so that what they append next is on its way while others are told."""
        told = 0
        try:
            while told < len(group):
                if told:
                    await asyncio.sleep(0)
                self._acknowledge(group[told : told + AT_ONCE], batches[told : told + AT_ONCE])
                told += AT_ONCE
        except asyncio.CancelledError:  # all of it is durable, whatever ends this task
            self._acknowledge(group[told:], batches[told:])
            raise

    def _acknowledge(self, group: _Group, batches: Sequence[SealedBatch]) -> None:
        for item, batch in zip(group, batches, strict=True):
            self._in_flight.discard(item.place)
            if not item.done.done():  # else its caller has gone away
                item.done.set_result(batch)

    def _refuse(self, group: _Group, error: Exception) -> None:
        self._in_flight.difference_update(item.place for item in group)
        _refuse(group, error)


def _named(
    group: _Group, error: asyncpg.PostgresError
) -> tuple[Sequence[_Waiting], Sequence[_Waiting]]:
    """Those whose runs the database names, by our own codes only, and the others."""
    if error.detail is None or not (error.sqlstate or "").startswith("MF"):
        return (), group
    log, *runs = (UUID(told).bytes for told in error.detail.split())
    named: list[_Waiting] = []
    rest: list[_Waiting] = []
    for item in group:
        is_named = item.sealed.log == log and item.sealed.run in runs
        (named if is_named else rest).append(item)
    return named, rest


def _refuse(group: Collection[_Waiting], error: Exception) -> None:
    for item in group:
        if not item.done.done():
            item.done.set_exception(error)
