"""What an append may bring with it: rows and changes of a run, in the same transaction."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.domain.approval import APPROVAL_TRANSITIONS, ApprovalId, ApprovalState
from app.domain.idempotency import KeyClaim
from app.domain.run import TRANSITIONS, Json, JsonObject, RunId, RunKind, RunStatus, Usage
from app.storage.holds import ReleaseHold, SetHold, hold_json
from app.storage.policy_changes import (
    ActivatePolicy,
    ConfirmPolicy,
    PolicyChange,
    PutPolicy,
    policy_change_json,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedKey:
    """A key as stored: wrapped by a key of the key store."""

    kek_id: str
    wrapped: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """Companion: the run's row and key, written with its first record."""

    kind: RunKind
    status: RunStatus
    provider: str
    model: str
    agent: str | None
    policy_digest: str
    created_at: datetime
    key: WrappedKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Companion: raise the epoch, so that whoever held the run before can write no more."""

    from_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Companion: the run's next state. `entries` and `finished_at` are set when it is terminal."""

    status: RunStatus
    usage: Usage
    error_code: str | None = None
    finished_at: datetime | None = None
    entries: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewResult:
    """Companion: the released output, sealed under a key of its own, for a limited time."""

    key: WrappedKey
    blob: bytes
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWork:
    """Companion: the run's work key and the first part of its working copy, the task."""

    key: WrappedKey
    blob: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkPart:
    """Companion: what the records up to `seq` brought to the working copy, sealed."""

    seq: int
    blob: bytes


@dataclass(frozen=True, slots=True)
class LabelledRun:
    """Companion: keyed digests of the run's metadata, by which lists are narrowed."""

    digests: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenKey:
    """Companion: the idempotency key that a run begins with, so that no second one does."""

    claim: KeyClaim
    status: int  # with which the first request is answered


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePut:
    """Companion: the run waits in the queue, or `worker` begins with it at once."""

    worker: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePark:
    """Companion: nobody drives the run before it is woken, or before then."""

    until: datetime


@dataclass(frozen=True, slots=True)
class QueueWake:
    """Companion: a parked run is due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenApproval:
    """Companion: a call of the run waits for somebody's decision."""

    approval_id: ApprovalId
    digest: bytes
    seq: int
    at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseApproval:
    """Companion: an approval comes to another state, if its present one allows that."""

    approval_id: ApprovalId
    state: ApprovalState
    at: datetime


Queueing = QueuePut | QueuePark | QueueWake
Companion = (
    NewRun
    | Claim
    | Change
    | NewResult
    | NewWork
    | WorkPart
    | LabelledRun
    | TakenKey
    | SetHold
    | ReleaseHold
    | PolicyChange
    | OpenApproval
    | CloseApproval
    | Queueing
)


def companion_json(run_id: RunId, item: Companion) -> JsonObject:
    """What `ledger_append` is told of it."""
    run = str(run_id)
    match item:
        case NewRun():
            return {
                "op": "run.insert",
                "run_id": run,
                "kind": item.kind.value,
                "status": item.status.value,
                "provider": item.provider,
                "model": item.model,
                "agent": item.agent,
                "policy_digest": item.policy_digest,
                "created_at": item.created_at.isoformat(),
                **_key(item.key),
            }
        case Claim():
            return {"op": "run.claim", "run_id": run, "from_epoch": item.from_epoch}
        case Change():
            return {
                "op": "run.change",
                "run_id": run,
                "status": item.status.value,
                "from": [old.value for old, new in TRANSITIONS.items() if item.status in new],
                "input_tokens": item.usage.input_tokens,
                "output_tokens": item.usage.output_tokens,
                "cost_micros": item.usage.cost_micros,
                "steps": item.usage.steps,
                "entries": item.entries,
                "error_code": item.error_code,
                "finished_at": None if item.finished_at is None else item.finished_at.isoformat(),
            }
        case NewResult():
            return {
                "op": "result.insert",
                "run_id": run,
                "blob": item.blob.hex(),
                "expires_at": item.expires_at.isoformat(),
                **_key(item.key),
            }
        case TakenKey():
            return {
                "op": "key.take",
                "run_id": run,
                "keys": [key.hex() for key in item.claim.keys],
                "request": item.claim.requests[0].hex(),
                "status": item.status,
            }
        case SetHold() | ReleaseHold() | OpenApproval() | CloseApproval():
            return _matter_json(run, item)
        case PutPolicy() | ActivatePolicy() | ConfirmPolicy():
            return policy_change_json(run_id, item)
        case NewWork() | WorkPart() | LabelledRun() | QueuePut() | QueuePark() | QueueWake():
            return _driving_json(run, item)


def _driving_json(run: str, item: NewWork | WorkPart | LabelledRun | Queueing) -> JsonObject:
    if isinstance(item, NewWork | WorkPart | LabelledRun):
        return _work_json(run, item)
    return _queueing_json(run, item)


def _work_json(run: str, item: NewWork | WorkPart | LabelledRun) -> JsonObject:
    match item:
        case NewWork():
            return {"op": "work.open", "run_id": run, "blob": _text(item.blob), **_key(item.key)}
        case WorkPart():
            return {"op": "work.put", "run_id": run, "seq": item.seq, "blob": _text(item.blob)}
        case LabelledRun():
            told: list[Json] = [digest.hex() for digest in item.digests]
            return {"op": "run.label", "run_id": run, "digests": told}


def _matter_json(
    run: str, item: SetHold | ReleaseHold | OpenApproval | CloseApproval
) -> JsonObject:
    match item:
        case SetHold() | ReleaseHold():
            return hold_json(item)
        case OpenApproval() | CloseApproval():
            return _approval_json(run, item)


def _approval_json(run: str, item: OpenApproval | CloseApproval) -> JsonObject:
    about: JsonObject = {
        "run_id": run,
        "approval_id": str(item.approval_id),
        "at": item.at.isoformat(),
    }
    match item:
        case OpenApproval():
            return {
                **about,
                "op": "approval.open",
                "digest": item.digest.hex(),
                "seq": item.seq,
                "expires_at": item.expires_at.isoformat(),
            }
        case CloseApproval():
            before = [old for old, new in APPROVAL_TRANSITIONS.items() if item.state in new]
            return {
                **about,
                "op": "approval.close",
                "state": item.state.value,
                "from": [state.value for state in before],
            }


def _queueing_json(run: str, item: Queueing) -> JsonObject:
    match item:
        case QueuePut():
            worker = None if item.worker is None else str(item.worker)
            return {"op": "queue.put", "run_id": run, "worker": worker}
        case QueuePark():
            return {"op": "queue.park", "run_id": run, "until": item.until.isoformat()}
        case QueueWake():
            return {"op": "queue.wake", "run_id": run}


def _text(blob: bytes) -> str:
    return b64encode(blob).decode("ascii")


def _key(key: WrappedKey) -> dict[str, Json]:
    return {"kek_id": key.kek_id, "wrapped": key.wrapped.hex()}
