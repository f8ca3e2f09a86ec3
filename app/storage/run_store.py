"""Reads the state of runs, and the few writes that are not records: commands and heartbeats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

import asyncpg

from app.domain.errors import ChainBreak, LedgerBrokenError, NotFoundError
from app.domain.run import (
    TERMINAL,
    RunFilter,
    RunId,
    RunKind,
    RunRow,
    RunStatus,
    TenantId,
    Usage,
)
from app.storage.companions import WrappedKey
from app.storage.database import Database
from app.storage.work_store import WorkStore

Word = TypeVar("Word", bound=StrEnum)

# Times are read as in ledger_store: one that Python does not know as the nearest that it does.
_COLUMNS = """
SELECT tenant_id, run_id, kind, status, epoch, provider, model, agent, policy_digest, input_tokens,
  output_tokens, cost_micros, steps, entries, error_code,
  greatest(least(created_at, '9999-12-30 UTC'), '0001-01-02 UTC') AS created_at,
  CASE WHEN finished_at IS NOT NULL
    THEN greatest(least(finished_at, '9999-12-30 UTC'), '0001-01-02 UTC') END AS finished_at
FROM runs
"""
_ONE = _COLUMNS + "WHERE tenant_id = $1 AND run_id = $2"
_RESULT = """
SELECT kek_id, wrapped, blob, expires_at FROM run_result
WHERE tenant_id = $1 AND run_id = $2
  AND expires_at BETWEEN '1970-01-01 00:00Z' AND '9999-12-31 00:00Z'
"""
_WORK = """
SELECT seq, kek_id, wrapped, blob FROM run_work WHERE tenant_id = $1 AND run_id = $2 ORDER BY seq
"""
_CANCELLED_BY = """
SELECT actor FROM run_command WHERE tenant_id = $1 AND run_id = $2 AND command = 'cancel'
ORDER BY created_at LIMIT 1
"""
_STOP = """
WITH told AS (
  INSERT INTO run_command (tenant_id, run_id, command_id, command, actor)
  SELECT r.tenant_id, r.run_id, gen_random_uuid(), 'cancel', $3 FROM runs r
  WHERE r.tenant_id = $1 AND r.kind <> 'admin' AND ($2::text IS NULL OR r.agent = $2)
    AND r.status NOT IN ('succeeded','failed','blocked','cancelled','expired','interrupted')
  RETURNING run_id
) SELECT array_agg(run_id::text) FROM told
"""
_OPEN = """
SELECT epoch, status FROM runs WHERE tenant_id = $1 AND run_id = $2
  AND status NOT IN ('succeeded','failed','blocked','cancelled','expired','interrupted')
"""
# A run that waits or is parked is due at once: whoever claims it ends it.
_DUE = """
UPDATE pgqueuer SET execute_after = least(execute_after, now())
WHERE status = 'queued' AND entrypoint = 'run:' || $1::text AND dedupe_key = ANY ($2)
"""
_LOADS = "SELECT tenant, waiting, running, waits_seconds FROM runs_pulse()"
_UNDER_WAY = frozenset(set(RunStatus) - TERMINAL)
_HEADS = "SELECT run_id, seq, status, mark FROM runs_heads($1, $2)"
_PAGE = (
    _COLUMNS  # noqa: S608 - both are constants
    + """WHERE tenant_id = $1 AND kind <> 'admin' AND ($2::uuid IS NULL OR run_id < $2)
  AND ($3::text IS NULL OR status = $3) AND ($4::text IS NULL OR agent = $4)
  AND ($6::timestamptz IS NULL OR created_at > $6)
  AND ($7::timestamptz IS NULL OR created_at < $7)
  AND (cardinality($8::bytea[]) = 0 OR cardinality($8::bytea[]) = (
    SELECT count(*) FROM run_label l
    WHERE l.tenant_id = $1 AND l.run_id = runs.run_id AND l.digest = ANY ($8)))
ORDER BY run_id DESC LIMIT $5"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResult:
    """The sealed output of a run and when it stops being readable."""

    key: WrappedKey
    blob: bytes
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RenamedTenants:
    """Names that mean other logs than before.

    `gone`: the log they meant is not there any more, as after a deletion. `taken`: it is, so nobody
    deleted the tenant, and only its name was given away in the database.
    """

    gone: frozenset[str]
    taken: frozenset[str]


@dataclass(frozen=True, slots=True)
class RunHead:
    """Where the ledger of a run ends, unverified: good for deciding when to look."""

    run_id: RunId
    seq: int
    is_over: bool  # or says a state that nobody knows
    mark: str  # of its row as it is: another one when anybody changed it


@dataclass(frozen=True, slots=True)
class TenantRuns:
    """How many runs of a tenant wait and are under way, and for how long the oldest waits."""

    tenant: str
    waiting: int
    running: int
    waits_seconds: float


class RunStore:
    """Run rows of one deployment."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.work = WorkStore(database)

    async def ensure_tenant(self, name: str) -> TenantId:
        """The id of a tenant name; made when first seen."""
        async with self._database.driver() as raw:
            return TenantId(
                UUID(bytes=(await raw.fetchval("SELECT tenant_ensure($1)", name)).bytes)
            )

    async def renamed_tenants(self, known: Mapping[str, TenantId]) -> RenamedTenants:
        """The known names that mean another tenant now, or none."""
        async with self._database.driver() as raw:
            rows = await raw.fetch(
                "SELECT name, tenant_id FROM tenants WHERE name = ANY ($1)", list(known)
            )
        now = {str(row["name"]): row["tenant_id"] for row in rows}
        others = {name for name, tenant_id in known.items() if now.get(name) != tenant_id}
        taken = {name for name in others if await self.has_records(known[name])}
        return RenamedTenants(gone=frozenset(others - taken), taken=frozenset(taken))

    async def has_records(self, tenant_id: TenantId) -> bool:
        """Whether anything is left of a tenant's log."""
        async with self._database.snapshot(tenant_id) as raw:
            found: bool = await raw.fetchval(
                "SELECT EXISTS (SELECT 1 FROM record WHERE tenant_id = $1)", tenant_id
            )
        return found

    async def register_writer(self, writer_id: UUID, public_key: bytes, certificate: bytes) -> None:
        """Make this process's signing key known. Comes before its first append; may be repeated."""
        async with self._database.driver() as raw:
            await raw.execute(
                "SELECT writer_register($1, $2, $3)", writer_id, public_key, certificate
            )

    async def leave(self, writer_id: UUID) -> None:
        """Say goodbye: this process's key signs no more, and an append with it is refused."""
        async with self._database.driver() as raw:
            await raw.execute("SELECT writer_leave($1)", writer_id)

    async def is_retired(self, writer_id: UUID) -> bool:
        """Whether appends under this key are refused for good."""
        async with self._database.driver() as raw:
            found: bool = await raw.fetchval(
                "SELECT EXISTS (SELECT 1 FROM writer_key"
                " WHERE writer_id = $1 AND retired_at IS NOT NULL)",
                writer_id,
            )
            return found

    async def halted(self) -> str | None:
        """Why the ledger refuses to be written, or None while it does not."""
        async with self._database.driver() as raw:
            reason: str | None = await raw.fetchval(
                "SELECT halted FROM tenants WHERE halted IS NOT NULL ORDER BY tenant_id LIMIT 1"
            )
            return reason

    async def beat(self, writer_id: UUID) -> tuple[tuple[RunId, str], ...]:
        """Say that this process lives; its runs that somebody asked to stop, and who."""
        async with self._database.driver() as raw:
            rows = await raw.fetch("SELECT run_id, actor FROM writer_tick($1, NULL, 0)", writer_id)
        return tuple((RunId(UUID(bytes=row["run_id"].bytes)), str(row["actor"])) for row in rows)

    async def open_state(self, tenant_id: TenantId, run_id: RunId) -> tuple[int, RunStatus]:
        """Epoch and state of a run. NotFoundError when it is over or is not there."""
        async with self._database.snapshot(tenant_id) as raw:
            row = await raw.fetchrow(_OPEN, tenant_id, run_id)
        if row is None:
            raise NotFoundError("no such open run")
        return int(row["epoch"]), _word(RunStatus, row, "status")

    async def tenant_name(self, tenant_id: TenantId) -> str | None:
        """The name of a tenant, or None when there is no such tenant."""
        async with self._database.driver() as raw:
            name: str | None = await raw.fetchval(
                "SELECT name FROM tenants WHERE tenant_id = $1", tenant_id
            )
        return name

    async def heads(self, runs: Sequence[tuple[TenantId, RunId]]) -> Sequence[RunHead]:
        """Where the ledgers of these runs end; one that is not there is left out."""
        tenants, run_ids = [run[0] for run in runs], [run[1] for run in runs]
        async with self._database.driver() as raw:
            rows = await raw.fetch(_HEADS, tenants, run_ids)
        return [
            RunHead(
                run_id=RunId(UUID(bytes=row["run_id"].bytes)),
                seq=row["seq"],
                is_over=row["status"] not in _UNDER_WAY,
                mark=row["mark"],
            )
            for row in rows
        ]

    async def loads(self) -> Sequence[TenantRuns]:
        """What waits and runs, of every tenant that has any: numbers alone."""
        async with self._database.driver() as raw:
            rows = await raw.fetch(_LOADS)
        return [TenantRuns(*row) for row in rows]

    async def cancelled_by(self, tenant_id: TenantId, run_id: RunId) -> str | None:
        """Who asked first that the run stop, or None."""
        async with self._database.snapshot(tenant_id) as raw:
            actor: str | None = await raw.fetchval(_CANCELLED_BY, tenant_id, run_id)
        return actor

    async def expire_results(self, now: datetime) -> Sequence[str]:
        """Remove results past their time; the work keys that a result or a run still needs."""
        async with self._database.driver() as raw:
            rows = await raw.fetch("SELECT * FROM results_expire($1)", now)
        return [str(row[0]) for row in rows]

    async def forget_work(self, kek_ids: Sequence[str]) -> None:
        """Forget which runs were under work keys that are no more."""
        async with self._database.driver() as raw:
            await raw.execute("SELECT work_forget($1)", list(kek_ids))

    async def working_copy(
        self, tenant_id: TenantId, run_id: RunId
    ) -> tuple[WrappedKey, Sequence[tuple[int, bytes]]] | None:
        """The wrapped work key of a run and the sealed parts by seq; None when there is none."""
        async with self._database.snapshot(tenant_id) as raw:
            rows = await raw.fetch(_WORK, tenant_id, run_id)
        if not rows or rows[0]["wrapped"] is None or rows[0]["blob"] is None:
            return None
        key = WrappedKey(kek_id=rows[0]["kek_id"], wrapped=rows[0]["wrapped"])
        return key, [(row["seq"], row["blob"]) for row in rows]

    async def request_cancel(
        self, tenant_id: TenantId, run_id: RunId, command_id: UUID, actor: str
    ) -> None:
        """Leave the wish to cancel where the run's owner finds it; durable on return."""
        async with self._database.writing(tenant_id) as raw:
            await raw.execute(
                "INSERT INTO run_command (tenant_id, run_id, command_id, command, actor)"
                " VALUES ($1, $2, $3, 'cancel', $4)",
                tenant_id,
                run_id,
                command_id,
                actor,
            )
            await raw.execute(_DUE, str(tenant_id), [str(run_id)])

    async def request_stop(self, tenant_id: TenantId, agent: str | None, actor: str) -> int:
        """As `request_cancel` for every open run of the tenant, or of its agent; how many."""
        async with self._database.writing(tenant_id) as raw:
            told: list[str] | None = await raw.fetchval(_STOP, tenant_id, agent, actor)
            if told:
                await raw.execute(_DUE, str(tenant_id), told)
        return len(told or ())

    async def hear(self, writer_id: UUID) -> tuple[tuple[RunId, str], ...]:
        """The runs of this process that somebody asked lately to stop, and who."""
        async with self._database.driver() as raw:
            rows = await raw.fetch("SELECT run_id, actor FROM writer_commands($1)", writer_id)
        return tuple((RunId(UUID(bytes=row["run_id"].bytes)), str(row["actor"])) for row in rows)

    async def find(
        self, raw: asyncpg.Connection, tenant_id: TenantId, run_id: RunId
    ) -> RunRow | None:
        """The run's row inside a tenant's snapshot, or None."""
        row = await raw.fetchrow(_ONE, tenant_id, run_id)
        return None if row is None else _run(row)

    async def find_result(
        self, raw: asyncpg.Connection, tenant_id: TenantId, run_id: RunId
    ) -> StoredResult | None:
        """The sealed output of a run inside a tenant's snapshot, or None.

        A time that no calendar of ours holds, infinity above all, is none that we wrote: nothing
        is kept for ever because a row says so.
        """
        row = await raw.fetchrow(
            _RESULT,
            tenant_id,
            run_id,
        )
        if row is None:
            return None
        key = WrappedKey(kek_id=row["kek_id"], wrapped=row["wrapped"])
        return StoredResult(key=key, blob=row["blob"], expires_at=row["expires_at"])

    async def page(
        self,
        tenant_id: TenantId,
        *,
        before: RunId | None,
        wanted: RunFilter,
        limit: int,
    ) -> list[RunRow]:
        """Runs of a tenant, newest first, older than `before`."""
        async with self._database.snapshot(tenant_id) as raw:
            rows = await raw.fetch(
                _PAGE,
                tenant_id,
                before,
                None if wanted.status is None else wanted.status.value,
                wanted.agent,
                limit,
                wanted.created_after,
                wanted.created_before,
                list(wanted.labels),
            )
        return [_run(row) for row in rows]


def _ids(row: asyncpg.Record) -> tuple[TenantId, RunId]:
    return TenantId(UUID(bytes=row["tenant_id"].bytes)), RunId(UUID(bytes=row["run_id"].bytes))


def _word(words: type[Word], row: asyncpg.Record, column: str) -> Word:
    try:
        return words(row[column])
    except ValueError as error:
        # Nobody but the database's owner can have written it.
        reason = f"column '{column}' of the run's row holds no such word"
        raise LedgerBrokenError(ChainBreak(seq=0, reason=reason)) from error


def _run(row: asyncpg.Record) -> RunRow:
    tenant_id, run_id = _ids(row)
    return RunRow(
        tenant_id=tenant_id,
        run_id=run_id,
        kind=_word(RunKind, row, "kind"),
        status=_word(RunStatus, row, "status"),
        epoch=row["epoch"],
        provider=row["provider"],
        model=row["model"],
        agent=row["agent"],
        usage=Usage(
            input_tokens=row["input_tokens"],
            output_tokens=row["output_tokens"],
            cost_micros=row["cost_micros"],
            steps=row["steps"],
        ),
        entries=row["entries"],
        error_code=row["error_code"],
        policy_digest=row["policy_digest"],
        created_at=row["created_at"],
        finished_at=row["finished_at"],
    )
