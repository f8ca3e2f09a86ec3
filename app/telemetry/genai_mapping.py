"""What of a run is told as spans, in the words of OpenTelemetry's GenAI conventions: never content.

Names, models, counts, codes and times; no task, no message, no argument, no result. The conventions
are not stable yet, so their words stand here and nowhere else.

Source: OpenTelemetry semantic conventions for generative AI (development).

Threat: PHI leakage in audit logs
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from app.domain.record import (
    ModelRequested,
    ModelResponded,
    OutcomeUnknown,
    RunEvent,
    RunFinished,
    RunSubmitted,
    ToolDecided,
    ToolFinished,
)
from app.domain.run import RunId, RunStatus, public_run_id
from app.domain.verdict import Verdict
from app.telemetry.trace_context import TraceMark

MOST_OPEN_RUNS = 10_000  # a run that goes on elsewhere is never seen to end here
OTHER_ERROR = "_OTHER"
Attribute: TypeAlias = str | int | tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanFacts:
    """One span that is over. `is_root`: of the run itself. `caller`: the span that led to it."""

    run: RunId
    name: str
    began: datetime
    ended: datetime
    attributes: Mapping[str, Attribute]
    is_root: bool = False
    is_call_out: bool = False
    caller: TraceMark | None = None


@dataclass(slots=True)
class _OpenRun:
    began: datetime
    agent: str = ""
    provider: str = ""
    caller: TraceMark | None = None
    intents: dict[int, tuple[datetime, str]] = field(default_factory=dict)


class RunSpans:
    """Makes spans of what is recorded. What another process began is told from where it is seen."""

    def __init__(self) -> None:
        self._open: OrderedDict[RunId, _OpenRun] = OrderedDict()

    def of(
        self,
        run: RunId,
        events: Sequence[tuple[int, RunEvent]],
        at: datetime,
        caller: TraceMark | None = None,
    ) -> list[SpanFacts]:
        """The spans that end with these records; each has its seq.

        `caller`: of whoever submits the run. A run is a trace of its own, which many may drive: a
        span of its submission is linked to the caller's, and the run's, where both are seen here.
        """
        known = self._open.setdefault(run, _OpenRun(at))
        found: list[SpanFacts] = []
        for seq, event in events:
            match event:
                case RunSubmitted():
                    known.agent, known.provider = event.submission.agent or "", event.provider
                    found += _submission(run, known, caller, at)
                case ModelRequested():
                    known.intents[seq] = (at, event.request.model)
                case ToolDecided():
                    known.intents[seq] = (at, "")
                case ModelResponded():
                    found.append(_model_call(run, known, event, at))
                case ToolFinished():
                    found.append(_tool_call(run, known, event, at))
                case OutcomeUnknown():
                    known.intents.pop(event.intent, None)
                case RunFinished():
                    found.append(_whole_run(run, known, event, at))
                    del self._open[run]
                case _:
                    pass
        while len(self._open) > MOST_OPEN_RUNS:
            self._open.popitem(last=False)
        return found


def _submission(
    run: RunId, known: _OpenRun, caller: TraceMark | None, at: datetime
) -> list[SpanFacts]:
    if caller is None or caller.parent is None:
        return []
    known.caller = caller
    told: dict[str, Attribute] = {"gen_ai.conversation.id": public_run_id(run)}
    return [SpanFacts(run=run, name="submit", began=at, ended=at, attributes=told, caller=caller)]


def _begun(known: _OpenRun, intent: int, at: datetime) -> tuple[datetime, str]:
    return known.intents.pop(intent, (at, ""))


def _model_call(run: RunId, known: _OpenRun, event: ModelResponded, at: datetime) -> SpanFacts:
    began, asked = _begun(known, event.intent, at)
    attributes: dict[str, Attribute] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": asked or event.model,
        "gen_ai.response.model": event.model,
        "gen_ai.conversation.id": public_run_id(run),
    }
    if known.provider:
        attributes["gen_ai.provider.name"] = known.provider
    if event.reply is not None:
        attributes["gen_ai.usage.input_tokens"] = event.reply.usage.input_tokens
        attributes["gen_ai.usage.output_tokens"] = event.reply.usage.output_tokens
        attributes["gen_ai.response.finish_reasons"] = (str(event.reply.stop_reason),)
    refused = event.decision is not None and event.decision.verdict is Verdict.DENY
    if event.reply is None or refused:
        code = event.decision.code if refused and event.decision is not None else event.error_code
        attributes["error.type"] = code or OTHER_ERROR
    return SpanFacts(
        run=run,
        name=f"chat {event.model}",
        began=began,
        ended=at,
        attributes=attributes,
        is_call_out=True,
    )


def _tool_call(run: RunId, known: _OpenRun, event: ToolFinished, at: datetime) -> SpanFacts:
    began, _ = _begun(known, event.intent, at)
    attributes: dict[str, Attribute] = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": event.result.name,
        "gen_ai.conversation.id": public_run_id(run),
    }
    if event.decision.verdict is Verdict.DENY:
        attributes["error.type"] = event.decision.code or OTHER_ERROR
    elif event.result.is_error:
        attributes["error.type"] = "tool_error"
    name = f"execute_tool {event.result.name}"
    return SpanFacts(run=run, name=name, began=began, ended=at, attributes=attributes)


def _whole_run(run: RunId, known: _OpenRun, event: RunFinished, at: datetime) -> SpanFacts:
    attributes: dict[str, Attribute] = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.conversation.id": public_run_id(run),
        "meshflow.run.status": event.status.value,
    }
    if known.agent:
        attributes["gen_ai.agent.name"] = known.agent
    if event.status is not RunStatus.SUCCEEDED:
        attributes["error.type"] = event.error_code or event.status.value
    return SpanFacts(
        run=run,
        name=f"invoke_agent {known.agent}".strip(),
        began=known.began,
        ended=at,
        attributes=attributes,
        is_root=True,
        caller=known.caller,
    )
