"""Owns the tasks that drive runs: concurrency, deadline, cancellation, heartbeat, orphans.

A run that lost its process is gone on with by another; one that nobody can go on with ends in a
recorded state.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.agents.loop import AgentLoop
from app.agents.progress import NOTHING_YET, Progress
from app.domain.errors import LedgerError, LedgerUnavailableError, OverloadedError
from app.domain.record import (
    MAX_CODE_CHARACTERS,
    CancelRequested,
    RunFinished,
    RunResumed,
    RunStarted,
)
from app.domain.run import RunId, RunStatus, TenantId, Usage
from app.domain.verdict import AdmittedTask
from app.providers.prices import ModelPrice
from app.providers.provider import ModelProvider
from app.runs.recorder import LedgerRecorder, RunPlace
from app.runs.run_keys import RunKeys
from app.storage.run_store import RunStore

_log = logging.getLogger("meshflow.runs")

HEARTBEAT_SECONDS = 1.0
HEARING_SECONDS = 0.25  # a run stops within a second of the wish, wherever it is driven
EXPIRY_SWEEP_BEATS = 30
# Up to so many runs, every heartbeat names them all; with more, every fifteenth does: naming them
# and looking them up takes time, and meanwhile nobody is answered.
NAMED_AT_EVERY_BEAT = 2048
NAMING_BEATS = 15


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
    since: Progress = NOTHING_YET  # what another process did of it
    is_started: bool = False
    cancelled_by: str | None = None  # it is only to be ended

    @property
    def run_id(self) -> RunId:
        """The run."""
        return self.place.run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class LostRun:
    """A run that this process cannot go on with, at its verified end; the reason is no content."""

    recorder: LedgerRecorder
    spent: Usage
    reason: str


# An orphan as a job for this process; MeshFlowError when it has to stay as it is.
Restore = Callable[[TenantId, RunId, int], Awaitable[RunJob | LostRun]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """What one process takes on, and after how long a silent one has lost its runs."""

    max_concurrent: int
    max_queued: int
    lease_seconds: int


class RunExecutor:
    """Drives runs of this process and looks after those that nobody drives."""

    def __init__(
        self,
        *,
        store: RunStore,
        keys: RunKeys,
        writer_id: UUID,
        restore: Restore,
        now: Callable[[], datetime],
        limits: RunLimits,
    ) -> None:
        self._store = store
        self._keys = keys
        self._writer_id = writer_id
        self._restore = restore
        self._now = now
        self._max_concurrent = limits.max_concurrent
        self._limit = limits.max_concurrent + limits.max_queued
        self._lease_seconds = limits.lease_seconds
        self._tasks: dict[RunId, asyncio.Task[None]] = {}
        self._waiting: dict[RunId, RunJob] = {}  # in the order of admission
        self._known: set[RunId] = set()
        self._cancelled_by: dict[RunId, str] = {}
        self._stopping = False
        self._claims = True
        self._taking_over: asyncio.Task[None] | None = None
        self._beaten_at: float | None = None
        self._judges_at = 0.0

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
        if job.cancelled_by is not None:
            self._cancelled_by[job.run_id] = job.cancelled_by
            self._spawn(job, self._end_unstarted(job, job.cancelled_by))
            return
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
        turns = beats = 0
        between = max(1, round(min(HEARTBEAT_SECONDS, self._lease_seconds / 5) / HEARING_SECONDS))
        while True:
            try:
                if turns % between:
                    await self._hear()
                else:
                    await self._beat(naming=beats % NAMING_BEATS == 0)
                    if beats % EXPIRY_SWEEP_BEATS == 0:
                        await self._expire_results()
                    beats += 1
                turns += 1
            except LedgerUnavailableError:
                _log.warning("heartbeat missed: the database did not answer")
            except Exception:  # noqa: BLE001 - a heartbeat that stops looks like a dead process
                _log.exception("heartbeat failed")
            await asyncio.sleep(HEARING_SECONDS)

    def claim_no_more(self) -> None:
        """Leave runs that nobody drives to others; what was admitted here is driven on."""
        self._claims = False

    async def stop(self, grace_seconds: float) -> None:
        """Start nothing more, let runs finish for a while, then leave the rest to others.

        What is left goes on in another process as soon as this one has said goodbye.
        """
        self._stopping = True
        self.claim_no_more()
        if self._taking_over is not None:
            self._taking_over.cancel()
        clock = asyncio.get_running_loop()
        until = clock.time() + grace_seconds
        while self._tasks and (left := until - clock.time()) > 0:
            await asyncio.wait(list(self._tasks.values()), timeout=left)
        self._waiting.clear()  # never begun: another process begins them
        for task in list(self._tasks.values()):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=5)

    def _fill_slots(self) -> None:
        while self._waiting and len(self._tasks) < self._max_concurrent:
            job = self._waiting.pop(next(iter(self._waiting)))
            self._spawn(job, self._drive(job))

    def _spawn(self, job: RunJob, driving: Coroutine[None, None, None]) -> None:
        # Not in the context of whichever request, or run that ended, made room for it.
        name, context = f"run {job.run_id.hex}", Context()
        task = asyncio.create_task(driving, name=name, context=context)
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
        if job.is_started:
            recorder.hold(RunResumed())
        else:
            recorder.set_status(RunStatus.RUNNING)
            recorder.hold(RunStarted())
        left = job.task.submission.budget.max_wall_seconds - job.since.elapsed_seconds
        try:
            async with asyncio.timeout(left) as deadline:
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
                return  # this process is about to end: another goes on from the last record
            recorder.hold(CancelRequested(actor=actor))
            await self._finish(recorder, RunFinished(status=RunStatus.CANCELLED), loop.spent)

    async def _end_unstarted(self, job: RunJob, actor: str) -> None:
        """Cancelled before its turn came: the end is recorded and nothing else is done."""
        recorder = job.opened(job).recorder
        recorder.claim()
        recorder.hold(CancelRequested(actor=actor))
        await self._finish(recorder, RunFinished(status=RunStatus.CANCELLED), job.since.spent)

    async def _finish(self, recorder: LedgerRecorder, end: RunFinished, spent: Usage) -> None:
        try:
            await recorder.record(end, spent)
        except (LedgerError, OverloadedError) as error:
            _log.warning("an end was not recorded: %s", type(error).__name__)

    async def _hear(self) -> None:
        for run_id, actor in await self._store.hear(self._writer_id):
            self.cancel(run_id, actor)

    async def _beat(self, *, naming: bool) -> None:
        named = self._known if naming or len(self._known) <= NAMED_AT_EVERY_BEAT else None
        beat = await self._store.beat(self._writer_id, named, self._lease_seconds)
        for run_id, actor in beat.cancel:
            self.cancel(run_id, actor)
        if not self._may_judge():
            return
        # A run that was admitted while the database answered is not an orphan.
        found = [orphan for orphan in beat.orphans if orphan[1] not in self._known]
        is_free = self._taking_over is None or self._taking_over.done()
        if found and is_free and self._claims:
            # Not part of the heartbeat: to verify many runs takes longer than one may.
            self._taking_over = asyncio.create_task(self._take_over_all(found, beat.own))

    def _may_judge(self) -> bool:
        """Whoever did not beat for long lets the others come back first: it may be an outage."""
        now = asyncio.get_running_loop().time()
        before, self._beaten_at = self._beaten_at, now
        if before is not None and now - before > self._lease_seconds / 2:
            self._judges_at = now + self._lease_seconds / 2
        return now >= self._judges_at

    async def _take_over_all(
        self, orphans: Sequence[tuple[TenantId, RunId, int]], own: Collection[RunId]
    ) -> None:
        for tenant_id, run_id, epoch in orphans:
            if run_id in self._known or not self._claims or len(self._known) >= self._limit:
                continue
            self._known.add(run_id)
            try:
                await self._take_over(tenant_id, run_id, epoch, is_own=run_id in own)
            except Exception as error:  # noqa: BLE001 - one orphan must not keep the others waiting
                self._known.discard(run_id)
                why = type(error).__name__
                _log.warning("an orphan stays: %s", why, extra={"run": run_id.hex})

    async def _take_over(
        self, tenant_id: TenantId, run_id: RunId, epoch: int, *, is_own: bool
    ) -> None:
        """Go on with a run that nobody drives, or end it. Losing the race to another is fine."""
        restored = await self._restore(tenant_id, run_id, epoch)
        if isinstance(restored, RunJob):
            if restored.is_started or not is_own:
                self.launch(restored)
                return
            # Whoever submitted it here was told that it did not enter.
            restored = LostRun(
                recorder=restored.opened(restored).recorder, spent=Usage(), reason="not admitted"
            )
        _log.warning("a run is lost: %s", restored.reason, extra={"run": run_id.hex})
        restored.recorder.claim()
        final = RunFinished(status=RunStatus.INTERRUPTED, error_code="owner_lost")
        await restored.recorder.record(final, restored.spent)
        self._known.discard(run_id)

    async def _expire_results(self) -> None:
        now = self._now()
        needed = set(await self._store.expire_results(now))
        gone = self._keys.destroy_work_keys(keep=needed, now=now)
        if gone:
            await self._store.forget_work(gone)
