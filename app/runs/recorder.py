"""Writes what happens to one run: scrub, seal, one transaction with the run's state, ring the bell.

Contract: an event's record MUST be durable before `record` returns; a caller MUST NOT act before.

Threat: Ledger tampering
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.domain.approval import ApprovalId, ApprovalState
from app.domain.errors import KeyRetiredError, LedgerError
from app.domain.receipt import RecordReceipt
from app.domain.record import (
    ApprovalDecided,
    ApprovalRequested,
    ModelResponded,
    OutcomeUnknown,
    RunEvent,
    RunFinished,
    RunSubmitted,
    ToolDecided,
    ToolFinished,
)
from app.domain.run import Json, RunId, RunStatus, TenantId, Usage
from app.domain.verdict import ReleasedOutput, Scrubbed, Verdict
from app.ledger.hashing import digest_key, keyed_digest
from app.ledger.released_output import released_note
from app.ledger.sealing import NONCE_BYTES, seal_result, seal_work
from app.ledger.writing import ChainHead, Draft, Entropy, RunWriter, SealedRecord, WriterKey
from app.privacy.scrubber import Scrubber, machine_note
from app.runs.event_drafts import draft_of
from app.runs.identifiers import new_run_id
from app.runs.notifier import Bell, RunEnd
from app.runs.run_keys import RunKeys
from app.runs.working_copy import step_bytes
from app.storage.companions import (
    Change,
    Claim,
    CloseApproval,
    Companion,
    LabelledRun,
    NewResult,
    NewRun,
    NewWork,
    OpenApproval,
    Queueing,
    QueuePark,
    TakenKey,
    WorkPart,
    WrappedKey,
)
from app.storage.ledger_store import LedgerStore, Receipt
from app.telemetry import meters

_INLINE_SCRUB_CHARACTERS = 32 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderParts:
    """What every run's recorder shares."""

    store: LedgerStore
    keys: RunKeys
    writer: WriterKey
    scrubber: Scrubber
    bell: Bell
    now: Callable[[], datetime]
    entropy: Entropy
    result_ttl_seconds: int
    told: Callable[[RunId, Sequence[tuple[int, RunEvent]], datetime], None] | None = None
    sandbox: str | None = None  # how this process confines tools, stamped into each record


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlace:
    """Where a run's ledger stands: whose it is, its key, its head and the epoch to write under."""

    tenant_id: TenantId
    run_id: RunId
    run_key: bytes
    head: ChainHead
    epoch: int
    work_key: bytes | None = None  # seals its working copy; None: nobody can go on with the run


class LedgerRecorder:
    """The ledger of one run, for its one owner. Not for two tasks at a time."""

    def __init__(self, place: RunPlace, parts: RecorderParts) -> None:
        self._place = place
        self._parts = parts
        self._held: list[RunEvent] = []
        self._companions: list[Companion] = []
        self._opened_at: datetime | None = None
        self._recorded: Sequence[Draft] = ()
        self._receipt: RecordReceipt | None = None
        self._writer = RunWriter(
            log=place.tenant_id.bytes,
            run=place.run_id.bytes,
            run_key=place.run_key,
            writer=parts.writer,
            entropy=parts.entropy,
            sandbox=parts.sandbox,
        )

    @property
    def place(self) -> RunPlace:
        """Where the run's ledger stands after the last record."""
        return self._place

    def hold(self, event: RunEvent) -> None:
        """Record this with whatever comes next, in the same transaction and before it."""
        self._held.append(event)

    def digest(self, action: bytes) -> bytes:
        """A digest of what is to be done that dies with the run: what an approval is bound to."""
        return keyed_digest(digest_key(self._place.run_key), "approval", action)

    def ask(self, tool: str, action: bytes, expires_seconds: int) -> None:
        """Hold the request that somebody decide on what was held last, until so long from now."""
        now = self._parts.now()
        request = ApprovalRequested(
            approval_id=ApprovalId(new_run_id(now, self._parts.entropy)),
            tool=tool,
            digest=self.digest(action),
            expires_at=now + timedelta(seconds=expires_seconds),
        )
        self._held.append(request)

    def open_run(self, new_run: NewRun, key: TakenKey | None = None) -> None:
        """Let the first record bring the run's row and key with it, and bear its time.

        `key`: an idempotency key that it takes, so that no other run can begin with it.
        """
        self._companions += [new_run] if key is None else [new_run, key]
        self._opened_at = new_run.created_at

    def open_work(self, key: WrappedKey, task: bytes) -> None:
        """Let the first record bring the working copy with it. The place must have its key."""
        self._companions.append(NewWork(key=key, blob=self._sealed_work(0, task)))

    def label(self, digests: Sequence[bytes]) -> None:
        """Let the first record bring what lists find the run by."""
        if digests:
            self._companions.append(LabelledRun(digests))

    def claim(self) -> None:
        """Take the run over with the next record: nobody else can write to it after that."""
        self._companions.append(Claim(from_epoch=self._place.epoch))
        self._place = replace(self._place, epoch=self._place.epoch + 1)

    def set_status(self, status: RunStatus) -> None:
        """Let the next record change the run's state with it."""
        self._companions.append(Change(status=status, usage=Usage()))

    def park(self, at_most_seconds: float, until: datetime | None = None) -> None:
        """Let nobody drive the run after the next record, until it is woken.

        Or until then, or for so long, or until what it asks for in the same record expires.
        """
        self.set_status(RunStatus.AWAITING_APPROVAL)
        if until is None:
            until = self._parts.now() + timedelta(seconds=at_most_seconds)
        for event in self._held:
            if isinstance(event, ApprovalRequested):
                until = event.expires_at
        self._companions.append(QueuePark(until=until))

    def queue(self, change: Queueing) -> None:
        """Let the next record change the run's place in the queue with it."""
        self._companions.append(change)

    def take_recorded(self) -> Sequence[Draft]:
        """What the last write recorded, as it was sealed; kept no longer than this."""
        taken, self._recorded = self._recorded, ()
        return taken

    def take_receipt(self) -> RecordReceipt:
        """The receipt of the record that opened the run, which the last write must have held.

        LedgerError when there is none: a run must not be told of that nobody can be held to.
        """
        taken, self._receipt = self._receipt, None
        if taken is None:
            raise LedgerError("a run was opened without a receipt")
        return taken

    async def record(self, event: RunEvent, usage: Usage) -> int:
        """Make what is held and then `event` durable; the seq of `event`.

        A cancellation waits for the write that is under way: what was written stays known.
        """
        writing = asyncio.ensure_future(self._write([*self._held, event], usage))
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            if not writing.cancelled():
                writing.exception()  # nobody asks for it any more
            raise

    async def _write(self, events: Sequence[RunEvent], usage: Usage) -> int:
        parts, place = self._parts, self._place
        drafts = await self._drafts(events)
        now = parts.now() if self._opened_at is None else self._opened_at
        sealed = self._writer.seal(place.head, drafts, epoch=place.epoch, at=now)
        head = sealed.head
        work = self._work(place.head.next_seq, events)
        work += self._approvals(events, place.head.next_seq, now)
        closing = self._closing(events[-1], head, usage, now)
        try:
            companions = [*self._companions, *work, *closing]
            receipt = await parts.store.append(place.tenant_id, place.run_id, sealed, companions)
        except KeyRetiredError:
            # A KEK was retired between the wrap and the write: the newest one is good.
            parts.keys.look_again()
            opening = [self._wrapped_again(item, now) for item in self._companions]
            companions = [*opening, *work, *self._closing(events[-1], head, usage, now)]
            receipt = await parts.store.append(place.tenant_id, place.run_id, sealed, companions)
        if parts.told is not None:
            parts.told(place.run_id, list(enumerate(events, place.head.next_seq)), now)
        meters.UNKNOWN_OUTCOMES.inc(sum(isinstance(event, OutcomeUnknown) for event in events))
        self._recorded = drafts
        self._receipt = None if self._opened_at is None else _kept(receipt, sealed.records[0])
        self._held.clear()
        self._companions.clear()
        self._opened_at = None
        self._place = replace(place, head=head)
        parts.bell.ring(place.run_id, self._end(events[-1], usage, now))
        return head.next_seq - 1

    def _end(self, last: RunEvent, usage: Usage, now: datetime) -> RunEnd | None:
        if not isinstance(last, RunFinished):
            return None
        is_kept = last.output is not None and self._parts.result_ttl_seconds > 0
        told = self._recorded[-1].fields.get("output")
        return RunEnd(
            status=last.status,
            error_code=last.error_code,
            usage=usage,
            finished_at=now,
            entries=self._place.head.next_seq,
            output=last.output.text if last.output is not None and is_kept else None,
            told=None if told is None else told.value,
        )

    def _wrapped_again(self, item: Companion, now: datetime) -> Companion:
        place, keys = self._place, self._parts.keys
        if isinstance(item, NewRun):
            key = keys.wrap_run_key(place.tenant_id, place.run_id, place.run_key, now)
            return replace(item, key=key)
        if isinstance(item, NewWork) and place.work_key is not None:
            key = keys.wrap_work_key(place.tenant_id, place.run_id, place.work_key, now)
            return replace(item, key=key)
        return item

    def _work(self, first_seq: int, events: Sequence[RunEvent]) -> list[Companion]:
        """What the events bring to the working copy; the last one destroys it."""
        if self._place.work_key is None or isinstance(events[-1], RunFinished):
            return []
        told = step_bytes(list(enumerate(events, first_seq)))
        if told is None:
            return []
        seq = first_seq + len(events) - 1
        return [WorkPart(seq=seq, blob=self._sealed_work(seq, told))]

    @staticmethod
    def _approvals(events: Sequence[RunEvent], first_seq: int, now: datetime) -> list[Companion]:
        """What the events change beside the ledger of approvals."""
        found: list[Companion] = []
        for seq, event in enumerate(events, first_seq):
            match event:
                case ApprovalRequested():
                    opened = OpenApproval(
                        approval_id=event.approval_id,
                        digest=event.digest,
                        seq=seq,
                        at=now,
                        expires_at=event.expires_at,
                    )
                    found.append(opened)
                case ApprovalDecided():
                    found.append(_closed(event.approval_id, event.state, now))
                case ToolDecided() if event.approval is not None and _is_begun(event):
                    found.append(_closed(event.approval, ApprovalState.USED, now))
                case _:
                    pass
        return found

    def _sealed_work(self, seq: int, value: bytes) -> bytes:
        place = self._place
        if place.work_key is None:
            raise ValueError("a working copy needs its key")
        log, run = place.tenant_id.bytes, place.run_id.bytes
        nonce = self._parts.entropy(NONCE_BYTES)
        return seal_work(place.work_key, value, log=log, run=run, seq=seq, nonce=nonce)

    async def _drafts(self, events: Sequence[RunEvent]) -> list[Draft]:
        # Long texts are scrubbed off the event loop; short ones would wait longer for the thread.
        if sum(map(_weight, events)) <= _INLINE_SCRUB_CHARACTERS:
            return self._draft_all(events)
        return await asyncio.to_thread(self._draft_all, events)

    def _draft_all(self, events: Sequence[RunEvent]) -> list[Draft]:
        return [draft_of(event, self._scrub, self._note_released) for event in events]

    def _scrub(self, value: Json) -> Scrubbed:
        return self._parts.scrubber.scrub(value)

    def _note_released(self, text: str) -> Scrubbed:
        # Nothing but a digest under the run's key: who reads the note learns nothing of the text.
        return machine_note(released_note(self._place.run_key, text))

    def _closing(
        self, last: RunEvent, head: ChainHead, usage: Usage, now: datetime
    ) -> list[Companion]:
        """What the final record changes beside the ledger."""
        if not isinstance(last, RunFinished):
            return []
        change = Change(
            status=last.status,
            usage=usage,
            error_code=last.error_code,
            finished_at=now,
            entries=head.next_seq,
        )
        if last.output is None or self._parts.result_ttl_seconds <= 0:
            return [change]
        return [change, self._sealed_result(last.output, now)]

    def _sealed_result(self, output: ReleasedOutput, now: datetime) -> NewResult:
        place, parts = self._place, self._parts
        key, wrapped = parts.keys.new_result_key(place.tenant_id, place.run_id, now)
        nonce = parts.entropy(NONCE_BYTES)
        log, run = place.tenant_id.bytes, place.run_id.bytes
        sealed = seal_result(key, output.text, log=log, run=run, nonce=nonce)
        expires_at = now + timedelta(seconds=parts.result_ttl_seconds)
        return NewResult(key=wrapped, blob=sealed, expires_at=expires_at)


def _kept(receipt: Receipt, first: SealedRecord) -> RecordReceipt:
    """Of the run's first record. Without the batch, which holds on to all that shared the write."""
    run, batch = receipt.run.bytes, receipt.batch
    return RecordReceipt(
        log=receipt.log.bytes,
        run=run,
        seq=first.seq,
        rc=first.rc,
        chain=first.chain,
        share=None if batch is None else batch.share(run, first.seq),
    )


def _closed(approval_id: ApprovalId, state: ApprovalState, at: datetime) -> CloseApproval:
    return CloseApproval(approval_id=approval_id, state=state, at=at)


def _is_begun(event: ToolDecided) -> bool:
    return event.decision.enforced in {Verdict.ALLOW, Verdict.REDACT}


def _weight(event: RunEvent) -> int:
    """Roughly how many characters of an event are to be scrubbed."""
    match event:
        case RunSubmitted():
            told = event.submission.instructions or ""
            return len(told) + sum(len(part.content) for part in event.submission.data)
        case ModelResponded() if event.reply is not None:
            return len(event.reply.text) + sum(len(str(c.arguments)) for c in event.reply.calls)
        case ToolDecided():
            return len(str(event.call.arguments))
        case ToolFinished():
            return len(event.result.content)
        case RunFinished() if event.output is not None:
            return len(event.output.text)
        case _:
            return 0
