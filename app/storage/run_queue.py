"""The queue of runs, and the only door to pgqueuer: who waits, who drives, and since when silent.

A place in the queue holds ids and times. It is made, put off and removed in the transactions of
records (`queue_keep`), so it is there exactly as long as its run is open. pgqueuer claims; it does
not fence: the run's epoch does. Everything else here touches a place only while its holder is the
one who asks, for pgqueuer's own statements go by the job alone and would serve one who lost it.

Threat: Ledger tampering
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Self
from uuid import UUID

import asyncpg
from pgqueuer.adapters.persistence.qb import (
    QueryBuilderEnvironment,
    QueryQueueBuilder,
    QuerySchedulerBuilder,
)
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.core.tm import TaskManager
from pgqueuer.domain.settings import DBSettings, Durability
from pgqueuer.domain.types import Channel, QueueEntrypoint, QueueManagerId
from pgqueuer.ports.driver import NotifyCallback
from pgqueuer.ports.repository import EntrypointExecutionParameter

from app.domain.run import RunId, TenantId
from app.storage.database import Database

KIND = "run:"  # and the tenant's id: what pgqueuer calls an entrypoint, and counts by
_CHANNEL = "meshflow_runs"
_EVERYWHERE = 0x6D66717565756501  # the lock under which the deployment's runs are counted
_NEVER = timedelta(days=36_500)
# Every name is said here: pgqueuer would take what is not from the environment, and there even
# from plain words such as CHANNEL or FUNCTION.
NAMES = DBSettings(
    prefix="",
    db_schema="public",
    channel=Channel(_CHANNEL),
    function="fn_pgqueuer_changed",
    statistics_table="pgqueuer_statistics",
    queue_status_type="pgqueuer_status",
    queue_table="pgqueuer",
    queue_table_log="pgqueuer_log",
    trigger="tg_pgqueuer_changed",
    schedules_table="pgqueuer_schedules",
    durability=Durability.durable,
    widen_id=False,
)
# One step of the index a tenant, however many wait of each.
_DUE = """
WITH RECURSIVE kinds AS (
  (SELECT q.entrypoint FROM pgqueuer q WHERE q.status = 'queued' ORDER BY q.entrypoint LIMIT 1)
  UNION ALL
  SELECT (SELECT q.entrypoint FROM pgqueuer q
    WHERE q.status = 'queued' AND q.entrypoint > k.entrypoint ORDER BY q.entrypoint LIMIT 1)
  FROM kinds k WHERE k.entrypoint IS NOT NULL
)
SELECT k.entrypoint FROM kinds k WHERE EXISTS (
  SELECT 1 FROM pgqueuer q
  WHERE q.entrypoint = k.entrypoint AND q.status = 'queued' AND q.execute_after < now())
UNION SELECT q.entrypoint FROM pgqueuer q
WHERE q.status = 'picked' AND q.heartbeat < now() - $1::interval
"""
_BEAT = """
UPDATE pgqueuer SET heartbeat = now()
WHERE dedupe_key = ANY ($1) AND queue_manager_id = $2 AND status = 'picked' RETURNING dedupe_key
"""
_GIVE_BACK = """
UPDATE pgqueuer SET status = 'queued', queue_manager_id = NULL, slot = NULL, updated = now(),
  execute_after = now() + u.delay, attempts = attempts + 1
FROM unnest($1::text[], $2::interval[]) AS u(run, delay)
WHERE dedupe_key = u.run AND queue_manager_id = $3 AND status = 'picked'
"""
_LEAVE = """
UPDATE pgqueuer SET status = 'queued', queue_manager_id = NULL, slot = NULL, updated = now(),
  execute_after = now()
WHERE queue_manager_id = $1 AND status = 'picked'
"""
_DROP = """
DELETE FROM pgqueuer q WHERE q.dedupe_key = ANY ($1) AND q.status IN ('queued', 'picked')
  AND (q.queue_manager_id IS NULL OR q.queue_manager_id = $2)
"""
_DUE_NOW = """
UPDATE pgqueuer SET execute_after = least(execute_after, now())
WHERE dedupe_key = ANY ($1) AND status = 'queued'
"""
_HELD = """
SELECT dedupe_key, entrypoint FROM pgqueuer
WHERE dedupe_key = ANY ($1) AND status IN ('queued', 'picked')
"""
_WAITING = "SELECT dedupe_key FROM pgqueuer WHERE dedupe_key = ANY ($1) AND status = 'queued'"
_TRIM = """
WITH log AS (DELETE FROM pgqueuer_log WHERE created < now() - $1::interval RETURNING 1),
  told AS (DELETE FROM pgqueuer_statistics WHERE created < now() - $1::interval RETURNING 1)
SELECT (SELECT count(*) FROM log) + (SELECT count(*) FROM told)
"""
_UNDER_WAY = """
SELECT count(*) FROM pgqueuer WHERE status = 'picked' AND heartbeat >= now() - $1::interval
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A run that is this process's to drive, and how often it was given back before."""

    tenant_id: TenantId
    run_id: RunId
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRules:
    """What may be claimed. 0 is no bound."""

    most: int
    most_of_tenant: Callable[[TenantId], Awaitable[int]]
    most_everywhere: int
    lease: timedelta
    judges: bool  # whether those of silent holders may be taken, too


class RunQueue:
    """The queue as one worker sees it."""

    def __init__(self, database: Database, worker_id: UUID) -> None:
        self._database = database
        self._worker_id = worker_id
        self._last_served = ""

    async def claim(self, rules: ClaimRules) -> list[Claimed]:
        """Runs that wait and are due, or whose holder is silent; from now on this worker's.

        In turn between tenants: each is given an equal share of the places, those that were not
        served last come first. LedgerUnavailableError: they are this worker's or not, and if they
        are nobody drives them before the lease is over.
        """
        lease = rules.lease if rules.judges else _NEVER
        async with self._database.driver() as raw:
            due = sorted(str(row[0]) for row in await raw.fetch(_DUE, lease))
            if not due:
                return []
            async with _counted(raw, rules) as most:
                return await self._claim(raw, due, most, rules, lease)

    async def _claim(
        self,
        raw: asyncpg.Connection,
        due: list[str],
        most: int,
        rules: ClaimRules,
        lease: timedelta,
    ) -> list[Claimed]:
        queries = _queries(raw)
        found: list[Claimed] = []
        first = next((at for at, kind in enumerate(due) if kind > self._last_served), 0)
        turn = due[first:] + due[:first]
        for place, kind in enumerate(turn):
            left = most - len(found)
            if left <= 0:
                break
            tenant_id = TenantId(UUID(kind.removeprefix(KIND)))
            cap = EntrypointExecutionParameter(await rules.most_of_tenant(tenant_id))
            jobs = await queries.dequeue(
                batch_size=-(-left // (len(turn) - place)),
                entrypoints={QueueEntrypoint(kind): cap},
                queue_manager_id=QueueManagerId(self._worker_id),
                global_concurrency_limit=None,
                heartbeat_timeout=lease,
            )
            self._last_served = kind
            found += [
                Claimed(
                    tenant_id=tenant_id,
                    run_id=RunId(UUID(bytes=job.payload)),
                    attempts=job.attempts,
                )
                for job in jobs
                if job.payload is not None
            ]
        return found

    async def beat(self, runs: Collection[RunId]) -> set[RunId]:
        """Say that this worker still drives them; those of them that it does not hold any more."""
        if not runs:
            return set()
        async with self._database.driver() as raw:
            rows = await raw.fetch(_BEAT, _keys(runs), self._worker_id)
        return set(runs) - {_run(row) for row in rows}

    async def give_back(self, delays: Sequence[tuple[RunId, float]]) -> None:
        """Let others have them, in so many seconds; nothing where another holds them by now."""
        async with self._database.driver() as raw:
            await raw.execute(
                _GIVE_BACK,
                _keys([run_id for run_id, _ in delays]),
                [timedelta(seconds=seconds) for _, seconds in delays],
                self._worker_id,
            )

    async def leave(self) -> None:
        """Give everything back at once: this worker is about to end."""
        async with self._database.driver() as raw:
            await raw.execute(_LEAVE, self._worker_id)

    async def drop(self, run_id: RunId) -> None:
        """Remove the place of a run that is not there any more."""
        async with self._database.driver() as raw:
            await raw.execute(_DROP, _keys([run_id]), self._worker_id)

    async def make_due(self, runs: Collection[RunId]) -> None:
        """Let those that nobody drives be claimed now."""
        async with self._database.driver() as raw:
            await raw.execute(_DUE_NOW, _keys(runs))

    async def hear_the_parked(self, since: timedelta | None) -> int:
        """Let parked runs be claimed that somebody wished to end within this time; how many.

        Whoever drove a run while the wish was made may have died with it; None: of any age.
        """
        async with self._database.driver() as raw:
            heard: int = await raw.fetchval("SELECT queue_wishes($1)", since)
        return heard

    async def held(self, runs: Collection[RunId]) -> list[tuple[TenantId, RunId]]:
        """Which of them have a place in the queue."""
        async with self._database.driver() as raw:
            rows = await raw.fetch(_HELD, _keys(runs))
        return [(TenantId(UUID(row["entrypoint"].removeprefix(KIND))), _run(row)) for row in rows]

    async def waiting(self, runs: Collection[RunId]) -> set[RunId]:
        """Which of them nobody has claimed yet."""
        async with self._database.driver() as raw:
            return {_run(row) for row in await raw.fetch(_WAITING, _keys(runs))}

    async def trim(self, keep: timedelta) -> int:
        """Remove older rows of pgqueuer's log and statistics; how many there were."""
        async with self._database.driver() as raw:
            removed: int = await raw.fetchval(_TRIM, keep)
        return removed

    async def mend(self, lease_seconds: int) -> int:
        """Give a place to open runs that have none and whose process is gone; how many."""
        async with self._database.driver() as raw:
            mended: int = await raw.fetchval("SELECT queue_mend($1)", lease_seconds)
        return mended

    async def ring(self) -> None:
        """Wake the workers of every process. Of no consequence: all look by themselves, too."""
        async with self._database.driver() as raw:
            await raw.execute(f"NOTIFY {_CHANNEL}")

    async def listen(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever somebody rings. Ends with LedgerUnavailableError."""
        async with self._database.driver() as raw:
            gone = asyncio.Event()
            raw.add_termination_listener(lambda _: gone.set())
            await raw.add_listener(_CHANNEL, lambda *_: wake())
            wake()  # whoever rang before this moment was not heard
            await gone.wait()
            raise OSError("the connection is gone")


class _Held:
    """pgqueuer's idea of a connection: the one that we hold, for as long as we do."""

    def __init__(self, raw: asyncpg.Connection) -> None:
        self._raw = raw
        self._shutdown = asyncio.Event()

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        return [dict(row) for row in await self._raw.fetch(query, *args)]

    async def execute(self, query: str, *args: object) -> str:
        told: str = await self._raw.execute(query, *args)
        return told

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        raise NotImplementedError

    async def notify(self, channel: str, payload: str) -> None:
        raise NotImplementedError

    @property
    def shutdown(self) -> asyncio.Event:
        return self._shutdown

    @property
    def tm(self) -> TaskManager:
        return TaskManager()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """It is not pgqueuer's to close."""


@asynccontextmanager
async def _counted(raw: asyncpg.Connection, rules: ClaimRules) -> AsyncIterator[int]:
    """How many may be claimed until the block ends, where the deployment has a bound as a whole."""
    if not rules.most_everywhere:
        yield rules.most
        return
    async with raw.transaction():
        await raw.execute("SELECT pg_advisory_xact_lock($1)", _EVERYWHERE)
        under_way: int = await raw.fetchval(_UNDER_WAY, rules.lease)
        yield min(rules.most, rules.most_everywhere - under_way)


_BUILT = QueryQueueBuilder(NAMES)  # keeps the text of each statement that it built


def _queries(raw: asyncpg.Connection) -> Queries:
    return Queries(
        driver=_Held(raw),
        qbe=QueryBuilderEnvironment(NAMES),
        qbq=_BUILT,
        qbs=QuerySchedulerBuilder(NAMES),
    )


def _keys(runs: Collection[RunId]) -> list[str]:
    return [str(run_id) for run_id in runs]


def _run(row: asyncpg.Record) -> RunId:
    return RunId(UUID(row["dedupe_key"]))
