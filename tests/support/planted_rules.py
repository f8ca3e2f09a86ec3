"""Rules planted at one point of the gate, gates that skip one point, and a question for each point.

DascGate(planted(Point.TOOL_CALL, Says("planted:no")))   # denies there and nowhere else
BypassGate(planted(...), Point.TOOL_CALL)                # acts as if that point were not asked
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from app import roster
from app.domain.run import Budget, DataPart, Submission, Usage
from app.domain.step import (
    ModelReply,
    ModelRequest,
    Origin,
    StopReason,
    TextMessage,
    ToolCall,
    ToolResult,
)
from app.domain.verdict import (
    AdmittedMessage,
    AdmittedReply,
    AdmittedResult,
    AdmittedTask,
    Ask,
    AuthorizedCall,
    ClearedDelivery,
    ClearedRequest,
    Decision,
    Deny,
    Point,
    ReleasedOutput,
    ResolvedApproval,
    Verdict,
)
from app.policy.gate import DascGate, RuleBook
from app.policy.gate_inputs import (
    ApprovalInput,
    CallInput,
    DeliveryInput,
    GateInput,
    MessageInput,
    OutputInput,
    RequestInput,
    ResponseInput,
    ResultInput,
    RunFacts,
    SubmitInput,
)

PLANTED_ID = "planted.no"
PLANTED_CODE = "planted:no"


@dataclass(frozen=True, slots=True, kw_only=True)
class Says:
    """A rule that answers every question with the same thing, which need not be an answer."""

    answer: Any = PLANTED_CODE
    rule_id: Any = PLANTED_ID

    def judge(self, _subject: object) -> Any:
        return self.answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Raises:
    """A rule that breaks on every question."""

    error: Callable[[], BaseException]
    rule_id: str = "planted.broken"

    def judge(self, _subject: object) -> str | None:
        raise self.error()


class Nameless:
    """A rule that denies and cannot say who it is."""

    @property
    def rule_id(self) -> str:
        raise ValueError("no name")

    def judge(self, _subject: object) -> str | None:
        return PLANTED_CODE


def field_of(point: Point) -> str:
    """Where a rule book keeps the rules of a point, and the gate's method for it."""
    return point.value.replace(".", "_")


def with_rules(point: Point, *rules: object) -> RuleBook:
    """The rules in force, with these and no others at this point."""
    change: dict[str, Any] = {field_of(point): rules}
    return replace(roster.rule_book(), **change)


def planted(point: Point, rule: object) -> RuleBook:
    """The rules in force, and one more at this point alone."""
    rules = getattr(roster.rule_book(), field_of(point))
    return with_rules(point, *rules, rule)


def emptied(point: Point) -> RuleBook:
    """The rules in force, and none at this point."""
    return with_rules(point)


class BypassGate(DascGate):
    """A gate that gives the proof at one point without asking anybody. What no build may do."""

    def __init__(self, book: RuleBook, skipped: Point) -> None:
        super().__init__(book)
        self._skipped = skipped

    def _allowed(self, point: Point) -> Decision | None:
        """An allowing decision for the skipped point, nothing for the others."""
        if point is not self._skipped:
            return None
        return Decision(
            point=point, verdict=Verdict.ALLOW, rules=(), code="allow", policy=self.policy
        )

    def run_submit(self, subject: SubmitInput) -> AdmittedTask | Deny:
        decision = self._allowed(Point.RUN_SUBMIT)
        if decision is None:
            return super().run_submit(subject)
        return AdmittedTask(submission=subject.submission, decision=decision)

    def llm_request(self, subject: RequestInput) -> ClearedRequest | Deny:
        decision = self._allowed(Point.LLM_REQUEST)
        if decision is None:
            return super().llm_request(subject)
        return ClearedRequest(request=subject.request, decision=decision)

    def llm_response(self, subject: ResponseInput) -> AdmittedReply | Deny:
        decision = self._allowed(Point.LLM_RESPONSE)
        if decision is None:
            return super().llm_response(subject)
        return AdmittedReply(reply=subject.reply, decision=decision)

    def tool_call(self, subject: CallInput) -> AuthorizedCall | Ask | Deny:
        decision = self._allowed(Point.TOOL_CALL)
        if decision is None:
            return super().tool_call(subject)
        spec = next(spec for spec in subject.facts.offered if spec.name == subject.call.name)
        return AuthorizedCall(call=subject.call, spec=spec, decision=decision)

    def tool_result(self, subject: ResultInput) -> AdmittedResult | Deny:
        decision = self._allowed(Point.TOOL_RESULT)
        if decision is None:
            return super().tool_result(subject)
        return AdmittedResult(result=subject.result, decision=decision)

    def agent_message(self, subject: MessageInput) -> AdmittedMessage | Deny:
        decision = self._allowed(Point.AGENT_MESSAGE)
        if decision is None:
            return super().agent_message(subject)
        return AdmittedMessage(text=subject.text, decision=decision)

    def run_output(self, subject: OutputInput) -> ReleasedOutput | Deny:
        decision = self._allowed(Point.RUN_OUTPUT)
        if decision is None:
            return super().run_output(subject)
        return ReleasedOutput(text=subject.text, decision=decision)

    def webhook_send(self, subject: DeliveryInput) -> ClearedDelivery | Deny:
        decision = self._allowed(Point.WEBHOOK_SEND)
        if decision is None:
            return super().webhook_send(subject)
        return ClearedDelivery(url=subject.url, body=subject.body, decision=decision)

    def approval_resolve(self, subject: ApprovalInput) -> ResolvedApproval | Deny:
        decision = self._allowed(Point.APPROVAL_RESOLVE)
        if decision is None:
            return super().approval_resolve(subject)
        return ResolvedApproval(
            approval_id=subject.approval_id,
            granted=subject.granted,
            digest=subject.digest,
            decision=decision,
        )


SPECS = tuple(tool.spec for tool in roster.TOOLS)
NAMES = tuple(spec.name for spec in SPECS)
BUDGET = Budget(max_steps=5, max_tokens=50_000, max_cost_micros=100_000, max_wall_seconds=60)


def facts_with(
    *,
    offered: tuple[str, ...] = NAMES,
    declared: frozenset[str] | None = None,
    may_instruct: bool = True,
    budget: Budget = BUDGET,
    spent: Usage | None = None,
    elapsed_seconds: float = 0.0,
) -> RunFacts:
    """What the gate knows of a run that has hardly begun."""
    return RunFacts(
        offered=tuple(spec for spec in SPECS if spec.name in offered),
        declared=declared,
        may_instruct=may_instruct,
        budget=budget,
        spent=spent or Usage(),
        elapsed_seconds=elapsed_seconds,
    )


def task_of(**changed: Any) -> Submission:
    """A task that the rules in force let in."""
    plain = Submission(
        instructions="Write 42 to answer.txt",
        data=(DataPart(content="The answer is 42.", source="mail"),),
        agent=None,
        model="scripted",
        provider="",
        system_prompt="Be careful.",
        tools=("write_file",),
        capabilities=None,
        budget=BUDGET,
        output_schema=None,
        metadata={},
        scrub_phi=True,
    )
    return replace(plain, **changed)


def call_of(name: str = "write_file", **arguments: Any) -> ToolCall:
    """One proposed call."""
    given = arguments or {"path": "answer.txt", "content": "42"}
    return ToolCall(call_id="call-1", name=name, arguments=given)


def reply_of(text: str = "42", calls: tuple[ToolCall, ...] = ()) -> ModelReply:
    """One whole reply."""
    stop = StopReason.TOOL_USE if calls else StopReason.END
    return ModelReply(text=text, calls=calls, stop_reason=stop, usage=Usage(input_tokens=1))


def _request() -> ModelRequest:
    return ModelRequest(
        model="scripted",
        system="Be careful.",
        messages=(TextMessage(origin=Origin.CALLER, text="Write 42 to answer.txt"),),
        tools=SPECS,
        max_output_tokens=100,
        timeout_seconds=5,
    )


# For each point something that the rules in force allow.
SUBJECTS: Mapping[Point, GateInput] = {
    Point.RUN_SUBMIT: SubmitInput(submission=task_of(), platform_tools=frozenset(NAMES)),
    Point.LLM_REQUEST: RequestInput(
        request=_request(), facts=facts_with(), reserve_tokens=200, reserve_micros=2_000
    ),
    Point.LLM_RESPONSE: ResponseInput(reply=reply_of(), facts=facts_with()),
    Point.TOOL_CALL: CallInput(call=call_of(), facts=facts_with()),
    Point.TOOL_RESULT: ResultInput(
        result=ToolResult(call_id="call-1", name="write_file", content="wrote 2 bytes"),
        facts=facts_with(),
    ),
    Point.AGENT_MESSAGE: MessageInput(sender="writer", receiver="reviewer", text="done"),
    Point.RUN_OUTPUT: OutputInput(text="42", output_schema=None, facts=facts_with()),
    Point.WEBHOOK_SEND: DeliveryInput(url="https://hooks.example/in", body=b"{}"),
    Point.APPROVAL_RESOLVE: ApprovalInput(
        approval_id="apr_1", granted=True, requested_by="key:one", decided_by="key:two"
    ),
}


def asked(gate: DascGate, point: Point, subject: GateInput | None = None) -> object:
    """What a gate says at a point to a subject, or to the one that is allowed there."""
    return getattr(gate, field_of(point))(subject or SUBJECTS[point])


def denial(answer: object) -> Decision:
    """The decision of a refusal; AssertionError when it is none."""
    assert isinstance(answer, Deny), answer
    assert answer.decision.verdict is Verdict.DENY
    return answer.decision


def refused(point: Point, subject: GateInput) -> str:
    """Why the rules in force refuse this; AssertionError when they do not."""
    return denial(asked(DascGate(roster.rule_book()), point, subject)).code


def allowed(point: Point, subject: GateInput) -> bool:
    """Whether the rules in force let this pass."""
    return not isinstance(asked(DascGate(roster.rule_book()), point, subject), Deny)
