"""Shows what waits for a decision and takes decisions; each is a record before it counts.

A decision is bound to the keyed digest of what was judged, is made once, in time, and by a key that
did not submit the run. Whoever drives the run next finds it in the ledger. The arguments in clear
come from the working copy, to whoever may decide, and that they were shown is recorded first.

Threat: Privilege escalation via tool calls
"""

import hmac
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from app.agents.progress import AskedCall, Progress
from app.domain.approval import (
    ApprovalFilter,
    ApprovalId,
    ApprovalRow,
    ApprovalState,
    public_approval_id,
)
from app.domain.errors import (
    ApprovalClosedError,
    ApprovalRefusedError,
    ChainBreak,
    IllegalTransitionError,
    KeyStoreError,
    LedgerBrokenError,
    NotFoundError,
    PreconditionFailedError,
    StaleEpochError,
)
from app.domain.record import ApprovalDecided, ApprovalRead, ApprovalRefused, RunWoken
from app.domain.run import Caller, Json, JsonObject, Usage
from app.domain.verdict import Deny
from app.ledger.chain import VerifiedRecord
from app.ledger.sealing import SealError
from app.policy.gate import DascGate
from app.policy.gate_inputs import ApprovalInput
from app.runs.approval_facts import asks_of
from app.runs.parking import RunWaker
from app.runs.recorder import LedgerRecorder, RunPlace
from app.runs.run_keys import RunKeys
from app.runs.takeover import Reopen, VerifiedRun, opened_parts
from app.runs.working_copy import WorkingCopyError, progress_of
from app.storage.approval_store import ApprovalStore
from app.storage.companions import QueueWake
from app.storage.run_store import RunStore

Answer = TypeVar("Answer")
_TRIES = 5  # others may read or decide at the same moment


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionWish:
    """What somebody wants to decide. `digest`: of the action that was shown."""

    granted: bool
    digest: bytes
    comment: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalCard:
    """What is to be decided, as the verified ledger tells it.

    `call` is the proposed call, scrubbed, or in clear when `in_clear`; None when it was erased.
    """

    row: ApprovalRow
    asked: AskedCall
    rules: tuple[str, ...]
    code: str
    call: JsonObject | None
    in_clear: bool = False
    comment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalParts:
    """What the desk works with."""

    gate: DascGate
    store: ApprovalStore
    runs: RunStore
    keys: RunKeys
    waker: RunWaker
    reopen: Reopen
    now: Callable[[], datetime]


class ApprovalDesk:
    """The approvals of all tenants; a caller reaches those of its own."""

    def __init__(self, parts: ApprovalParts) -> None:
        self._parts = parts

    async def page(
        self, caller: Caller, *, before: ApprovalId | None, wanted: ApprovalFilter, limit: int
    ) -> list[ApprovalRow]:
        """Rows of the caller's tenant, newest first, unverified."""
        return await self._parts.store.page(
            caller.tenant_id, before=before, wanted=wanted, limit=limit
        )

    async def card(self, caller: Caller, approval_id: ApprovalId) -> ApprovalCard:
        """What is to be decided, from the verified ledger and scrubbed. NotFoundError."""
        row = await self._parts.store.find(caller.tenant_id, approval_id)
        found = await self._parts.reopen(caller.tenant_id, row.run_id)
        return self._card(row, found)

    async def card_in_clear(self, caller: Caller, approval_id: ApprovalId) -> ApprovalCard:
        """As `card`, with the arguments in clear while they wait; recorded before it returns."""
        return await _again(lambda: self._card_in_clear(caller, approval_id))

    async def decide(
        self, caller: Caller, approval_id: ApprovalId, wish: DecisionWish
    ) -> ApprovalCard:
        """Take a decision: durable when this returns, and the run goes on.

        PreconditionFailedError: another action was shown. ApprovalClosedError: it was decided, or
        its time is over. ApprovalRefusedError: the gate does not let it count; recorded.
        """
        return await _again(lambda: self._decide(caller, approval_id, wish))

    async def _card_in_clear(self, caller: Caller, approval_id: ApprovalId) -> ApprovalCard:
        parts = self._parts
        row = await parts.store.find(caller.tenant_id, approval_id)
        try:
            recorder, found = await parts.waker.opened(caller.tenant_id, row.run_id)
        except (NotFoundError, IllegalTransitionError):
            return self._card(row, await parts.reopen(caller.tenant_id, row.run_id))
        card = self._card(row, found)
        call = None
        if card.asked.state is ApprovalState.PENDING:
            call = await self._clear_call(recorder.place, found, card.asked)
        if call is None:
            return card
        await recorder.record(ApprovalRead(approval_id=approval_id, actor=caller.actor), Usage())
        return replace(card, call=call, in_clear=True)

    async def _clear_call(
        self, place: RunPlace, found: VerifiedRun, asked: AskedCall
    ) -> JsonObject | None:
        """The call as the model proposed it; None when the copy is not there any more."""
        stored = await self._parts.runs.working_copy(place.tenant_id, place.run_id)
        if stored is None:
            return None
        try:
            key = self._parts.keys.open(place.tenant_id, place.run_id, stored[0])
            known = [(seq, blob) for seq, blob in stored[1] if seq < place.head.next_seq]
            progress = _restored(replace(place, work_key=key), known, found, asked)
        except (KeyStoreError, SealError, WorkingCopyError):
            return None
        turn = progress.turn
        if turn is None or turn.asked is None:
            return None
        call = turn.reply.calls[len(turn.results)]
        return {"call_id": call.call_id, "name": call.name, "arguments": call.arguments}

    async def _decide(
        self, caller: Caller, approval_id: ApprovalId, wish: DecisionWish
    ) -> ApprovalCard:
        parts = self._parts
        row = await parts.store.find(caller.tenant_id, approval_id)
        try:
            recorder, found = await parts.waker.opened(caller.tenant_id, row.run_id)
        except (NotFoundError, IllegalTransitionError):
            card = self._card(row, await parts.reopen(caller.tenant_id, row.run_id))
            raise ApprovalClosedError(_closed_as(card.row.state)) from None
        card = self._card(row, found)
        if card.asked.state is not ApprovalState.PENDING:
            raise ApprovalClosedError(card.asked.state.value)
        if not hmac.compare_digest(wish.digest, card.asked.digest):
            raise PreconditionFailedError
        if card.asked.expires_at <= parts.now():
            raise ApprovalClosedError(ApprovalState.EXPIRED.value)
        return await self._taken(caller, recorder, card, wish)

    async def _taken(
        self, caller: Caller, recorder: LedgerRecorder, card: ApprovalCard, wish: DecisionWish
    ) -> ApprovalCard:
        asked = card.asked
        verdict = self._parts.gate.approval_resolve(
            ApprovalInput(
                approval_id=public_approval_id(asked.approval_id),
                granted=wish.granted,
                requested_by=asked.requested_by,
                decided_by=caller.actor,
                digest=asked.digest,
            )
        )
        if isinstance(verdict, Deny):
            refused = ApprovalRefused(
                approval_id=asked.approval_id, actor=caller.actor, decision=verdict.decision
            )
            await recorder.record(refused, Usage())
            raise ApprovalRefusedError(verdict.decision.code, verdict.decision.rules)
        state = ApprovalState.APPROVED if verdict.granted else ApprovalState.DENIED
        recorder.hold(
            ApprovalDecided(
                approval_id=asked.approval_id,
                state=state,
                actor=caller.actor,
                decision=verdict.decision,
                comment=wish.comment,
            )
        )
        recorder.queue(QueueWake())
        await recorder.record(RunWoken(actor=caller.actor), Usage())
        asked = replace(asked, state=state, decided_by=caller.actor)
        return replace(card, asked=asked, comment=wish.comment)

    @staticmethod
    def _card(row: ApprovalRow, found: VerifiedRun) -> ApprovalCard:
        """LedgerBrokenError when the ledger does not know what the row is about."""
        asks = {asked.approval_id: asked for asked in asks_of(found.records)}
        asked = asks.get(row.approval_id)
        if asked is None or not 0 < asked.seq < len(found.records):
            reason = "an approval that the ledger does not know"
            raise LedgerBrokenError(ChainBreak(seq=row.seq, reason=reason))
        decided = found.records[asked.seq - 1]
        policy = decided.header["policy"]
        rules = policy["rules"] if isinstance(policy, dict) else None
        return ApprovalCard(
            row=row,
            asked=asked,
            rules=tuple(map(str, rules)) if isinstance(rules, list) else (),
            code=str(decided.header["outcome"]),
            call=_object(decided.fields.get("call")),
            comment=_comment(found.records, row.approval_id),
        )


def _restored(
    place: RunPlace,
    sealed: Sequence[tuple[int, bytes]],
    found: VerifiedRun,
    asked: AskedCall,
) -> Progress:
    _, *later = opened_parts(place, sealed)
    kinds = [(record.seq, record.kind) for record in found.records]
    return progress_of(later, kinds, spent=found.spent, elapsed_seconds=0.0, asked=asked)


def _closed_as(state: ApprovalState) -> str:
    return ApprovalState.VOID.value if state is ApprovalState.PENDING else state.value


def _comment(records: Sequence[VerifiedRecord], approval_id: ApprovalId) -> str | None:
    """What whoever decided said to it, scrubbed."""
    for record in reversed(records):
        is_it = record.header["approval"] == approval_id.hex
        if is_it and record.kind == "approval.decided":
            said = (_object(record.fields.get("note")) or {}).get("comment")
            return said if isinstance(said, str) else None
    return None


def _object(value: bytes | None) -> JsonObject | None:
    said: Json = None if value is None else json.loads(value)
    return said if isinstance(said, dict) else None


async def _again(work: Callable[[], Awaitable[Answer]]) -> Answer:
    """Once more when somebody else wrote to the run at the same moment: it is read anew."""
    for _ in range(_TRIES - 1):
        try:
            return await work()
        except StaleEpochError:
            continue
    return await work()
