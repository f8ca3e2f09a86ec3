"""Owns the tasks that drive runs: concurrency, deadline, cancellation, heartbeat, orphans.

A run that this process cannot go on with ends in a recorded state, by this process or by another.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.agents.loop import AgentLoop
from app.domain.errors import LedgerError, LedgerUnavailableError, MeshFlowError, OverloadedError
from app.domain.record import MAX_CODE_CHARACTERS, CancelRequested, RunFinished, RunStarted
from app.domain.run import RunId, RunStatus, TenantId, Usage
from app.domain.verdict import AdmittedTask
from app.providers.prices import ModelPrice
from app.providers.provider import ModelProvider
from app.runs.recorder import LedgerRecorder, RunPlace
from app.runs.run_keys import RunKeys
from app.storage.run_store import RunStore

_log = logging.getLogger("meshflow.runs")

HEARTBEAT_SECONDS = 1.0
STALE_SECONDS = 15
EXPIRY_SWEEP_BEATS = 30
# Up to so many runs, every heartbeat names them all; with more, every fifteenth does: naming them
# and looking them up takes time, and meanwhile nobody is answered.
NAMED_AT_EVERY_BEAT = 2048
NAMING_BEATS = 15

# A recorder at the verified end of a run, and what its records say that it used.
Reopen = Callable[[TenantId, RunId, int], Awaitable[tuple[LedgerRecorder, Usage]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrivenRun:
    """What a run needs while it is driven."""

    recorder: LedgerRecorder
    open_loop: Callable[[], AgentLoop]
    close: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunJob:
    """One admitted run, ready to be driven.

    Thousands may wait, and the garbage collector walks what they hold: values only, and few.
    """

    place: RunPlace
    task: AdmittedTask
    price: ModelPrice
    provider: ModelProvider
    may_instruct: bool
    opened: "Callable[[RunJob], DrivenRun]"  # called when the run's turn comes

    @property
    def run_id(self) -> RunId:
        """The run."""
        return self.place.run_id


class RunExecutor:
    """Drives runs of this process and looks after those that nobody drives."""

    def __init__(
        self,
        *,
        store: RunStore,
        keys: RunKeys,
        writer_id: UUID,
        reopen: Reopen,
        now: Callable[[], datetime],
        max_concurrent: int,
        max_queued: int,
    ) -> None:
        self._store = store
        self._keys = keys
        self._writer_id = writer_id
        self._reopen = reopen
        self._now = now
        self._max_concurrent = max_concurrent
        self._limit = max_concurrent + max_queued
        self._tasks: dict[RunId, asyncio.Task[None]] = {}
        self._waiting: dict[RunId, RunJob] = {}  # in the order of admission
        self._known: set[RunId] = set()
        self._cancelled_by: dict[RunId, str] = {}
        self._stopping = False

    def admit(self, run_id: RunId) -> None:
        """Make room for a run before its first record. OverloadedError when there is none."""
        if self._stopping or len(self._known) >= self._limit:
            raise OverloadedError(retry_after_seconds=2)
        self._known.add(run_id)

    def forget(self, run_id: RunId) -> None:
        """Give the room back: the run was not started, or is over."""
        self._known.discard(run_id)

    def launch(self, job: RunJob) -> None:
        """Drive an admitted run to its end, in the background, as soon as there is a slot."""
        self._waiting[job.run_id] = job
        self._fill_slots()

    def cancel(self, run_id: RunId, actor: str) -> None:
        """Stop a run of this process, if it is one: the present model call or tool included."""
        waiting = self._waiting.pop(run_id, None)
        if waiting is not None:
            self._cancelled_by[run_id] = actor
            self._spawn(waiting, self._end_unstarted(waiting, actor))
            return
        task = self._tasks.get(run_id)
        if task is not None and run_id not in self._cancelled_by:
            self._cancelled_by[run_id] = actor
            task.cancel()

    async def beat_forever(self) -> None:
        """The heartbeat: says this process lives, hears of cancellations, picks up orphans."""
        beats = 0
        while True:
            try:
                await self._beat(naming=beats % NAMING_BEATS == 0)
                if beats % EXPIRY_SWEEP_BEATS == 0:
                    await self._expire_results()
                beats += 1
            except LedgerUnavailableError:
                _log.warning("heartbeat missed: the database did not answer")
            except Exception:  # noqa: BLE001 - a heartbeat that stops looks like a dead process
                _log.exception("heartbeat failed")
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def stop(self, grace_seconds: float) -> None:
        """Start nothing more, let runs finish for a while, then end the rest as interrupted."""
        self._stopping = True
        clock = asyncio.get_running_loop()
        until = clock.time() + grace_seconds
        while self._tasks and (left := until - clock.time()) > 0:
            await asyncio.wait(list(self._tasks.values()), timeout=left)
        self._waiting.clear()  # never begun: the sweep of another process records the end
        for task in list(self._tasks.values()):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=5)

    def _fill_slots(self) -> None:
        while self._waiting and len(self._tasks) < self._max_concurrent:
            job = self._waiting.pop(next(iter(self._waiting)))
            self._spawn(job, self._drive(job))

    def _spawn(self, job: RunJob, driving: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(driving, name=f"run {job.run_id.hex}")
        self._tasks[job.run_id] = task
        task.add_done_callback(lambda _: self._ended(job))

    def _ended(self, job: RunJob) -> None:
        self._tasks.pop(job.run_id, None)
        self._cancelled_by.pop(job.run_id, None)
        self._known.discard(job.run_id)
        self._fill_slots()

    async def _drive(self, job: RunJob) -> None:
        """Every way out ends in a record, or in the log and later in the sweep's record."""
        driven = job.opened(job)
        loop: AgentLoop | None = None
        try:
            loop = driven.open_loop()
            await self._run_to_end(job, driven.recorder, loop)
        except (LedgerError, OverloadedError) as error:
            # Nothing could be written, so nothing more was done; the sweep records the end.
            _log.warning("a run stopped: %s", type(error).__name__, extra={"run": job.run_id.hex})
        except Exception as error:  # noqa: BLE001 - a broken run ends in a record, whatever broke
            _log.exception("a run broke", extra={"run": job.run_id.hex})
            code = f"internal:{type(error).__name__.lower()}"
            spent = Usage() if loop is None else loop.spent
            failed = RunFinished(status=RunStatus.FAILED, error_code=code[:MAX_CODE_CHARACTERS])
            await self._finish(driven.recorder, failed, spent)
        finally:
            driven.close()

    async def _run_to_end(self, job: RunJob, recorder: LedgerRecorder, loop: AgentLoop) -> None:
        recorder.claim()
        recorder.set_status(RunStatus.RUNNING)
        recorder.hold(RunStarted())
        try:
            async with asyncio.timeout(job.task.submission.budget.max_wall_seconds) as deadline:
                await loop.run()
        except TimeoutError:
            if not deadline.expired():
                raise
            expired = RunFinished(status=RunStatus.EXPIRED, error_code="budget:wall")
            await self._finish(recorder, expired, loop.spent)
        except asyncio.CancelledError:
            actor = self._cancelled_by.get(job.run_id)
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            if actor is None:
                left = RunFinished(status=RunStatus.INTERRUPTED, error_code="shutdown")
                await self._finish(recorder, left, loop.spent)
                return
            recorder.hold(CancelRequested(actor=actor))
            await self._finish(recorder, RunFinished(status=RunStatus.CANCELLED), loop.spent)

    async def _end_unstarted(self, job: RunJob, actor: str) -> None:
        """Cancelled before its turn came: the end is recorded and nothing else is done."""
        recorder = job.opened(job).recorder
        recorder.claim()
        recorder.hold(CancelRequested(actor=actor))
        await self._finish(recorder, RunFinished(status=RunStatus.CANCELLED), Usage())

    async def _finish(self, recorder: LedgerRecorder, end: RunFinished, spent: Usage) -> None:
        try:
            await recorder.record(end, spent)
        except (LedgerError, OverloadedError) as error:
            _log.warning("an end was not recorded: %s", type(error).__name__)

    async def _beat(self, *, naming: bool) -> None:
        named = self._known if naming or len(self._known) <= NAMED_AT_EVERY_BEAT else None
        beat = await self._store.beat(self._writer_id, named, STALE_SECONDS)
        for run_id, actor in beat.cancel:
            self.cancel(run_id, actor)
        for tenant_id, run_id, epoch in beat.orphans:
            # A run that was admitted while the database answered is not an orphan.
            if run_id not in self._known:
                await self._interrupt(tenant_id, run_id, epoch)

    async def _interrupt(self, tenant_id: TenantId, run_id: RunId, epoch: int) -> None:
        """Record the end of a run that nobody drives. Losing the race to another is fine."""
        try:
            recorder, spent = await self._reopen(tenant_id, run_id, epoch)
            recorder.claim()
            final = RunFinished(status=RunStatus.INTERRUPTED, error_code="owner_lost")
            await recorder.record(final, spent)
        except MeshFlowError as error:
            _log.warning("an orphan stays: %s", type(error).__name__, extra={"run": run_id.hex})

    async def _expire_results(self) -> None:
        now = self._now()
        needed = set(await self._store.expire_results(now))
        gone = self._keys.destroy_work_keys(keep=needed, now=now)
        if gone:
            await self._store.forget_work(gone)
