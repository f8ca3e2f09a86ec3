"""The working copy of a run: what was said and done in clear, so that another process can go on.

It is sealed under the run's work key, beside the ledger and in the transaction of the records that
it belongs to; the ledger says which steps there are, this says what was in them. Whoever restores
it gets exactly the steps of the ledger, or nothing.

Threat: PHI leakage in audit logs
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from app.agents.progress import AskedCall, OpenTurn, Progress, told_of
from app.domain.label import Confidentiality, Integrity, Label
from app.domain.mode import Mode
from app.domain.record import ModelResponded, RunEvent, ToolDecided
from app.domain.run import Budget, DataPart, Json, JsonObject, Submission, Usage
from app.domain.step import (
    ModelReply,
    ReplyMessage,
    ResultsMessage,
    StopReason,
    ToolCall,
    ToolResult,
)
from app.domain.verdict import Verdict
from app.runs.authority_form import AuthorityForm, authority_json


class WorkingCopyError(ValueError):
    """A working copy does not fit the ledger, or is none."""


_Integrity = Annotated[Integrity, Field(strict=False)]
_Circle = Annotated[Confidentiality, Field(strict=False)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, frozen=True)


class _DataPart(_Closed):
    content: str
    source: str | None
    integrity: _Integrity
    confidentiality: _Circle


class _Budget(_Closed):
    max_steps: int
    max_tokens: int
    max_cost_micros: int
    max_wall_seconds: int


class _Task(_Closed):
    tenant: str
    may_instruct: bool
    instructions: str | None
    data: list[_DataPart]
    agent: str | None
    model: str
    provider: str
    system_prompt: str
    tools: list[str]
    capabilities: list[str] | None
    budget: _Budget
    output_schema: dict[str, JsonValue] | None
    metadata: dict[str, JsonValue]
    scrub_phi: bool
    authority: AuthorityForm
    mode: Annotated[Mode, Field(strict=False)] | None


class _Call(_Closed):
    call_id: str
    name: str
    arguments: dict[str, JsonValue]


class _Usage(_Closed):
    input_tokens: int
    output_tokens: int
    cost_micros: int


class _Reply(_Closed):
    step: Literal["reply"]
    seq: int
    text: str
    calls: list[_Call]
    stop_reason: str
    usage: _Usage


class _Begun(_Closed):
    step: Literal["begun"]
    seq: int
    call_id: str


class _Asked(_Closed):
    step: Literal["asked"]
    seq: int
    call_id: str


class _Result(_Closed):
    step: Literal["result"]
    seq: int
    call_id: str
    name: str
    content: str
    is_error: bool
    engine: str | None


class _PutOff(_Closed):
    step: Literal["put_off"]
    seq: int


_Step: TypeAlias = Annotated[
    _Reply | _Begun | _Asked | _Result | _PutOff, Field(discriminator="step")
]
_STEPS: TypeAdapter[list[_Step]] = TypeAdapter(list[_Step])
# Which records a step stands for.
_KINDS: Mapping[str, frozenset[str]] = {
    "llm.responded": frozenset({"reply", "put_off"}),
    "tool.decided": frozenset({"begun", "asked", "result"}),
    "tool.finished": frozenset({"result"}),
}
_STEPS_OF: Mapping[Verdict, str] = {
    Verdict.ALLOW: "begun",
    Verdict.REDACT: "begun",
    Verdict.REQUIRE_APPROVAL: "asked",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingTask:
    """The task of a run as it was submitted, and for whom."""

    tenant: str
    may_instruct: bool
    submission: Submission


def task_bytes(task: WorkingTask) -> bytes:
    """The first part: the task in clear."""
    said = task.submission
    capabilities = said.capabilities
    return _bytes(
        {
            "tenant": task.tenant,
            "may_instruct": task.may_instruct,
            "instructions": said.instructions,
            "data": [_told_part(part) for part in said.data],
            "agent": said.agent,
            "model": said.model,
            "provider": said.provider,
            "system_prompt": said.system_prompt,
            "tools": list(said.tools),
            "capabilities": None if capabilities is None else [*sorted(capabilities)],
            "budget": {
                "max_steps": said.budget.max_steps,
                "max_tokens": said.budget.max_tokens,
                "max_cost_micros": said.budget.max_cost_micros,
                "max_wall_seconds": said.budget.max_wall_seconds,
            },
            "output_schema": said.output_schema,
            "metadata": said.metadata,
            "scrub_phi": said.scrub_phi,
            "authority": authority_json(said.authority),
            "mode": None if said.mode is None else said.mode.value,
        }
    )


def step_bytes(events: Sequence[tuple[int, RunEvent]]) -> bytes | None:
    """What these events, at their seqs, bring; None when they bring nothing."""
    steps: list[Json] = [step for seq, event in events if (step := _step(seq, event)) is not None]
    return _bytes(steps) if steps else None


def opened_task(value: bytes) -> WorkingTask:
    """The first part read again. WorkingCopyError when it is none."""
    try:
        task = _Task.model_validate_json(value)
    except ValidationError as error:
        raise WorkingCopyError("the task of a working copy is none") from error
    submission = Submission(
        instructions=task.instructions,
        data=tuple(map(_part, task.data)),
        agent=task.agent,
        model=task.model,
        provider=task.provider,
        system_prompt=task.system_prompt,
        tools=tuple(task.tools),
        capabilities=None if task.capabilities is None else frozenset(task.capabilities),
        budget=Budget(**task.budget.model_dump()),
        output_schema=task.output_schema,
        metadata=task.metadata,
        scrub_phi=task.scrub_phi,
        authority=task.authority.opened(),
        mode=task.mode,
    )
    return WorkingTask(tenant=task.tenant, may_instruct=task.may_instruct, submission=submission)


def progress_of(
    parts: Sequence[bytes],
    records: Sequence[tuple[int, str]],
    *,
    spent: Usage,
    elapsed_seconds: float,
    asked: AskedCall | None = None,
) -> Progress:
    """The later parts put together, which must be the steps of these records (seq and kind).

    `asked`: what the ledger asked for last, which a call that waits for a decision must be.
    WorkingCopyError when one is missing, too much, or out of place.
    """
    try:
        steps = [step for part in parts for step in _STEPS.validate_json(part)]
    except ValidationError as error:
        raise WorkingCopyError("a part of a working copy is none") from error
    told = [(seq, kind) for seq, kind in records if kind in _KINDS]
    if [step.seq for step in steps] != [seq for seq, _ in told]:
        raise WorkingCopyError("a working copy has not the steps of its ledger")
    if any(step.step not in _KINDS[kind] for step, (_, kind) in zip(steps, told, strict=True)):
        raise WorkingCopyError("a working copy tells other steps than its ledger")
    folding = _Folding(asked)
    for step in steps:
        folding.take(step)
    return Progress(
        turns=tuple(folding.turns),
        spent=spent,
        calls_made=dict(folding.calls_made),
        elapsed_seconds=elapsed_seconds,
        turn=folding.turn,
        put_off=folding.put_off,
    )


class _Folding:
    """Turns and the one that is open, step by step. WorkingCopyError for one that cannot follow."""

    def __init__(self, asked: AskedCall | None) -> None:
        self._asked = asked
        self.turns: list[ReplyMessage | ResultsMessage] = []
        self.calls_made: Counter[str] = Counter()
        self.turn: OpenTurn | None = None
        self.put_off = 0

    def take(self, step: _Step) -> None:
        turn = self.turn
        match step:
            case _Reply() if turn is None:
                self.turn = OpenTurn(reply=_reply(step), results=(), pending=None)
                self.put_off = 0
            case _PutOff() if turn is None:
                self.put_off += 1
            case _Begun() if turn is not None:
                self._require(step.call_id, turn)
                if turn.pending is None:
                    self.calls_made[turn.reply.calls[len(turn.results)].name] += 1
                self.turn = replace(turn, pending=step.seq)
            case _Asked() if turn is not None:
                self._require(step.call_id, turn)
                self.turn = replace(turn, asked=self._asked_at(step.seq))
            case _Result() if turn is not None:
                self._require(step.call_id, turn)
                self._answered(turn, (*turn.results, _result(step)))
            case _:
                raise WorkingCopyError("the steps of a working copy do not follow each other")

    def _asked_at(self, seq: int) -> AskedCall | None:
        """What was asked for in the record behind this one; an older one is answered by now."""
        return self._asked if self._asked is not None and self._asked.seq == seq + 1 else None

    def _answered(self, turn: OpenTurn, results: tuple[ToolResult, ...]) -> None:
        if len(results) < len(turn.reply.calls):
            self.turn = OpenTurn(reply=turn.reply, results=results, pending=None)
            return
        self.turns.append(ReplyMessage(text=turn.reply.text, calls=turn.reply.calls))
        self.turns.append(ResultsMessage(results=results))
        self.turn = None

    @staticmethod
    def _require(call_id: str, turn: OpenTurn) -> None:
        if turn.reply.calls[len(turn.results)].call_id != call_id:
            raise WorkingCopyError("the calls of a working copy are not in their order")


def _step(seq: int, event: RunEvent) -> JsonObject | None:
    if isinstance(event, ModelResponded):
        if event.reply is None:
            return {"step": "put_off", "seq": seq}
        return _told_reply(seq, event.reply)
    if isinstance(event, ToolDecided) and event.decision.enforced in _STEPS_OF:
        step = _STEPS_OF[event.decision.enforced]
        return {"step": step, "seq": seq, "call_id": event.call.call_id}
    result = told_of(event)
    if result is None:
        return None
    return {
        "step": "result",
        "seq": seq,
        "call_id": result.call_id,
        "name": result.name,
        "content": result.content,
        "is_error": result.is_error,
        "engine": result.engine,
    }


def _told_reply(seq: int, reply: ModelReply) -> JsonObject:
    calls: list[Json] = [
        {"call_id": call.call_id, "name": call.name, "arguments": call.arguments}
        for call in reply.calls
    ]
    return {
        "step": "reply",
        "seq": seq,
        "text": reply.text,
        "calls": calls,
        "stop_reason": reply.stop_reason.value,
        "usage": {
            "input_tokens": reply.usage.input_tokens,
            "output_tokens": reply.usage.output_tokens,
            "cost_micros": reply.usage.cost_micros,
        },
    }


def _reply(step: _Reply) -> ModelReply:
    if not step.calls:
        raise WorkingCopyError("a reply without calls ends a run")
    calls = [
        ToolCall(call_id=call.call_id, name=call.name, arguments=call.arguments)
        for call in step.calls
    ]
    try:
        stop_reason = StopReason(step.stop_reason)
    except ValueError as error:
        raise WorkingCopyError("a reply stopped for no reason") from error
    usage = Usage(**step.usage.model_dump())
    return ModelReply(text=step.text, calls=tuple(calls), stop_reason=stop_reason, usage=usage)


def _result(step: _Result) -> ToolResult:
    return ToolResult(
        call_id=step.call_id,
        name=step.name,
        content=step.content,
        is_error=step.is_error,
        engine=step.engine,
    )


def _told_part(part: DataPart) -> JsonObject:
    return {
        "content": part.content,
        "source": part.source,
        "integrity": part.label.integrity.value,
        "confidentiality": part.label.confidentiality.value,
    }


def _part(part: _DataPart) -> DataPart:
    label = Label(integrity=part.integrity, confidentiality=part.confidentiality)
    return DataPart(content=part.content, source=part.source, label=label)


def _bytes(value: Json) -> bytes:
    """JSON in UTF-8; a question mark for each lone surrogate, as in a result."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")
