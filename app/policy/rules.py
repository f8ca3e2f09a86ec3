"""The checks that look at content itself, one small class each: R1, and what a task may ask for.

A check answers with a reason code to deny, or None. What it finds becomes part of the record of
facts that is judged; it never allows.

Threat: Privilege escalation via tool calls
"""

import json
import unicodedata
from dataclasses import dataclass
from typing import Protocol, TypeVar

from app.domain.run import Json, JsonObject
from app.domain.step import StopReason
from app.domain.visible_text import hides_something, shows_something
from app.policy.gate_inputs import (
    ApprovalInput,
    CallInput,
    DeliveryInput,
    MessageInput,
    OutputInput,
    RequestInput,
    ResponseInput,
    ResultInput,
    SubmitInput,
)
from app.policy.schema_check import SchemaRefusedError, check_schema, first_violation

MAX_TEXT_BYTES = 256 * 1024
MAX_DATA_PARTS = 64
MAX_CALLS_PER_TURN = 16
MAX_ARGUMENT_BYTES = 256 * 1024
MAX_CALL_NAME_CHARACTERS = 256  # of a tool's name or a call's id, as a model may write them


Input_contra = TypeVar("Input_contra", contravariant=True)


class Rule(Protocol[Input_contra]):
    """One reason to say no."""

    @property
    def rule_id(self) -> str:
        """The permanent id."""

    def judge(self, subject: Input_contra) -> str | None:
        """A reason code to deny, or None. An exception denies too."""


@dataclass(frozen=True, slots=True)
class TaskShape:
    """R1 at `run.submit`: bounded, readable text, and an output schema the gate can check."""

    rule_id: str = "r1.schema"

    def judge(self, subject: SubmitInput) -> str | None:
        """Denies empty, oversized or invisible text and schemas outside the checked subset."""
        submission = subject.submission
        texts = [part.content for part in submission.data]
        if submission.instructions is not None:
            texts.append(submission.instructions)
        if not any(map(shows_something, texts)):
            return "schema:empty_task"
        if len(submission.data) > MAX_DATA_PARTS:
            return "schema:too_many_parts"
        if any(_unreadable(text) for text in texts):
            return "schema:text"
        if submission.output_schema is not None:
            try:
                check_schema(submission.output_schema)
            except SchemaRefusedError:
                return "schema:output_schema"
        return None


@dataclass(frozen=True, slots=True)
class TaskCapability:
    """R2 at `run.submit`: nobody is given a tool that the platform or the tenant does not give."""

    rule_id: str = "r2.capability"

    def judge(self, subject: SubmitInput) -> str | None:
        """Denies tools and declared capabilities beyond the tenant's."""
        submission = subject.submission
        wanted = set(submission.tools) | (submission.capabilities or frozenset())
        return None if wanted <= subject.platform_tools else "capability:not_granted"


@dataclass(frozen=True, slots=True)
class TaskBudget:
    """R11 at `run.submit`: a budget that allows nothing is refused at once."""

    rule_id: str = "r11.budget"

    def judge(self, subject: SubmitInput) -> str | None:
        """Denies a budget without steps, tokens or time."""
        budget = subject.submission.budget
        usable = min(budget.max_steps, budget.max_tokens, budget.max_wall_seconds)
        return None if usable > 0 else "budget:empty"


@dataclass(frozen=True, slots=True)
class RequestShape:
    """R1 at `llm.request`: only tools that the run was offered are shown to the model."""

    rule_id: str = "r1.schema"

    def judge(self, subject: RequestInput) -> str | None:
        """Denies a request that shows a tool beyond the run's."""
        offered = {spec.name for spec in subject.facts.offered}
        shown = {spec.name for spec in subject.request.tools}
        return None if shown <= offered else "schema:tool_not_offered"


@dataclass(frozen=True, slots=True)
class ReplyShape:
    """R1 at `llm.response`: a whole reply with distinct, bounded calls."""

    rule_id: str = "r1.schema"

    def judge(self, subject: ResponseInput) -> str | None:
        """Denies cut-off replies, provider refusals, floods, repeated ids, and broken text."""
        reply = subject.reply
        if reply.stop_reason is StopReason.MAX_TOKENS:
            return "schema:reply_cut_off"
        if reply.stop_reason is StopReason.REFUSAL:
            return "schema:model_refused"
        if len(reply.calls) > MAX_CALLS_PER_TURN:
            return "schema:too_many_calls"
        if len({call.call_id for call in reply.calls}) != len(reply.calls):
            return "schema:call_id_twice"
        if not all(_is_name(word) for call in reply.calls for word in (call.call_id, call.name)):
            return "schema:call_name"
        if not _is_whole(reply.text):
            return "schema:text"
        if len(reply.text.encode()) > MAX_TEXT_BYTES:
            return "schema:reply_too_long"
        return None


@dataclass(frozen=True, slots=True)
class CallShape:
    """R1 at `tool.call`: a known tool, and arguments that fit its closed schema to the letter."""

    rule_id: str = "r1.schema"

    def judge(self, subject: CallInput) -> str | None:
        """Denies unknown tools, extra or malformed arguments, hidden and disguised characters."""
        call = subject.call
        spec = next((spec for spec in subject.facts.offered if spec.name == call.name), None)
        if spec is None:
            return "schema:unknown_tool"
        most = min(spec.argument_limit_bytes, MAX_ARGUMENT_BYTES)
        if len(json.dumps(call.arguments)) > most:
            return "schema:arguments_too_long"
        if hides_something(call.arguments):
            return "schema:invisible_characters"
        if first_violation(spec.parameters, call.arguments) is not None:
            return "schema:arguments"
        named = {name: it for name, it in call.arguments.items() if name not in spec.free_text}
        return None if _is_canonical(named) else "schema:not_canonical"


@dataclass(frozen=True, slots=True)
class ResultShape:
    """R1 at `tool.result`: a bounded result of a call that was made."""

    rule_id: str = "r1.schema"

    def judge(self, subject: ResultInput) -> str | None:
        """Denies results that outgrow the tool's limit."""
        specs = {spec.name: spec for spec in subject.facts.offered}
        spec = specs.get(subject.result.name)
        if spec is None:
            return "schema:unknown_tool"
        size = len(subject.result.content.encode("utf-8", "replace"))
        return "schema:result_too_long" if size > spec.result_limit_bytes + 1024 else None


@dataclass(frozen=True, slots=True)
class MessageShape:
    """R1 at `agent.message`: bounded, readable text between two named agents."""

    rule_id: str = "r1.schema"

    def judge(self, subject: MessageInput) -> str | None:
        """Denies unnamed parties and unreadable text."""
        if not subject.sender or not subject.receiver:
            return "schema:party"
        return "schema:text" if _unreadable(subject.text) else None


@dataclass(frozen=True, slots=True)
class OutputShape:
    """R1 at `run.output`: bounded text; where the caller asked for a schema, JSON that fits it."""

    rule_id: str = "r1.schema"

    def judge(self, subject: OutputInput) -> str | None:
        """Denies oversized answers and answers outside the caller's schema."""
        if len(subject.text.encode("utf-8", "replace")) > MAX_TEXT_BYTES:
            return "schema:output_too_long"
        if subject.output_schema is None:
            return None
        try:
            value = _strict_json(subject.text)
        except (ValueError, RecursionError):
            return "schema:output_not_json"
        violated = first_violation(subject.output_schema, value) is not None
        return "schema:output" if violated else None


@dataclass(frozen=True, slots=True)
class DeliveryShape:
    """R1 at `webhook.send`: an https address and a body, until the webhook issue adds the rest."""

    rule_id: str = "r1.schema"

    def judge(self, subject: DeliveryInput) -> str | None:
        """Denies anything but https with a host and a body."""
        host = subject.url.removeprefix("https://")
        whole = host != subject.url and host.strip("/") and subject.body
        return None if whole else "schema:delivery"


@dataclass(frozen=True, slots=True)
class ApprovalShape:
    """R1 at `approval.resolve`: it is said what is decided, and who asked for it."""

    rule_id: str = "r1.schema"

    def judge(self, subject: ApprovalInput) -> str | None:
        """Denies a decision on nothing, or on what nobody asked for."""
        return None if subject.approval_id and subject.requested_by else "schema:approval"


def _strict_json(text: str) -> Json:
    """JSON that every reader reads alike, or ValueError.

    Of a name given twice readers take different ones, so what was checked would not be what is
    read; NaN, infinities and half a surrogate pair some cannot read at all.
    """
    value: Json = json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_constant)
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return value


def _distinct(pairs: list[tuple[str, Json]]) -> JsonObject:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name twice")
    return made


def _no_constant(name: str) -> Json:
    raise ValueError(name)


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_CALL_NAME_CHARACTERS and _is_whole(text)


def _is_whole(text: str) -> bool:
    """Whether a text can be written down at all: half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unreadable(text: str) -> bool:
    return len(text.encode("utf-8", "replace")) > MAX_TEXT_BYTES or "\x00" in text


def _is_canonical(value: Json) -> bool:
    """Whether each text in a value is in form NFKC (UAX 15): a disguise of another is not."""
    match value:
        case str():
            return unicodedata.is_normalized("NFKC", value)
        case list():
            return all(map(_is_canonical, value))
        case dict():
            return all(_is_canonical(key) and _is_canonical(item) for key, item in value.items())
        case _:
            return True
