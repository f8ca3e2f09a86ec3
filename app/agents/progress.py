"""How far a run has come, and what the model is told of a call: one wording, live and resumed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from app.domain.approval import ApprovalId, ApprovalState
from app.domain.record import OutcomeUnknown, RunEvent, ToolDecided, ToolFinished
from app.domain.run import Usage
from app.domain.step import ModelReply, ReplyMessage, ResultsMessage, ToolResult
from app.domain.verdict import Verdict

_PASSING = frozenset({Verdict.ALLOW, Verdict.REDACT})
_UNKNOWN = (
    "The outcome of this call is unknown: the process that made it was lost before it could say."
    " It may have taken effect. It is not made again by itself."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedCall:
    """A call that somebody was asked to decide on, as the run's verified records tell it.

    `digest` is of what was judged; `is_late`: its time was over before anybody decided.
    """

    approval_id: ApprovalId
    state: ApprovalState
    digest: bytes
    seq: int
    requested_by: str
    decided_by: str | None
    expires_at: datetime
    is_late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTurn:
    """A reply whose calls are not all answered.

    `pending` is the intent of a call that was begun, `asked` what was asked for before it, or for
    a call that was not begun.
    """

    reply: ModelReply
    results: tuple[ToolResult, ...]
    pending: int | None
    asked: AskedCall | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a run has behind it, after its opening messages."""

    turns: tuple[ReplyMessage | ResultsMessage, ...]
    spent: Usage
    calls_made: Mapping[str, int]
    elapsed_seconds: float
    turn: OpenTurn | None
    put_off: int = 0  # how often in a row the model was asked and could not begin
    refused_asks: int = 0


NOTHING_YET = Progress(turns=(), spent=Usage(), calls_made={}, elapsed_seconds=0.0, turn=None)


def told_of(event: RunEvent) -> ToolResult | None:
    """What the model is told because of this event, if it is the end of a call."""
    match event:
        case ToolDecided() if event.decision.enforced is Verdict.DENY:
            return refused_call(event)
        case ToolFinished():
            return finished_call(event)
        case OutcomeUnknown():
            return unknown_call(event)
        case _:
            return None


def refused_call(event: ToolDecided) -> ToolResult:
    """The gate did not allow the call."""
    return _said(event.call.call_id, event.call.name, f"refused by policy ({event.decision.code})")


def finished_call(event: ToolFinished) -> ToolResult:
    """The call came to its end, and the gate said whether the model may see it."""
    if event.decision.enforced in _PASSING:
        return event.result
    text = f"the result was withheld by policy ({event.decision.code})"
    return _said(event.result.call_id, event.result.name, text)


def unknown_call(event: OutcomeUnknown) -> ToolResult:
    """Nobody can say whether the call took effect."""
    return _said(event.call.call_id, event.call.name, _UNKNOWN)


def _said(call_id: str, name: str, text: str) -> ToolResult:
    return ToolResult(call_id=call_id, name=name, content=text, is_error=True)
