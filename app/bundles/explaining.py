"""Says which rule objected to which part of a question, by asking again without that part.

Pure: the same `decide` that decided is asked about a record in which one part says nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from app.domain.features import (
    AskedFor,
    ContextFeature,
    Counters,
    DecisionInput,
    OutputFeature,
    PartiesFeature,
)
from app.domain.mode import Mode
from app.domain.verdict import Decision, Verdict
from app.policy.bundle import PolicyBundle

Decide = Callable[[DecisionInput, PolicyBundle], Decision]


@dataclass(frozen=True, slots=True, kw_only=True)
class Objector:
    """A rule that objected. `parts`: those of the record without which it would not have."""

    rule: str
    reason: str
    is_tenants: bool
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A decision, and each rule that had something against it."""

    decision: Decision
    objectors: tuple[Objector, ...]


def explain(question: DecisionInput, bundle: PolicyBundle, decide: Decide) -> Explanation:
    """What a policy says to a question, and by which of its parts."""
    said = decide(question, bundle)
    own = _tenants_rules(bundle)
    without = [(part, decide(other, bundle)) for part, other in _without_each(question)]
    return Explanation(
        decision=said,
        objectors=tuple(
            Objector(
                rule=rule,
                reason=reason,
                is_tenants=rule in own,
                parts=tuple(part for part, other in without if (rule, reason) not in _said(other)),
            )
            for rule, reason in zip(said.rules, said.reasons, strict=False)
            if said.verdict is not Verdict.ALLOW
        ),
    )


def _said(decision: Decision) -> set[tuple[str, str]]:
    return set(zip(decision.rules, decision.reasons, strict=False))


def _tenants_rules(bundle: PolicyBundle | None) -> set[str]:
    if bundle is None:
        return set()
    return {rule.rule_id for rule in bundle.tenant_rules} | _tenants_rules(bundle.also)


def _without_each(question: DecisionInput) -> Iterator[tuple[str, DecisionInput]]:
    """The question with one part after the other saying nothing, by the part's name."""
    for place, one in enumerate(question.arguments):
        others = question.arguments[:place] + question.arguments[place + 1 :]
        yield f"arguments.{one.path}", replace(question, arguments=others)
    for place, finding in enumerate(question.findings):
        left = question.findings[:place] + question.findings[place + 1 :]
        yield f"findings.{finding.rule_id}", replace(question, findings=left)
    if question.scores:
        yield "scores", replace(question, scores=())
    if question.hosts:
        yield "hosts", replace(question, hosts=())
    if question.context != ContextFeature():
        yield "context", replace(question, context=ContextFeature(may_instruct=True))
    if question.counters != Counters():
        yield "counters", replace(question, counters=Counters())
    if question.output is not None:
        yield "output", replace(question, output=OutputFeature())
    if question.parties is not None:
        yield "parties", replace(question, parties=PartiesFeature())
    yield from _without_of_the_tool(question)


def _without_of_the_tool(question: DecisionInput) -> Iterator[tuple[str, DecisionInput]]:
    tool = question.tool
    if tool is None:
        return
    if tool.asked_for is not AskedFor.DECLARED:
        asked = replace(tool, asked_for=AskedFor.DECLARED)
        yield "tool.asked_for", replace(question, tool=asked)
    if not tool.is_granted:
        yield "tool.is_granted", replace(question, tool=replace(tool, is_granted=True))
    if not tool.is_known:
        yield "tool.is_known", replace(question, tool=replace(tool, is_known=True))
    if tool.fits_plan is False:
        yield "tool.fits_plan", replace(question, tool=replace(tool, fits_plan=True))
    if tool.calls_made:
        yield "tool.calls_made", replace(question, tool=replace(tool, calls_made=0))
    yield "tool.name", replace(question, tool=replace(tool, name="any"))
    if question.mode is Mode.STRICT:
        yield "mode", replace(question, mode=Mode.STANDARD)
