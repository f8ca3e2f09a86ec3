"""The built-in rules for all points but tool calls, over facts alone.

Source: policy sections 5.1, 5.8 and 5.9.

Threat: Prompt injection via task input
"""

from collections.abc import Mapping

from app.domain.features import DecisionInput
from app.domain.step import EFFECTFUL
from app.domain.verdict import Obligation, Point, Verdict
from app.policy.bundle import PolicyBundle
from app.policy.call_rules import CALL_RULES
from app.policy.objection import BuiltInRule, Objection

QUARANTINE_LIMIT = "quarantine_per_mille"
_SUSPECTED = 800


def request_is_within_budget(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R11 at `llm.request`: the most the call could use is reserved before it is made."""
    del bundle
    used = question.counters
    if used.steps >= used.max_steps:
        return _denial("r11.budget", "budget:steps")
    if used.tokens + used.reserve_tokens > used.max_tokens:
        return _denial("r11.budget", "budget:tokens")
    if used.cost_micros + used.reserve_micros > used.max_cost_micros:
        return _denial("r11.budget", "budget:cost")
    if used.elapsed_seconds >= used.max_wall_seconds:
        return _denial("r11.budget", "budget:wall")
    return None


def result_is_suspected(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R13 at `tool.result`: what a detector suspects is seen, and its label is quarantined."""
    limit = bundle.limits.get(QUARANTINE_LIMIT, _SUSPECTED)
    if all(score.per_mille < limit for score in question.scores):
        return None
    return Objection(
        rule_id="r13.after_quarantine",
        verdict=Verdict.REDACT,
        reason="quarantine:detector",
        obligations=(Obligation.QUARANTINE,),
    )


def canary_stays(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R8 at every egress: a canary that leaves is evidence, and denied."""
    del bundle
    tool = question.tool
    leaves = tool is None or tool.effect in EFFECTFUL
    if question.output is None or not question.output.has_canary or not leaves:
        return None
    return _denial("r8.secrets", "canary:egress")


def text_is_canonical(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R1: invisible characters are taken out before a text is handed on or leaves."""
    del bundle
    if question.output is None or not question.output.invisible_characters:
        return None
    return _redaction("r1.schema", "output:invisible", Obligation.MASK)


def output_links_are_declared(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R7 at `run.output`: links and images to hosts that nobody declared are removed."""
    if question.output is None or not question.output.undeclared_links:
        return None
    verdict = bundle.parameters("r7.links").undeclared
    if verdict in (Verdict.DENY, Verdict.REQUIRE_APPROVAL):
        return _denial("r7.links", "output:links")
    return _redaction("r7.links", "output:links", Obligation.STRIP_LINKS)


def output_keeps_secrets(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R8 at `run.output`: what looks like a credential is masked or denied, where that is set.

    Where nothing is set it stays: the answer goes to whoever asked, and the ledger never holds it.
    """
    if question.output is None or not question.output.has_secret:
        return None
    match bundle.parameters("r8.secrets").verdict:
        case None | Verdict.ALLOW:
            return None
        case Verdict.REDACT:
            return _redaction("r8.secrets", "output:secret", Obligation.MASK)
        case _:
            return _denial("r8.secrets", "output:secret")


def output_fits(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R1: a text within its bounds and, where the caller asked for a schema, one that fits it."""
    del bundle
    if question.output is None:
        return None
    if question.output.is_oversized:
        return _denial("r1.schema", "schema:output_too_long")
    return None if question.output.fits_schema else _denial("r1.schema", "schema:output")


def destination_is_declared(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R3 at `webhook.send`: a body goes only where somebody with authority said."""
    del bundle
    parties = question.parties
    if parties is None or parties.is_declared_destination:
        return None
    return _denial("r3.recipient", "recipient:undeclared")


def approval_counts(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R2 at `approval.resolve`: by somebody else, by name, and on what is still asked."""
    del bundle
    parties = question.parties
    if parties is None:
        return _denial("r2.capability", "gate_error:missing_parties")
    if parties.is_own_request or not parties.are_named:
        return _denial("r2.capability", "capability:self_approval")
    return None if parties.is_current else _denial("r2.capability", "approval:stale")


def _denial(rule_id: str, reason: str) -> Objection:
    return Objection(rule_id=rule_id, verdict=Verdict.DENY, reason=reason)


def _redaction(rule_id: str, reason: str, duty: Obligation) -> Objection:
    return Objection(rule_id=rule_id, verdict=Verdict.REDACT, reason=reason, obligations=(duty,))


BUILT_IN: Mapping[Point, tuple[BuiltInRule, ...]] = {
    Point.RUN_SUBMIT: (),
    Point.LLM_REQUEST: (request_is_within_budget,),
    Point.LLM_RESPONSE: (),
    Point.TOOL_CALL: (*CALL_RULES, canary_stays),
    Point.TOOL_RESULT: (result_is_suspected,),
    Point.AGENT_MESSAGE: (text_is_canonical,),
    Point.RUN_OUTPUT: (
        output_fits,
        text_is_canonical,
        output_links_are_declared,
        output_keeps_secrets,
        canary_stays,
    ),
    Point.WEBHOOK_SEND: (destination_is_declared, canary_stays),
    Point.APPROVAL_RESOLVE: (approval_counts,),
}
