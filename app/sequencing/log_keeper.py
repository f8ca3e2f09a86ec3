"""LogKeeper: leads when nobody else does, and then integrates, signs, anchors, retires and alarms.

Any number of processes run one; whichever holds the lock leads. Whatever goes wrong, it starts
again from what the database says.

Threat: Ledger tampering
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

from app.administration.admin_log import AdminLog
from app.domain.errors import LedgerError, LedgerUnavailableError, MeshFlowError
from app.domain.run import TenantId
from app.sequencing.anchoring import Anchoring, Loss, Published
from app.sequencing.checkpoints import CheckpointMaker
from app.sequencing.continuity import Discontinuity
from app.sequencing.integration_plan import NO_RUN
from app.sequencing.log_names import next_origin
from app.sequencing.sequencer import Sequencer
from app.sequencing.writer_retirement import WriterRetirement
from app.storage.database import Database
from app.storage.keeper_store import (
    add_cosignature,
    halt,
    is_halted,
    note_finding,
    unnoted_findings,
)
from app.storage.log_store import read_head
from app.storage.sequencer_store import Leader, leading

_log = logging.getLogger("meshflow.sequencer")

TICK_SECONDS = 1.0  # at least so often, whether or not somebody rings
PAUSE_SECONDS = 0.1  # at most so often, however much is appended
CHECKPOINT_SECONDS = 5.0
REPUBLISH_SECONDS = 600.0
_STANDBY_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperParts:
    """What a keeper is built from. `anchoring_of` and `checkpoints_of` take the operator log."""

    database: Database  # as the sequencer's role
    admin_log: AdminLog
    enrolment: Callable[[], Awaitable[Collection[bytes]]]  # what counts for records of now
    origin_of: Callable[[bytes], str]
    anchoring_of: Callable[[TenantId], Anchoring]
    checkpoints_of: Callable[[TenantId], CheckpointMaker]
    appended: asyncio.Event
    monotonic: Callable[[], float]


class LogKeeper:
    """Keeps the logs of one deployment. `run_forever` belongs in a task; cancelling it ends it."""

    def __init__(self, parts: KeeperParts) -> None:
        self._parts = parts
        self.may_write = asyncio.Event()  # set once this process's writer is enrolled

    async def known_loss(self, operator: TenantId) -> Loss | None:
        """What an anchor has seen of the operator log and the database does not have."""
        return await known_loss(self._parts, operator)

    async def run_forever(self) -> None:
        """Lead, or wait until one can. Never ends by itself."""
        while True:
            try:
                await self._try_to_lead()
            except LedgerUnavailableError:
                _log.warning("sequencing waits: the database did not answer or refused")
            except LedgerError as error:
                _log.warning("sequencing starts again: %s", error)
            except Exception:  # noqa: BLE001 - logs that stop growing would be worse than any error
                _log.exception("sequencing failed and starts again")
            await asyncio.sleep(_STANDBY_SECONDS)

    async def _try_to_lead(self) -> None:
        parts = self._parts
        operator = await parts.admin_log.operator_log_id()
        async with leading(parts.database, operator) as leader:
            if leader is None:
                return
            _log.info("leads the sequencing, term %d", leader.term)
            term = _Term(parts, leader, operator, self.may_write)
            try:
                await term.serve()
            finally:
                await term.close()


async def known_loss(parts: KeeperParts, operator: TenantId) -> Loss | None:
    """What an anchor has seen of the operator log and the database does not have.

    A database that was set back to before a recovery does not know of that one, so its name is
    asked for as well.
    """
    async with parts.database.driver() as raw:
        head = await read_head(raw, operator)
    origin = parts.origin_of(operator.bytes) if head is None else head.origin
    for name in (origin, next_origin(origin)):
        loss = await parts.anchoring_of(operator).loss(name)
        if loss is not None:
            return loss
    return None


class _Term:
    """One leader's time."""

    def __init__(
        self, parts: KeeperParts, leader: Leader, operator: TenantId, may_write: asyncio.Event
    ) -> None:
        self._parts = parts
        self._may_write = may_write
        self._leader = leader
        self._operator = operator
        self._anchoring = parts.anchoring_of(operator)
        self._checkpoints = parts.checkpoints_of(operator)
        self._retirement = WriterRetirement(parts.admin_log, operator, parts.monotonic)
        self._publishing: asyncio.Task[Published] | None = None
        self._published_at: float | None = None
        self._is_compared = False
        self._is_owed = False  # an anchor did not take the newest checkpoint

    async def serve(self) -> None:
        """Tick until the connection, the term or the process is lost."""
        parts = self._parts
        enrolment = await parts.enrolment()  # nobody rotates that key while somebody leads
        sequencer = await Sequencer.start(self._leader, enrolment, parts.origin_of)
        checkpoint_due = parts.monotonic()
        while True:
            parts.appended.clear()
            tick = await sequencer.tick()
            if await is_halted(self._leader.raw):
                self._is_compared = False
            else:
                await self._compare()
                if self._is_compared and self._may_write.is_set():
                    if not await self._checkpoints.read_on(self._leader):
                        continue  # a long history is read between ticks
                    if parts.monotonic() >= checkpoint_due:
                        checkpoint_due = parts.monotonic() + CHECKPOINT_SECONDS
                        await self._sign(sequencer)
                    await self._look_after()
            await self._collect()
            if not tick.has_more:
                await self._rest()

    async def close(self) -> None:
        """Let go of a publication that is under way."""
        if self._publishing is not None:
            self._publishing.cancel()
            await asyncio.wait([self._publishing])

    async def _compare(self) -> None:
        """Before anything is signed in this term: is there an anchor that has seen more?"""
        if self._is_compared:
            return
        loss = await known_loss(self._parts, self._operator)
        if loss is None:
            self._is_compared = True
            return
        _log.critical("the ledger is halted: %s", loss.reason)
        await halt(self._leader, self._operator, loss.reason)

    async def _sign(self, sequencer: Sequencer) -> None:
        if await self._checkpoints.sign_tenants(self._leader):
            await sequencer.tick()  # the records of what was just signed
        made = await self._checkpoints.sign_operator(self._leader)
        if self._checkpoints.discontinuity is not None:
            await self._stop(self._checkpoints.discontinuity)
            return
        if self._publishing is not None:
            return  # the next one will cover this one too
        now = self._parts.monotonic()
        is_due = self._published_at is None or now - self._published_at >= REPUBLISH_SECONDS
        if made is None and not is_due and not self._is_owed:
            return
        newest = made or await self._checkpoints.newest_operator(self._leader)
        if newest is not None:
            self._published_at = now
            self._publishing = asyncio.create_task(self._anchoring.publish(newest))

    async def _stop(self, found: Discontinuity) -> None:
        """Alarm and halt, in this order: a halted ledger takes no alarm any more."""
        _log.critical("the ledger is halted: %s", found.reason)
        note = {"log": found.log.hex(), "run": None, "seq": None, "reason": found.reason}
        try:
            await self._parts.admin_log.append(self._operator, "integrity.alarm", {**note})
        except MeshFlowError as error:
            _log.error("the alarm is not recorded: %s", error)
        await halt(self._leader, self._operator, found.reason)

    async def _collect(self) -> None:
        """Store what the anchors answered, once they all did."""
        task = self._publishing
        if task is None or not task.done():
            return
        self._publishing = None
        published = task.result()
        self._is_owed = not published.is_complete
        for line in published.lines:
            await add_cosignature(
                self._leader, published.checkpoint, line.witness, line.line, line.cosigned_at
            )
        if published.loss is not None:
            _log.critical("the ledger is halted: %s", published.loss)
            await halt(self._leader, self._operator, published.loss)

    async def _look_after(self) -> None:
        """Alarms of what was left out, and writers that are gone."""
        for finding in await unnoted_findings(self._leader):
            is_of_a_run = finding.run != NO_RUN
            receipt = await self._parts.admin_log.append(
                self._operator,
                "integrity.alarm",
                {
                    "log": finding.log.hex(),
                    "run": finding.run.hex() if is_of_a_run else None,
                    "seq": finding.seq if is_of_a_run else None,
                    "reason": finding.reason,
                },
            )
            await note_finding(self._leader, finding, receipt.seq)
        await self._retirement.look(self._leader)

    async def _rest(self) -> None:
        await asyncio.sleep(PAUSE_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(TICK_SECONDS - PAUSE_SECONDS):
                await self._parts.appended.wait()
