"""Decides which runs of the queue this process drives, and keeps them its own while it lives.

It claims what waits and what a silent process left, says with every heartbeat that it still drives
what it drives, and gives back what it cannot go on with. It never ends by itself: a database that
is gone is waited for.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from app.domain.errors import LedgerUnavailableError, NotFoundError
from app.domain.record import RunFinished
from app.domain.run import RunId, RunStatus, TenantId, Usage
from app.runs.executor import RunExecutor, RunJob
from app.runs.outage_watch import OutageWatch
from app.runs.recorder import LedgerRecorder
from app.runs.run_keys import RunKeys
from app.runs.work_key_sweep import WorkKeySweep
from app.storage.run_queue import Claimed, ClaimRules, RunQueue
from app.storage.run_store import RunStore

_log = logging.getLogger("meshflow.runs")

HEARTBEAT_SECONDS = 1.0
HEARING_SECONDS = 0.25  # a run stops within a second of the wish, wherever it is driven
SWEEP_BEATS = 30
LOG_KEPT = timedelta(hours=1)  # of what pgqueuer notes of each claim
# Up to so many, every heartbeat asks after all runs that wait here; with more, every fifteenth.
ASKED_AT_EVERY_BEAT = 2048
ASKING_BEATS = 15
WISHES_TOLD = timedelta(seconds=60)  # what is older is looked for by the sweep
DISOWNED_SECONDS = 60.0  # longer than any statement may take to commit
LONGEST_BACKOFF_SECONDS = 2.0
PATIENCE_LEASES = 3  # for a process that has what a run began with, before it ends
MOST_VAIN_BEGINNINGS = 5
FORGETTING_LEASES = 20 * PATIENCE_LEASES
_RECONNECT_SECONDS = 0.2
FIRST_EPOCH = 1  # of whoever let the run in
RINGING_SECONDS = 0.02  # between two rings: the first one is heard at once


@dataclass(frozen=True, slots=True, kw_only=True)
class LostRun:
    """A run that this process cannot go on with, at its verified end; the reason is no content.

    `elsewhere`: another one may be able to, with another policy, other models, tools or files.
    """

    recorder: LedgerRecorder
    spent: Usage
    reason: str
    elsewhere: bool = False


# A run of the queue as a job for this process; MeshFlowError when it has to stay as it is.
Restore = Callable[[TenantId, RunId], Awaitable[RunJob | LostRun]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchLimits:
    """How much is driven at a time, and after how long a silent process has lost its runs."""

    lease_seconds: int
    most_everywhere: int  # 0: as many as the processes have places
    most_of_tenant: Callable[[str], int]  # by name; 0 likewise


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchParts:
    """What the dispatcher works with. Queue and store do not share a pool with readers."""

    queue: RunQueue
    beats: RunQueue  # the same by the heartbeat's own connection, which nobody makes wait
    store: RunStore
    keys: RunKeys
    executor: RunExecutor
    restore: Restore
    writer_id: UUID
    now: Callable[[], datetime]
    jitter: Callable[[], float]  # from 0 to 1
    limits: DispatchLimits


class RunDispatcher:
    """One process's part in driving the runs of the deployment."""

    def __init__(self, parts: DispatchParts) -> None:
        self._parts = parts
        self._work_keys = WorkKeySweep(parts.store, parts.keys)
        lease = parts.limits.lease_seconds
        self._poll_seconds = min(1.0, lease / 20)
        self._turns_between = max(1, round(min(HEARTBEAT_SECONDS, lease / 5) / HEARING_SECONDS))
        self._outages = OutageWatch(
            lease_seconds=lease,
            # Who was silent for less than this was so no longer than all others may have been.
            outage_seconds=lease - 2 * self._turns_between * HEARING_SECONDS,
        )
        self._restoring: dict[RunId, asyncio.Task[None]] = {}
        self._names: dict[TenantId, str] = {}
        self._disowned: dict[RunId, float] = {}
        self._lost_at: dict[RunId, float] = {}
        self._unfit_since: dict[RunId, float] = {}
        self._put_off: dict[RunId, int] = {}  # and how often before
        self._begun_in_vain: Counter[RunId] = Counter()
        self._ringing = asyncio.Event()
        self._leaving = False
        self._claims = True

    def place_for(self, tenant: str, run_id: RunId) -> UUID | None:
        """Who begins with a run that is about to be let in: this process, or None, and it waits.

        Where somebody counts how many are driven it waits for its turn, if only for a moment.
        """
        limits = self._parts.limits
        if self._leaving or limits.most_everywhere or limits.most_of_tenant(tenant):
            return None
        return self._parts.writer_id if self._parts.executor.reserve(run_id) else None

    def launch(self, job: RunJob) -> None:
        """A run was let in: it begins here, or this process looks; if it has no place, all do."""
        executor = self._parts.executor
        executor.launch(job)
        if job.run_id in executor.waiting and not executor.free_places:
            self._ringing.set()

    def disown(self, run_id: RunId) -> None:
        """Whoever submitted this run was told that it did not enter: should it be there, end it."""
        self._disowned[run_id] = time.monotonic()

    def duties(self) -> tuple[Coroutine[None, None, None], ...]:
        """What is done in the background, each for as long as the process lives."""
        beat, ring = self.beat_forever(), self.ring_forever()
        if not self._parts.executor.has_worker:
            return (beat, ring)
        return (beat, ring, self.work_forever(), self.listen_forever())

    async def beat_forever(self) -> None:
        """The heartbeat: says that this process lives and what it drives; hears of wishes."""
        turns = beats = 0
        between = self._turns_between
        while True:
            try:
                if turns % between:
                    await self._hear()
                else:
                    await self._beat(asks=beats % ASKING_BEATS == 0)
                    if beats % SWEEP_BEATS == 0:
                        await self._sweep()
                    beats += 1
                turns += 1
            except LedgerUnavailableError:
                _log.warning("heartbeat missed: the database did not answer")
            except Exception:  # noqa: BLE001 - a heartbeat that stops looks like a dead process
                _log.exception("heartbeat failed")
            await asyncio.sleep(HEARING_SECONDS)

    async def work_forever(self) -> None:
        """Claim and drive. Whatever goes wrong, it is tried again."""
        news = self._parts.executor.has_news
        while not self._leaving:
            news.clear()
            try:
                await self._work()
            except LedgerUnavailableError:
                _log.warning("no runs were claimed: the database did not answer")
            except Exception:  # noqa: BLE001 - a worker that stops leaves every run waiting
                _log.exception("claiming failed")
            try:
                async with asyncio.timeout(self._poll_seconds * (0.75 + self._parts.jitter() / 2)):
                    await news.wait()
            except TimeoutError:
                pass

    async def listen_forever(self) -> None:
        """Hear at once of runs that wait elsewhere; without a connection the poll has to do."""
        while True:
            try:
                await self._parts.queue.listen(self._parts.executor.has_news.set)
            except LedgerUnavailableError:
                pass
            except Exception:  # noqa: BLE001 - as for claiming
                _log.exception("listening failed")
            await asyncio.sleep(_RECONNECT_SECONDS + self._parts.jitter())

    async def ring_forever(self) -> None:
        """Tell the others of runs that wait, once for all that came meanwhile."""
        while True:
            await self._ringing.wait()
            self._ringing.clear()
            try:
                await self._parts.queue.ring()
                await asyncio.sleep(RINGING_SECONDS)
            except LedgerUnavailableError:
                await asyncio.sleep(self._poll_seconds)  # they look by themselves

    def claim_no_more(self) -> None:
        """Leave runs that nobody drives to others; what is let in here is driven on."""
        self._claims = False

    async def leave(self, grace_seconds: float) -> None:
        """Claim nothing more, let runs finish for a while, and give the rest to others."""
        self._leaving = True
        self._parts.executor.has_news.set()
        for task in list(self._restoring.values()):
            task.cancel()
        if self._restoring:
            await asyncio.wait(list(self._restoring.values()), timeout=5)
        await self._parts.executor.stop(grace_seconds)
        try:
            await self._parts.queue.leave()
            await self._parts.queue.ring()
        except LedgerUnavailableError:
            _log.warning("the runs of this process are missed when its lease is over")

    async def _work(self) -> None:
        executor, limits = self._parts.executor, self._parts.limits
        await self._give_back()
        free = executor.free_places
        if not free or self._leaving or not self._claims:
            return
        rules = ClaimRules(
            most=free,
            most_of_tenant=self._most_of,
            most_everywhere=limits.most_everywhere,
            lease=timedelta(seconds=limits.lease_seconds),
            judges=self._outages.may_judge(time.monotonic()),
        )
        for found in await self._parts.queue.claim(rules):
            if found.run_id in executor.driven or found.run_id in self._restoring:
                continue  # its heartbeat was late, and it is ours all the same
            job = executor.claimed(found.run_id)
            if job is not None:
                executor.take(job)
                continue
            # Side by side: to verify many runs one after the other takes longer than they have.
            task = asyncio.create_task(self._take_over(found), name=f"restore {found.run_id.hex}")
            self._restoring[found.run_id] = task

    async def _take_over(self, found: Claimed) -> None:
        executor, run_id = self._parts.executor, found.run_id
        try:
            restored = await self._parts.restore(found.tenant_id, run_id)
            if isinstance(restored, RunJob) and self._never_begins(restored):
                recorder = restored.opened(restored).recorder
                restored = LostRun(recorder=recorder, spent=Usage(), reason="it does not begin")
            if isinstance(restored, RunJob) and not self._was_lost(run_id):
                self._unfit_since.pop(run_id, None)
                self._restoring.pop(run_id, None)
                executor.take(restored)
                return
            if isinstance(restored, LostRun) and not self._is_patient(run_id, restored):
                await self._end_lost(restored, run_id)
                return
            self._put_off[run_id] = 0 if isinstance(restored, RunJob) else found.attempts
        except NotFoundError:
            await self._parts.queue.drop(run_id)
        except Exception as error:  # noqa: BLE001 - one run must not keep the others waiting
            why = type(error).__name__
            _log.warning("a run stays as it is: %s", why, extra={"run": run_id.hex})
            self._put_off[run_id] = found.attempts
        finally:
            if self._restoring.pop(run_id, None) is not None:
                executor.forget(run_id)

    async def _most_of(self, tenant_id: TenantId) -> int:
        """How many runs of a tenant are driven at a time; a tenant without a name is gone."""
        name = self._names.get(tenant_id)
        if name is None:
            name = await self._parts.store.tenant_name(tenant_id)
            if name is None:
                return 0
            self._names[tenant_id] = name
        return self._parts.limits.most_of_tenant(name)

    def _never_begins(self, job: RunJob) -> bool:
        """Whether its first record failed here again and again; of others the ledger knows it."""
        return not job.is_started and self._begun_in_vain[job.run_id] > MOST_VAIN_BEGINNINGS

    def _was_lost(self, run_id: RunId) -> bool:
        """Whether another took it from here just now: who was too slow leaves it to the others."""
        lost_at = self._lost_at.get(run_id)
        within = self._parts.limits.lease_seconds
        return lost_at is not None and time.monotonic() - lost_at < within

    def _is_patient(self, run_id: RunId, lost: LostRun) -> bool:
        """Whether one that can go on with it may still come along."""
        if not lost.elsewhere:
            return False
        now = time.monotonic()
        since = self._unfit_since.setdefault(run_id, now)
        return now - since < PATIENCE_LEASES * self._parts.limits.lease_seconds

    async def _end_lost(self, lost: LostRun, run_id: RunId) -> None:
        """Losing the race to another is fine."""
        _log.warning("a run is lost: %s", lost.reason, extra={"run": run_id.hex})
        self._unfit_since.pop(run_id, None)
        self._begun_in_vain.pop(run_id, None)
        lost.recorder.claim()
        final = RunFinished(status=RunStatus.INTERRUPTED, error_code="owner_lost")
        await lost.recorder.record(final, lost.spent)

    async def _give_back(self) -> None:
        """What ended here and is not over, and what cannot be gone on with here, goes to others."""
        for run_id in self._parts.executor.take_unsettled():
            self._begun_in_vain[run_id] += 1
            self._put_off.setdefault(run_id, 0)
        if not self._put_off:
            return
        told = [(run_id, self._back_off_seconds(times)) for run_id, times in self._put_off.items()]
        await self._parts.queue.give_back(told)
        for run_id, _ in told:
            self._put_off.pop(run_id, None)

    def _back_off_seconds(self, times: int) -> float:
        growing = self._poll_seconds * 2.0 ** min(times, 10)
        return min(LONGEST_BACKOFF_SECONDS, growing) * (1 + self._parts.jitter())

    async def _hear(self) -> None:
        await self._cancel(await self._parts.store.hear(self._parts.writer_id))

    async def _cancel(self, wishes: Sequence[tuple[RunId, str]]) -> None:
        executor = self._parts.executor
        nobodys = []
        for run_id, actor in wishes:
            if run_id in executor.driven or run_id in executor.waiting:
                executor.cancel(run_id, actor)
            elif run_id not in self._restoring:
                nobodys.append(run_id)  # parked, perhaps just now: whoever claims it ends it
        if nobodys:
            await self._parts.beats.make_due(nobodys)

    async def _beat(self, *, asks: bool) -> None:
        parts, executor = self._parts, self._parts.executor
        await self._cancel(await parts.store.beat(parts.writer_id))
        driven = [*executor.driven, *self._restoring]
        lost = await parts.beats.beat(driven)
        self._outages.beaten(time.monotonic())
        for run_id in lost:
            # One that ended meanwhile has no place any more, and no task.
            if run_id in executor.driven:
                self._lost_at[run_id] = time.monotonic()
                executor.let_go(run_id)
        if executor.waiting and (asks or len(executor.waiting) <= ASKED_AT_EVERY_BEAT):
            asked = list(executor.waiting)
            for run_id in set(asked) - await parts.beats.waiting(asked):
                if run_id in executor.waiting:
                    executor.forget(run_id)  # another process has it
        await parts.beats.hear_the_parked(WISHES_TOLD)
        if self._disowned:
            await self._end_disowned()

    async def _end_disowned(self) -> None:
        now = time.monotonic()
        for tenant_id, run_id in await self._parts.beats.held(list(self._disowned)):
            try:
                restored = await self._parts.restore(tenant_id, run_id)
                if isinstance(restored, RunJob):
                    recorder, spent = restored.opened(restored).recorder, restored.since.spent
                    restored = LostRun(recorder=recorder, spent=spent, reason="not admitted")
                if restored.recorder.place.epoch > FIRST_EPOCH:
                    continue  # another process was faster; there is nobody to be surprised by it
                await self._end_lost(restored, run_id)
            except LedgerUnavailableError:
                return
        for run_id, since in list(self._disowned.items()):
            if now - since > DISOWNED_SECONDS:
                del self._disowned[run_id]

    async def _sweep(self) -> None:
        parts = self._parts
        await self._work_keys.sweep(parts.now())
        await parts.beats.trim(LOG_KEPT)
        await parts.beats.hear_the_parked(None)
        if await parts.beats.mend(parts.limits.lease_seconds):
            _log.warning("runs without a place in the queue were given one")
        long_ago = time.monotonic() - FORGETTING_LEASES * parts.limits.lease_seconds
        for seen in (self._lost_at, self._unfit_since):
            for run_id in [run_id for run_id, at in seen.items() if at < long_ago]:
                del seen[run_id]
        if len(self._begun_in_vain) > ASKED_AT_EVERY_BEAT:
            self._begun_in_vain.clear()  # others drove most of them on; the rest is counted anew
