"""Ledger entries as readers see them: one closed model a kind, made from verified records."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from typing_extensions import TypeAliasType

from app.api.decision_views import DecisionView, decision_view
from app.ledger.chain import VerifiedRecord


def _z(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


Moment = Annotated[datetime, PlainSerializer(_z, return_type=str, when_used="json")]


class View(BaseModel):
    """Base of what is shown: a closed model."""

    model_config = ConfigDict(extra="forbid")


class DataPartView(View):
    """A data part, scrubbed."""

    content: str
    source: str | None


class BudgetView(View):
    """The limits in force."""

    max_steps: int
    max_tokens: int
    max_cost_micros: int
    max_wall_seconds: int


class CapabilitiesView(View):
    """What a run may use, all levels together; null is no bound.

    `tools` are those that were declared, or where none were, those that were asked for and those
    that only read. Any other that has an effect asks for approval, or is denied.
    """

    tools: list[str] | None
    recipients: list[str] | None
    domains: list[str] | None
    paths: list[str] | None
    max_amount: str | None
    max_calls: dict[str, int]
    readers: list[str] | None


class TaskView(View):
    """The task as the ledger holds it: scrubbed. `capabilities`: the tools that were declared."""

    instructions: str | None
    data: list[DataPartView]
    agent: str | None
    model: str
    tools: list[str]
    capabilities: list[str] | None
    effective: CapabilitiesView | None
    mode: str | None
    budget: BudgetView
    output_schema: dict[str, JsonValue] | None
    metadata: dict[str, JsonValue]

    @model_validator(mode="before")
    @classmethod
    def _of_an_older_version(cls, value: JsonValue) -> JsonValue:
        return {"effective": None, "mode": None, **value} if isinstance(value, dict) else value


class CallView(View):
    """A proposed tool call, scrubbed."""

    call_id: str
    name: str
    arguments: dict[str, JsonValue]


class RequestView(View):
    """What was asked of the model, in numbers."""

    max_output_tokens: int
    messages: int
    tools: list[str]


class ReplyView(View):
    """What the model said, scrubbed."""

    text: str
    calls: list[CallView]
    stop_reason: str


class ResultView(View):
    """What a tool gave back, scrubbed."""

    content: str
    is_error: bool


class OutputView(View):
    """The released answer, scrubbed."""

    text: str


class ApprovalRequestView(View):
    """What a decision has to name, and until when."""

    digest: str
    expires_at: str


class ApprovalNoteView(View):
    """What whoever decided said to it, scrubbed."""

    comment: str


class TokensView(View):
    """What one model call used."""

    input_tokens: int
    output_tokens: int
    cost_micros: int


class _Entry(View):
    seq: int
    at: Moment
    actor: str
    outcome: str | None
    decision: DecisionView | None
    record_hash: str
    chain_hash: str
    erased: list[str]


class RunSubmittedEntry(_Entry):
    """The task and whether it may enter."""

    kind: Literal["run.submitted"]
    task: TaskView | None


class RunStartedEntry(_Entry):
    """A process took the run."""

    kind: Literal["run.started"]


class RunResumedEntry(_Entry):
    """Another process took the run over and goes on with it."""

    kind: Literal["run.resumed"]


class RunParkedEntry(_Entry):
    """The run waits for somebody's decision, and no process drives it."""

    kind: Literal["run.parked"]


class RunWokenEntry(_Entry):
    """Somebody decided what the run waited for."""

    kind: Literal["run.woken"]


class LlmRequestedEntry(_Entry):
    """Intent of a model call."""

    kind: Literal["llm.requested"]
    model: str | None
    request: RequestView | None


class LlmRespondedEntry(_Entry):
    """What a model call came to."""

    kind: Literal["llm.responded"]
    intent: int | None
    model: str | None
    usage: TokensView | None
    reply: ReplyView | None


class ToolDecidedEntry(_Entry):
    """A proposed call and the gate's decision on it; `approval_id` once somebody has decided."""

    kind: Literal["tool.decided"]
    approval_id: str | None
    call: CallView | None


class ToolFinishedEntry(_Entry):
    """What an allowed call came to."""

    kind: Literal["tool.finished"]
    intent: int | None
    result: ResultView | None


class ApprovalRequestedEntry(_Entry):
    """The call of the entry before waits for somebody to decide."""

    kind: Literal["approval.requested"]
    approval_id: str
    request: ApprovalRequestView | None


class ApprovalDecidedEntry(_Entry):
    """Somebody decided, or its time was over; `outcome` is the state that it came to."""

    kind: Literal["approval.decided"]
    approval_id: str
    note: ApprovalNoteView | None


class ApprovalRefusedEntry(_Entry):
    """Somebody tried to decide, and the gate did not let it count."""

    kind: Literal["approval.refused"]
    approval_id: str


class ApprovalReadEntry(_Entry):
    """Somebody was shown the arguments in clear."""

    kind: Literal["approval.read"]
    approval_id: str


class RunCancelRequestedEntry(_Entry):
    """Somebody asked the run to stop."""

    kind: Literal["run.cancel_requested"]


class RunFinishedEntry(_Entry):
    """The last entry of every run."""

    kind: Literal["run.finished"]
    output: OutputView | None


AnyEntry: TypeAlias = (
    RunSubmittedEntry
    | RunStartedEntry
    | RunResumedEntry
    | RunParkedEntry
    | RunWokenEntry
    | LlmRequestedEntry
    | LlmRespondedEntry
    | ToolDecidedEntry
    | ToolFinishedEntry
    | ApprovalRequestedEntry
    | ApprovalDecidedEntry
    | ApprovalRefusedEntry
    | ApprovalReadEntry
    | RunCancelRequestedEntry
    | RunFinishedEntry
)
# A named union is a component of its own in the document; an anonymous one gets a made-up name.
RunEvent = TypeAliasType("RunEvent", Annotated[AnyEntry, Field(discriminator="kind")])


class EntryPage(View):
    """Entries of a run in chain order."""

    data: list[RunEvent]
    has_more: bool
    next_cursor: str | None


Body = TypeVar("Body", bound=BaseModel)


def body_of(model: type[Body], record: VerifiedRecord, name: str) -> Body | None:
    """A payload as its view, or None when it was erased, withheld or scrubbed out of shape."""
    value = record.fields.get(name)
    return None if value is None else parsed(model, value)


def parsed(model: type[Body], value: bytes) -> Body | None:
    """Scrubbed JSON as its view, or None when scrubbing left another shape."""
    try:
        return model.model_validate_json(value)
    except ValidationError:
        return None


def entry_of(record: VerifiedRecord) -> AnyEntry:
    """A verified record as the entry of its kind."""
    make = _ENTRIES.get(record.kind)
    if make is None:
        raise AssertionError("a verified record of a kind that this code does not know")
    return make(record, _common(record))


def _common(record: VerifiedRecord) -> dict[str, object]:
    header = record.header
    return {
        "seq": record.seq,
        "kind": record.kind,
        "at": record.at,
        "actor": header["actor"],
        "outcome": header["outcome"],
        "decision": decision_view(record),
        "record_hash": record.rc.hex(),
        "chain_hash": record.chain.hex(),
        "erased": sorted(record.erased),
    }


def _approval_of(record: VerifiedRecord) -> str | None:
    said = record.header["approval"]
    return f"apr_{said}" if isinstance(said, str) else None


Common = dict[str, object]
Maker = Callable[[VerifiedRecord, Common], AnyEntry]

_ENTRIES: dict[str, Maker] = {
    "run.submitted": lambda record, common: RunSubmittedEntry(
        **common, task=body_of(TaskView, record, "task")
    ),
    "run.started": lambda _, common: RunStartedEntry(**common),
    "run.resumed": lambda _, common: RunResumedEntry(**common),
    "run.parked": lambda _, common: RunParkedEntry(**common),
    "run.woken": lambda _, common: RunWokenEntry(**common),
    "llm.requested": lambda record, common: LlmRequestedEntry(
        **common,
        model=record.header["model"],
        request=body_of(RequestView, record, "request"),
    ),
    "llm.responded": lambda record, common: LlmRespondedEntry(
        **common,
        intent=record.header["intent"],
        model=record.header["model"],
        usage=record.header["usage"],
        reply=body_of(ReplyView, record, "reply"),
    ),
    "tool.decided": lambda record, common: ToolDecidedEntry(
        **common, approval_id=_approval_of(record), call=body_of(CallView, record, "call")
    ),
    "tool.finished": lambda record, common: ToolFinishedEntry(
        **common, intent=record.header["intent"], result=body_of(ResultView, record, "result")
    ),
    "approval.requested": lambda record, common: ApprovalRequestedEntry(
        **common,
        approval_id=_approval_of(record),
        request=body_of(ApprovalRequestView, record, "note"),
    ),
    "approval.decided": lambda record, common: ApprovalDecidedEntry(
        **common,
        approval_id=_approval_of(record),
        note=body_of(ApprovalNoteView, record, "note"),
    ),
    "approval.refused": lambda record, common: ApprovalRefusedEntry(
        **common, approval_id=_approval_of(record)
    ),
    "approval.read": lambda record, common: ApprovalReadEntry(
        **common, approval_id=_approval_of(record)
    ),
    "run.cancel_requested": lambda _, common: RunCancelRequestedEntry(**common),
    "run.finished": lambda record, common: RunFinishedEntry(
        **common, output=body_of(OutputView, record, "output")
    ),
}
