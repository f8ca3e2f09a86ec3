"""What a run's verified records say about its row, and where the row says something else.

Pure. Whoever owns the database can write a row of `runs`; this is how a reader is not deceived.

Threat: Ledger tampering
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from app.domain.errors import ChainBreak
from app.domain.run import TERMINAL, Json, RunKind, RunRow, RunStatus, Usage
from app.ledger.chain import FINAL_KIND, VerifiedRecord

OPENING_KIND = "run.submitted"
STARTED_KIND = "run.started"
RESUMED_KIND = "run.resumed"
PARKED_KIND = "run.parked"
RESPONDED_KIND = "llm.responded"
_BETWEEN = ":"  # in no provider's name and no status


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAccount:
    """A run as its records tell it, as far as they go."""

    entries: int
    epoch: int
    kind: RunKind
    provider: str
    agent: str | None
    model: Json
    policy_digest: Json
    created_at: datetime
    status: RunStatus
    status_seq: int  # the record that the status is known from
    spent: Usage
    error_code: str | None = None
    finished_at: datetime | None = None


def engine_of(provider: str, agent: str | None) -> str:
    """How the first record names who answers a run: both are names of this deployment.

    Not in the sealed task: that is withheld when it cannot be scrubbed, and dies with an erasure.
    """
    return provider if agent is None else f"{provider}{_BETWEEN}{agent}"


def final_outcome(status: RunStatus, code: str | None) -> str:
    """The outcome of a run's final record: its status, and the code of what ended it, if any."""
    return status.value if code is None else f"{status.value}{_BETWEEN}{code}"


def account_of(
    records: Sequence[VerifiedRecord], before: RunAccount | None = None
) -> RunAccount | ChainBreak:
    """What these records say, after those that `before` tells of."""
    account = before
    for record in records:
        read = _opened(record) if account is None else _followed(account, record)
        if isinstance(read, ChainBreak):
            return read
        account = read
    return ChainBreak(seq=0, reason="a run without records") if account is None else account


def row_break(run: RunRow, account: RunAccount) -> ChainBreak | None:
    """The first column of the run's row that differs from what its records say, or None.

    What a run has used stands in its row from its end on; until then the row says zero.
    """
    last = account.entries - 1
    over = account.status in TERMINAL
    spent = account.spent if over else Usage()
    columns: tuple[tuple[str, object, object, int], ...] = (
        ("kind", run.kind, account.kind, 0),
        ("provider", run.provider, account.provider, 0),
        ("agent", run.agent, account.agent, 0),
        ("model", run.model, account.model, 0),
        ("policy_digest", run.policy_digest, account.policy_digest, 0),
        ("created_at", run.created_at, account.created_at, 0),
        ("status", run.status, account.status, account.status_seq),
        ("epoch", run.epoch, account.epoch, last),
        ("entries", run.entries, account.entries if over else None, last),
        ("error_code", run.error_code, account.error_code, last),
        ("finished_at", run.finished_at, account.finished_at, last),
        ("input_tokens", run.usage.input_tokens, spent.input_tokens, last),
        ("output_tokens", run.usage.output_tokens, spent.output_tokens, last),
        ("cost_micros", run.usage.cost_micros, spent.cost_micros, last),
        ("steps", run.usage.steps, spent.steps, last),
    )
    for name, says, told, seq in columns:
        if says != told:
            reason = f"column '{name}' of the run's row differs from the ledger"
            return ChainBreak(seq=seq, reason=reason)
    return None


def _opened(record: VerifiedRecord) -> RunAccount | ChainBreak:
    header = record.header
    policy, epoch = header["policy"], header["epoch"]
    if record.kind != OPENING_KIND or not isinstance(policy, dict) or not isinstance(epoch, int):
        return ChainBreak(seq=record.seq, reason="a run does not begin with its submission")
    provider, agent = _parted(header["engine"])
    return RunAccount(
        entries=record.seq + 1,
        epoch=epoch,
        kind=RunKind.AGENT,
        provider=provider,
        agent=agent,
        model=header["model"],
        policy_digest=policy["digest"],
        created_at=record.at,
        status=RunStatus.QUEUED,
        status_seq=record.seq,
        spent=Usage(),
    )


def _parted(text: Json) -> tuple[str, str | None]:
    """What stands before the first colon, and what after it, if there is one."""
    name, colon, rest = str(text).partition(_BETWEEN)
    return name, rest if colon else None


def _followed(account: RunAccount, record: VerifiedRecord) -> RunAccount | ChainBreak:
    epoch = record.header["epoch"]
    if not isinstance(epoch, int):
        return ChainBreak(seq=record.seq, reason="a record without an epoch")
    grown = replace(account, entries=record.seq + 1, epoch=epoch)
    match record.kind:
        case kind if kind == STARTED_KIND or (kind == RESUMED_KIND and _waits(account)):
            return replace(grown, status=RunStatus.RUNNING, status_seq=record.seq)
        case kind if kind == PARKED_KIND:
            return replace(grown, status=RunStatus.AWAITING_APPROVAL, status_seq=record.seq)
        case kind if kind == RESPONDED_KIND:
            return replace(grown, spent=account.spent.plus(_used(record)))
        case kind if kind == FINAL_KIND:
            return _ended(grown, record)
        case _:
            return grown


def _waits(account: RunAccount) -> bool:
    return account.status is RunStatus.AWAITING_APPROVAL


def _used(record: VerifiedRecord) -> Usage:
    """One turn and its tokens; a call that gave no reply used neither."""
    usage = record.header["usage"]
    if not isinstance(usage, dict):
        return Usage()
    return Usage(
        input_tokens=_count(usage["input_tokens"]),
        output_tokens=_count(usage["output_tokens"]),
        cost_micros=_count(usage["cost_micros"]),
        steps=1,
    )


def _count(value: Json) -> int:
    return value if isinstance(value, int) else 0


def _ended(account: RunAccount, record: VerifiedRecord) -> RunAccount | ChainBreak:
    status, code = _parted(record.header["outcome"])
    if status not in {end.value for end in TERMINAL}:
        return ChainBreak(seq=record.seq, reason="the final record names no end")
    return replace(
        account,
        status=RunStatus(status),
        status_seq=record.seq,
        error_code=code,
        finished_at=record.at,
    )
