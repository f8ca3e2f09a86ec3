"""Turns what happened to a run into a draft of its record: codes for the header, words scrubbed.

Threat: PHI leakage in audit logs
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final, assert_never

from app.domain.record import (
    ApprovalDecided,
    ApprovalRead,
    ApprovalRefused,
    ApprovalRequested,
    CancelRequested,
    ModelRequested,
    ModelResponded,
    OutcomeUnknown,
    RunEvent,
    RunFinished,
    RunParked,
    RunResumed,
    RunStarted,
    RunSubmitted,
    RunWoken,
    ToolDecided,
    ToolFinished,
)
from app.domain.run import Json, JsonObject, Submission
from app.domain.step import ToolCall
from app.domain.verdict import Decision, Point, Scrubbed, Verdict
from app.ledger.released_output import RELEASED_FIELD
from app.ledger.run_account import engine_of, final_outcome
from app.ledger.writing import Draft
from app.privacy.scrubber import machine_facts, machine_note
from app.runs.approval_facts import request_note
from app.runs.authority_form import authority_json

FEATURES: Final = "features"
OUTCOME_UNKNOWN = "outcome_unknown"
_TURNS = {RunStarted: "run.started", RunResumed: "run.resumed", RunParked: "run.parked"}
Scrub = Callable[[Json], Scrubbed]
NoteReleased = Callable[[str], Scrubbed]


def draft_of(event: RunEvent, scrub: Scrub, note_released: NoteReleased) -> Draft:
    """The record of an event. Everything in words goes through `scrub` first.

    `note_released` makes of a released output in full what binds it without telling it. What the
    gate decided on goes with its decision, so that it can be asked again.
    """
    draft = _told(event, scrub, note_released)
    decision = draft.decision
    if decision is None or not decision.facts or not _is_the_question(draft, decision):
        return draft
    return replace(draft, fields={**draft.fields, FEATURES: decided_facts(decision)})


def decided_facts(decision: Decision) -> Scrubbed:
    """The record of facts that was judged, and what came of it besides the verdict."""
    return machine_facts(
        decision.facts,
        {
            "catalogue": decision.catalogue_digest,
            "gate": decision.gate_version,
            "micros": decision.latency_micros,
            "observed": decision.is_observed,
            "obligations": [duty.value for duty in decision.obligations],
            "reasons": list(decision.reasons),
        },
    )


def _is_the_question(draft: Draft, decision: Decision) -> bool:
    """Not where a person or the end of the run repeats a decision that was recorded before."""
    match draft.kind:
        case "tool.decided":
            return draft.approval is None
        case "run.finished":
            return decision.point is Point.RUN_OUTPUT
        case _:
            return True


def _told(event: RunEvent, scrub: Scrub, note_released: NoteReleased) -> Draft:
    match event:
        case RunSubmitted():
            return Draft(
                kind="run.submitted",
                actor=event.actor,
                decision=event.decision,
                model=event.submission.model,
                engine=engine_of(event.provider, event.submission.agent),
                outcome=event.decision.code,
                fields={"task": scrub(_task(event.submission, event.derived))},
            )
        case RunStarted() | RunResumed() | RunParked():
            return Draft(kind=_TURNS[type(event)], actor="system")
        case ModelRequested():
            return _model_requested(event, scrub)
        case ModelResponded():
            return _model_responded(event, scrub)
        case ToolDecided() | ToolFinished() | OutcomeUnknown():
            return _call_event(event, scrub)
        case ApprovalRequested() | ApprovalDecided() | ApprovalRefused() | ApprovalRead():
            return _approval_event(event, scrub)
        case CancelRequested() | RunWoken():
            kind = "run.woken" if isinstance(event, RunWoken) else "run.cancel_requested"
            return Draft(kind=kind, actor=event.actor)
        case RunFinished():
            return _run_finished(event, scrub, note_released)
        case _:
            assert_never(event)


def _model_requested(event: ModelRequested, scrub: Scrub) -> Draft:
    request = event.request
    words: JsonObject = {
        "max_output_tokens": request.max_output_tokens,
        "messages": len(request.messages),
        "tools": [spec.name for spec in request.tools],
    }
    return Draft(
        kind="llm.requested",
        actor="system",
        decision=event.decision,
        model=request.model,
        outcome=event.decision.code,
        fields={"request": scrub(words)},
    )


def _model_responded(event: ModelResponded, scrub: Scrub) -> Draft:
    if event.reply is None:
        return Draft(
            kind="llm.responded",
            actor="model",
            intent=event.intent,
            model=event.model,
            outcome=event.error_code,
        )
    words: JsonObject = {
        "text": event.reply.text,
        "calls": [_call(call) for call in event.reply.calls],
        "stop_reason": event.reply.stop_reason.value,
    }
    return Draft(
        kind="llm.responded",
        actor="model",
        intent=event.intent,
        decision=event.decision,
        model=event.model,
        usage=event.reply.usage,
        outcome=event.error_code or _code(event.decision),
        fields={"reply": scrub(words)},
    )


def _call_event(event: ToolDecided | ToolFinished | OutcomeUnknown, scrub: Scrub) -> Draft:
    match event:
        case ToolDecided():
            return Draft(
                kind="tool.decided",
                actor="model",
                decision=event.decision,
                tool=event.call.name,
                outcome=event.decision.code,
                approval=None if event.approval is None else event.approval.bytes,
                fields={"call": scrub(_call(event.call))},
            )
        case ToolFinished():
            return _tool_finished(event, scrub)
        case OutcomeUnknown():
            return Draft(
                kind="tool.finished",
                actor="system",
                intent=event.intent,
                tool=event.call.name,
                outcome=OUTCOME_UNKNOWN,
            )


def _approval_event(
    event: ApprovalRequested | ApprovalDecided | ApprovalRefused | ApprovalRead, scrub: Scrub
) -> Draft:
    about = event.approval_id.bytes
    match event:
        case ApprovalRequested():
            return Draft(
                kind="approval.requested",
                actor="system",
                tool=event.tool,
                approval=about,
                fields={"note": machine_note(request_note(event))},
            )
        case ApprovalDecided():
            said = event.comment
            return Draft(
                kind="approval.decided",
                actor=event.actor,
                decision=event.decision,
                outcome=event.state.value,
                approval=about,
                fields={} if said is None else {"note": scrub({"comment": said})},
            )
        case ApprovalRefused():
            return Draft(
                kind="approval.refused",
                actor=event.actor,
                decision=event.decision,
                outcome=event.decision.code,
                approval=about,
            )
        case ApprovalRead():
            return Draft(kind="approval.read", actor=event.actor, approval=about)


def _tool_finished(event: ToolFinished, scrub: Scrub) -> Draft:
    result = event.result
    outcome = "error" if result.is_error else "ok"
    if event.decision.enforced not in (Verdict.ALLOW, Verdict.REDACT):
        outcome = event.decision.code
    words: JsonObject = {"content": result.content, "is_error": result.is_error}
    return Draft(
        kind="tool.finished",
        actor="tool",
        intent=event.intent,
        decision=event.decision,
        engine=result.engine,
        tool=result.name,
        outcome=outcome,
        fields={"result": scrub(words)},
    )


def _run_finished(event: RunFinished, scrub: Scrub, note_released: NoteReleased) -> Draft:
    fields: dict[str, Scrubbed] = {}
    if event.output is not None:
        text = event.output.text
        fields = {"output": scrub({"text": text}), RELEASED_FIELD: note_released(text)}
    return Draft(
        kind="run.finished",
        actor="system",
        decision=event.decision,
        outcome=final_outcome(event.status, event.error_code),
        fields=fields,
    )


def _code(decision: Decision | None) -> str | None:
    return None if decision is None else decision.code


def _call(call: ToolCall) -> JsonObject:
    return {"call_id": call.call_id, "name": call.name, "arguments": call.arguments}


def _task(submission: Submission, derived: tuple[str, ...] | None) -> JsonObject:
    capabilities, effective = submission.capabilities, submission.authority
    if derived is not None:
        effective = replace(effective, tools=frozenset(derived))
    declared: Json = None if capabilities is None else [*sorted(capabilities)]
    return {
        "instructions": submission.instructions,
        "data": [{"content": part.content, "source": part.source} for part in submission.data],
        "agent": submission.agent,
        "model": submission.model,
        "tools": list(submission.tools),
        "capabilities": declared,
        "effective": authority_json(effective),
        "mode": None if submission.mode is None else submission.mode.value,
        "budget": {
            "max_steps": submission.budget.max_steps,
            "max_tokens": submission.budget.max_tokens,
            "max_cost_micros": submission.budget.max_cost_micros,
            "max_wall_seconds": submission.budget.max_wall_seconds,
        },
        "output_schema": submission.output_schema,
        "metadata": submission.metadata,
    }
