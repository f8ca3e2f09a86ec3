"""What can happen to a run, as a closed union; each event becomes one ledger record."""

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from app.domain.approval import ApprovalId, ApprovalState
from app.domain.run import RunStatus, Submission
from app.domain.step import ModelReply, ModelRequest, ToolCall, ToolResult
from app.domain.verdict import Decision, ReleasedOutput

# A final record names the run's status and this code in one outcome of at most 128 characters.
MAX_CODE_CHARACTERS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSubmitted:
    """A caller posted a task, and the gate said whether it may enter.

    `derived`: the tools that the run may use by what was declared or asked for.
    """

    actor: str
    submission: Submission
    provider: str
    decision: Decision
    derived: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A process took the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResumed:
    """Another process took the run over and goes on behind its last durable step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParked:
    """The run waits for somebody's decision, and no process drives it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWoken:
    """Somebody decided what a parked run waited for: it goes on."""

    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequested:
    """Intent: the model is about to be called, or the gate refused that it is."""

    request: ModelRequest
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelResponded:
    """The model answered (and the gate judged it), or the call failed with a code."""

    intent: int
    model: str
    reply: ModelReply | None
    decision: Decision | None
    error_code: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDecided:
    """Intent: a proposed call, and whether the gate allows it.

    `approval`: the one by which it is allowed, or refused, after it was asked for.
    """

    call: ToolCall
    decision: Decision
    approval: ApprovalId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFinished:
    """An allowed call came to this, and the gate said whether the model may see it."""

    intent: int
    result: ToolResult
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeUnknown:
    """A call that may change the world was begun, and whoever made it is lost: not repeated."""

    intent: int
    call: ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRequested:
    """The call decided on just before waits for somebody. `digest`: keyed, of what was judged."""

    approval_id: ApprovalId
    tool: str
    digest: bytes
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalDecided:
    """Somebody decided, or the time was over, or what was asked for changed."""

    approval_id: ApprovalId
    state: ApprovalState
    actor: str
    decision: Decision | None
    comment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRefused:
    """Somebody tried to decide, and the gate did not let it count."""

    approval_id: ApprovalId
    actor: str
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRead:
    """Somebody was shown the arguments in clear."""

    approval_id: ApprovalId
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested:
    """Somebody asked the run to stop."""

    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """The last record of every run."""

    status: RunStatus
    error_code: str | None = None
    output: ReleasedOutput | None = None
    decision: Decision | None = None


RunEvent: TypeAlias = (
    RunSubmitted
    | RunStarted
    | RunResumed
    | RunParked
    | RunWoken
    | ModelRequested
    | ModelResponded
    | ToolDecided
    | ToolFinished
    | OutcomeUnknown
    | ApprovalRequested
    | ApprovalDecided
    | ApprovalRefused
    | ApprovalRead
    | CancelRequested
    | RunFinished
)
