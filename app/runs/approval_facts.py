"""What a run's verified records say of the approvals that it asked for. Pure.

The row of an approval is an index; this is what counts, for whoever decides and whoever acts on it.

Threat: Privilege escalation via tool calls
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from app.agents.asking import DENIED, EXPIRED
from app.agents.progress import AskedCall
from app.domain.approval import ApprovalId, ApprovalState
from app.domain.errors import ChainBreak, LedgerBrokenError
from app.domain.record import ApprovalRequested
from app.domain.run import Json, JsonObject
from app.ledger.chain import FINAL_KIND, VerifiedRecord
from app.ledger.header import encode_time
from app.ledger.run_account import RESUMED_KIND

REQUESTED: Final = "approval.requested"
DECIDED: Final = "approval.decided"
_ACTED: Final = "tool.decided"
_ALLOWED: Final = "allow"
_OPEN: Final = frozenset({ApprovalState.PENDING, ApprovalState.APPROVED})


def request_note(event: ApprovalRequested) -> JsonObject:
    """What a request says besides its header: no content."""
    return {"digest": event.digest.hex(), "expires_at": encode_time(event.expires_at)}


def asks_of(records: Sequence[VerifiedRecord]) -> list[AskedCall]:
    """Every approval that was asked for, in order, with what became of it.

    LedgerBrokenError for records that no process of ours writes.
    """
    found: dict[UUID, AskedCall] = {}
    for record in records:
        said = record.header["approval"]
        if not isinstance(said, str):
            continue
        approval_id = UUID(hex=said)
        match record.kind:
            case kind if kind == REQUESTED:
                asked = _requested(record, approval_id, str(records[0].header["actor"]))
                found[approval_id] = asked
            case kind if kind == DECIDED and approval_id in found:
                found[approval_id] = _decided(found[approval_id], record)
            case kind if kind == _ACTED and approval_id in found and _is_allowed(record):
                found[approval_id] = replace(found[approval_id], state=ApprovalState.USED)
            case _:
                pass
    if records and records[-1].kind == FINAL_KIND:
        return [_ended(asked) for asked in found.values()]
    return list(found.values())


def refused_among(records: Sequence[VerifiedRecord]) -> int:
    """How many calls were refused after somebody was asked; one the model was not told yet is not.

    A call that the gate itself refuses in spite of an approval is none of them.
    """
    return sum(
        record.kind == _ACTED
        and record.header["approval"] is not None
        and record.header["outcome"] in {DENIED, EXPIRED}
        for record in records
    )


def waited_seconds(records: Sequence[VerifiedRecord], now: datetime) -> float:
    """How long the run waited for somebody to decide: that is not the run's own time."""
    total, since = 0.0, None
    for record in records:
        if record.kind == REQUESTED:
            since = record.at
        elif record.kind == RESUMED_KIND and since is not None:
            total += max(0.0, (record.at - since).total_seconds())
            since = None
    return total if since is None else total + max(0.0, (now - since).total_seconds())


def _requested(record: VerifiedRecord, approval_id: UUID, asked_by: str) -> AskedCall:
    said = record.fields.get("note")
    note: Json = None if said is None else json.loads(said)
    if "note" in record.erased:
        note = {"digest": "", "expires_at": encode_time(record.at)}
    if not isinstance(note, dict):
        raise _strange(record)
    digest, expires_at = note.get("digest"), note.get("expires_at")
    if not isinstance(digest, str) or not isinstance(expires_at, str):
        raise _strange(record)
    return AskedCall(
        approval_id=ApprovalId(approval_id),
        state=ApprovalState.PENDING,
        digest=bytes.fromhex(digest),
        seq=record.seq,
        requested_by=asked_by,
        decided_by=None,
        expires_at=datetime.fromisoformat(expires_at),
    )


def _decided(asked: AskedCall, record: VerifiedRecord) -> AskedCall:
    try:
        state = ApprovalState(str(record.header["outcome"]))
    except ValueError:
        raise _strange(record) from None
    return replace(asked, state=state, decided_by=str(record.header["actor"]))


def _ended(asked: AskedCall) -> AskedCall:
    return replace(asked, state=ApprovalState.VOID) if asked.state in _OPEN else asked


def _is_allowed(record: VerifiedRecord) -> bool:
    policy = record.header["policy"]
    return isinstance(policy, dict) and policy["verdict"] == _ALLOWED


def _strange(record: VerifiedRecord) -> LedgerBrokenError:
    return LedgerBrokenError(ChainBreak(seq=record.seq, reason="an approval that says nothing"))
