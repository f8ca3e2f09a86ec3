"""Owns the tasks that drive runs: places, deadline, cancellation.

Which runs are driven here is the queue's to say (see `dispatcher`). A run that is not ended when
its task ends goes back to the queue.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextvars import Context
from dataclasses import dataclass

from app.agents.loop import AgentLoop
from app.agents.progress import NOTHING_YET, Progress
from app.domain.errors import LedgerError, OverloadedError, RunParkedError
from app.domain.record import (
    MAX_CODE_CHARACTERS,
    CancelRequested,
    RunFinished,
    RunParked,
    RunResumed,
    RunStarted,
)
from app.domain.run import RunId, RunStatus, Usage
from app.domain.verdict import AdmittedTask
from app.policy.gate import DascGate
from app.providers.prices import ModelPrice
from app.providers.provider import ModelProvider
from app.runs.recorder import LedgerRecorder, RunPlace

_log = logging.getLogger("meshflow.runs")


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
    gate: DascGate  # under the policy that it began with
    may_instruct: bool
    opened: "Callable[[RunJob], DrivenRun]"  # called when the run's turn comes
    since: Progress = NOTHING_YET  # what another process did of it
    is_started: bool = False
    is_begun: bool = False  # its first request was recorded with its submission
    is_parked: bool = False  # it waited for somebody's decision
    cancelled_by: str | None = None  # it is only to be ended
    files: Mapping[str, bytes] | None = None  # which another process left of its workspace

    @property
    def run_id(self) -> RunId:
        """The run."""
        return self.place.run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """What one process takes on: so many runs at a time, and so many more that wait."""

    max_concurrent: int
    max_queued: int
    has_worker: bool = True  # whether it drives runs at all


class RunExecutor:
    """Drives runs in this process, as many at a time as it has places."""

    def __init__(self, limits: RunLimits) -> None:
        self._places = limits.max_concurrent if limits.has_worker else 0
        self._limit = limits.max_concurrent + limits.max_queued
        self._tasks: dict[RunId, asyncio.Task[bool]] = {}
        self._reserved: set[RunId] = set()
        self._waiting: dict[RunId, RunJob] = {}  # let in here, and claimed by nobody we know of
        self._known: set[RunId] = set()
        self._cancelled_by: dict[RunId, str] = {}
        self._stopping = False
        self._unsettled: set[RunId] = set()
        self.has_news = asyncio.Event()  # a place is free, or somebody waits for one

    @property
    def has_worker(self) -> bool:
        """Whether runs are driven here at all."""
        return self._places > 0

    @property
    def free_places(self) -> int:
        """How many more runs may be driven here now."""
        taken = len(self._tasks) + len(self._reserved)
        return 0 if self._stopping else max(0, self._places - taken)

    @property
    def driven(self) -> Collection[RunId]:
        """The runs that are driven here."""
        return self._tasks.keys()

    @property
    def waiting(self) -> Collection[RunId]:
        """The runs that were let in here and that nobody claimed yet, as far as is known here."""
        return self._waiting.keys()

    def admit(self, run_id: RunId) -> None:
        """Make room for a run before its first record. OverloadedError when there is none."""
        if self._stopping or len(self._known) >= self._limit:
            raise OverloadedError(retry_after_seconds=2)
        self._known.add(run_id)

    def reserve(self, run_id: RunId) -> bool:
        """Keep a place for a run that is about to be let in, if nobody waits for one here."""
        if self._waiting or not self.free_places:
            return False
        self._reserved.add(run_id)
        return True

    def forget(self, run_id: RunId) -> None:
        """Give room and place back: the run was not let in, or is nobody's here any more."""
        self._known.discard(run_id)
        self._reserved.discard(run_id)
        self._waiting.pop(run_id, None)
        self.has_news.set()

    def launch(self, job: RunJob) -> None:
        """Drive a run that was let in here: at once in its place, or when it was claimed."""
        if job.run_id in self._reserved:
            self.take(job)
            return
        self._waiting[job.run_id] = job
        self.has_news.set()

    def claimed(self, run_id: RunId) -> RunJob | None:
        """The job of a run that waited here and was claimed for here; None: it came from elsewhere.

        The run is known from here on: its task follows, or `forget`.
        """
        self._known.add(run_id)
        self._reserved.add(run_id)
        return self._waiting.pop(run_id, None)

    def take(self, job: RunJob) -> None:
        """Drive this run, which is this process's by the queue, to its end in the background."""
        self._reserved.discard(job.run_id)
        if job.cancelled_by is not None:
            self._cancelled_by[job.run_id] = job.cancelled_by
            self._spawn(job, self._end_unstarted(job, job.cancelled_by))
        else:
            self._spawn(job, self._drive(job))

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

    def let_go(self, run_id: RunId) -> None:
        """Another process drives this run by now: it ends here and records nothing."""
        task = self._tasks.get(run_id)
        if task is not None and run_id not in self._cancelled_by:
            task.cancel()

    def take_unsettled(self) -> set[RunId]:
        """The runs whose tasks ended and that are not over; told once."""
        told, self._unsettled = self._unsettled, set()
        return told

    async def stop(self, grace_seconds: float) -> None:
        """Start nothing more, let runs finish for a while, then leave the rest to others."""
        self._stopping = True
        clock = asyncio.get_running_loop()
        until = clock.time() + grace_seconds
        while self._tasks and (left := until - clock.time()) > 0:
            await asyncio.wait(list(self._tasks.values()), timeout=left)
        self._waiting.clear()  # never begun: another process begins them
        for task in list(self._tasks.values()):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=5)

    def _spawn(self, job: RunJob, driving: Coroutine[None, None, bool]) -> None:
        # Not in the context of whichever request, or run that ended, made room for it.
        name, context = f"run {job.run_id.hex}", Context()
        task = asyncio.create_task(driving, name=name, context=context)
        self._tasks[job.run_id] = task
        task.add_done_callback(lambda done: self._ended(job.run_id, done))

    def _ended(self, run_id: RunId, task: asyncio.Task[bool]) -> None:
        self._tasks.pop(run_id, None)
        self._cancelled_by.pop(run_id, None)
        self._known.discard(run_id)
        if task.cancelled() or task.exception() is not None or not task.result():
            self._unsettled.add(run_id)
        self.has_news.set()

    async def _drive(self, job: RunJob) -> bool:
        """Whether it is settled: it ended in a record, or waits for somebody by one."""
        driven = job.opened(job)
        loop: AgentLoop | None = None
        try:
            loop = driven.open_loop()
            return await self._run_to_end(job, driven.recorder, loop)
        except (LedgerError, OverloadedError) as error:
            # Nothing could be written, so nothing more was done.
            _log.warning("a run stopped: %s", type(error).__name__, extra={"run": job.run_id.hex})
            return False
        except Exception as error:  # noqa: BLE001 - a broken run ends in a record, whatever broke
            _log.exception("a run broke", extra={"run": job.run_id.hex})
            code = f"internal:{type(error).__name__.lower()}"
            spent = Usage() if loop is None else loop.spent
            failed = RunFinished(status=RunStatus.FAILED, error_code=code[:MAX_CODE_CHARACTERS])
            return await self._finish(driven.recorder, failed, spent)
        finally:
            driven.close()

    async def _run_to_end(self, job: RunJob, recorder: LedgerRecorder, loop: AgentLoop) -> bool:
        if not job.is_begun:
            recorder.claim()
            if job.is_parked or not job.is_started:
                recorder.set_status(RunStatus.RUNNING)
            recorder.hold(RunResumed() if job.is_started else RunStarted())
        left = job.task.submission.budget.max_wall_seconds - job.since.elapsed_seconds
        expired = RunFinished(status=RunStatus.EXPIRED, error_code="budget:wall")
        if left <= 0:
            return await self._finish(recorder, expired, loop.spent)
        try:
            async with asyncio.timeout(left) as deadline:
                await loop.run()
        except RunParkedError as parked:
            clock = asyncio.get_running_loop()
            until = clock.time() + left if (when := deadline.when()) is None else when
            recorder.park(until - clock.time(), parked.until)
            await recorder.record(RunParked(), loop.spent)
        except TimeoutError:
            if not deadline.expired():
                raise
            return await self._finish(recorder, expired, loop.spent)
        except asyncio.CancelledError:
            actor = self._cancelled_by.get(job.run_id)
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            if actor is None:
                return False  # another process goes on from the last record
            recorder.hold(CancelRequested(actor=actor))
            cancelled = RunFinished(status=RunStatus.CANCELLED)
            return await self._finish(recorder, cancelled, loop.spent)
        return True

    async def _end_unstarted(self, job: RunJob, actor: str) -> bool:
        """Cancelled before its turn came: the end is recorded and nothing else is done."""
        recorder = job.opened(job).recorder
        recorder.claim()
        recorder.hold(CancelRequested(actor=actor))
        cancelled = RunFinished(status=RunStatus.CANCELLED)
        return await self._finish(recorder, cancelled, job.since.spent)

    async def _finish(self, recorder: LedgerRecorder, end: RunFinished, spent: Usage) -> bool:
        try:
            await recorder.record(end, spent)
        except (LedgerError, OverloadedError) as error:
            _log.warning("an end was not recorded: %s", type(error).__name__)
            return False
        return True
