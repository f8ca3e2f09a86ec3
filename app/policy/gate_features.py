"""Looks at what the gate is asked, once, and makes of it the record of facts that is judged.

Threat: Prompt injection via task input
"""

from app.domain.capability import Capabilities
from app.domain.features import (
    ContextFeature,
    Counters,
    DecisionInput,
    Finding,
    OutputFeature,
    PartiesFeature,
)
from app.domain.mode import Mode
from app.domain.verdict import Point
from app.policy.authority import Authority
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
from app.policy.gate_looks import scores_on
from app.policy.label_state import LabelState


def features(
    point: Point,
    subject: GateInput,
    findings: tuple[Finding, ...],
    default: Mode,
    output: OutputFeature | None = None,
) -> DecisionInput:
    """The record of facts of one question; `output` is what a look at its text found.

    Raises where the subject is not what it should be.
    """
    match subject:
        case SubmitInput():
            return DecisionInput(point=point, mode=default, findings=findings)
        case RequestInput():
            return DecisionInput(
                point=point,
                mode=_mode(subject.facts, default),
                findings=findings,
                context=_context(subject.facts),
                counters=_counters(
                    subject.facts,
                    reserve_tokens=subject.reserve_tokens,
                    reserve_micros=subject.reserve_micros,
                ),
            )
        case CallInput():
            return _of_a_call(point, subject, findings, default, output)
        case ResponseInput() | ResultInput() | OutputInput():
            return DecisionInput(
                point=point,
                mode=_mode(subject.facts, default),
                findings=findings,
                context=_context(subject.facts),
                counters=_counters(subject.facts),
                output=output,
                scores=scores_on(subject),
            )
        case MessageInput():
            return DecisionInput(
                point=point,
                mode=default,
                findings=findings,
                output=output,
                parties=_parties(subject),
            )
        case DeliveryInput():
            return DecisionInput(
                point=point,
                mode=default,
                findings=findings,
                output=subject.output,
                parties=_parties(subject),
            )
        case ApprovalInput():
            return DecisionInput(
                point=point, mode=default, findings=findings, parties=_parties(subject)
            )


def _parties(subject: MessageInput | DeliveryInput | ApprovalInput) -> PartiesFeature:
    """Who deals with whom."""
    match subject:
        case MessageInput():
            return PartiesFeature(are_named=bool(subject.sender and subject.receiver))
        case DeliveryInput():
            return PartiesFeature(is_declared_destination=subject.is_declared)
        case ApprovalInput():
            return PartiesFeature(
                are_named=bool(subject.decided_by),
                is_own_request=subject.decided_by == subject.requested_by,
                is_current=subject.is_current,
            )


def state_of(facts: RunFacts) -> LabelState:
    """What the run knows; of a run that keeps no state nothing is proven."""
    if facts.state is not None:
        return facts.state
    return LabelState.start(
        Authority(
            instructions="" if facts.may_instruct else None,
            capabilities=Capabilities(tools=facts.declared),
            is_declared=facts.declared is not None,
            granted=facts.declared,
            catalogue=facts.offered,
        )
    )


def authority_of(subject: GateInput) -> Authority | None:
    """What was said and declared where a question belongs to a run."""
    match subject:
        case OutputInput() | CallInput():
            return state_of(subject.facts).authority
        case _:
            return None


def _of_a_call(
    point: Point,
    subject: CallInput,
    findings: tuple[Finding, ...],
    default: Mode,
    output: OutputFeature | None,
) -> DecisionInput:
    facts, call = subject.facts, subject.call
    state = state_of(facts)
    spec = next((spec for spec in facts.offered if spec.name == call.name), None)
    tool = state.tool(call, spec, calls_made=facts.calls_made.get(call.name, 0))
    # A call that does not even fit its schema is refused for that; its values are not weighed.
    weighed = () if findings or spec is None else state.arguments(call, spec)
    return DecisionInput(
        point=point,
        mode=_mode(facts, default),
        tool=tool,
        arguments=weighed,
        findings=findings,
        context=_context(facts),
        counters=_counters(facts),
        output=output,
    )


def _mode(facts: RunFacts, default: Mode) -> Mode:
    return default if facts.mode is None else facts.mode


def _context(facts: RunFacts) -> ContextFeature:
    if facts.state is None:
        return ContextFeature(may_instruct=facts.may_instruct)
    return facts.state.context


def _counters(facts: RunFacts, *, reserve_tokens: int = 0, reserve_micros: int = 0) -> Counters:
    spent, budget = facts.spent, facts.budget
    return Counters(
        steps=spent.steps,
        max_steps=budget.max_steps,
        tokens=spent.input_tokens + spent.output_tokens,
        max_tokens=budget.max_tokens,
        cost_micros=spent.cost_micros,
        max_cost_micros=budget.max_cost_micros,
        elapsed_seconds=int(facts.elapsed_seconds),
        max_wall_seconds=budget.max_wall_seconds,
        reserve_tokens=reserve_tokens,
        reserve_micros=reserve_micros,
        effects=0 if facts.state is None else facts.state.effects,
        asks_refused=0 if facts.state is None else facts.state.asks_refused,
    )
