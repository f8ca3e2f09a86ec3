"""DascGate, the Deterministic Agentic Safety Controller: the only maker of proofs.

Nine points, one way to decide: the content is looked at once and becomes a record of facts, the
policy judges the record, and whatever goes wrong on the way denies. Pure: no clock, no I/O, no
randomness.

Threat: Prompt injection via task input
"""

import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from app.domain.features import DecisionInput, Finding
from app.domain.record import MAX_CODE_CHARACTERS
from app.domain.run import JsonObject
from app.domain.step import ToolCall
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
    Obligation,
    Point,
    PolicyRef,
    ReleasedOutput,
    ResolvedApproval,
    Verdict,
)
from app.policy.bundle import PolicyBundle
from app.policy.call_redaction import without_links
from app.policy.decide import decide, refusal
from app.policy.gate_features import authority_of, features, state_of
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
    SubmitInput,
)
from app.policy.gate_looks import look_of
from app.policy.rules import Rule
from app.policy.schema_check import SchemaRefusedError, first_violation
from app.policy.text_look import Masks, TextLook

Subject = TypeVar("Subject", bound=GateInput)
GRANTED = "approval:granted"
_PASSING = frozenset({Verdict.ALLOW, Verdict.REDACT})
# Duties that change the text itself; the others change what is known of it.
_CLEANING = frozenset({Obligation.STRIP_LINKS, Obligation.MASK, Obligation.TRUNCATE})
# What a record can hold. Anything else a rule says would make its own refusal unrecordable.
_RULE_ID = re.compile(r"[a-z0-9_.-]{1,64}", re.ASCII)
_REASON = re.compile(rf"[a-z0-9_.:-]{{1,{MAX_CODE_CHARACTERS}}}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleBook:
    """The checks of the content at each point, and the policy that judges what they find.

    A point without checks denies everything.
    """

    bundle: PolicyBundle
    catalogue_digest: str = ""
    masks: Masks = str  # takes credentials out of a text
    run_submit: Sequence[Rule[SubmitInput]] = field(default=())
    llm_request: Sequence[Rule[RequestInput]] = field(default=())
    llm_response: Sequence[Rule[ResponseInput]] = field(default=())
    tool_call: Sequence[Rule[CallInput]] = field(default=())
    tool_result: Sequence[Rule[ResultInput]] = field(default=())
    agent_message: Sequence[Rule[MessageInput]] = field(default=())
    run_output: Sequence[Rule[OutputInput]] = field(default=())
    webhook_send: Sequence[Rule[DeliveryInput]] = field(default=())
    approval_resolve: Sequence[Rule[ApprovalInput]] = field(default=())

    def masking(self, masks: Masks) -> "RuleBook":
        """The same book, with what takes credentials out of a text."""
        return replace(self, masks=masks)


class DascGate:
    """Decides at nine points. A method gives a proof or a Deny; it never raises.

    `nanoseconds`: a clock by which a decision says how long it took; it decides nothing.
    """

    def __init__(self, book: RuleBook, nanoseconds: Callable[[], int] | None = None) -> None:
        self._book = book
        self._nanoseconds = nanoseconds or _no_clock

    @property
    def policy(self) -> PolicyRef:
        """Which policy this gate decides by."""
        return self._book.bundle.ref

    @property
    def bundle(self) -> PolicyBundle:
        """The policy this gate decides by."""
        return self._book.bundle

    def under(self, bundle: PolicyBundle) -> "DascGate":
        """The same gate under another policy."""
        return DascGate(replace(self._book, bundle=bundle), self._nanoseconds)

    def run_submit(self, subject: SubmitInput) -> AdmittedTask | Deny:
        """May this task enter?"""
        decision = self._decide(Point.RUN_SUBMIT, self._book.run_submit, subject)
        if decision.enforced not in _PASSING:
            return Deny(decision=decision)
        return AdmittedTask(submission=subject.submission, decision=decision)

    def llm_request(self, subject: RequestInput) -> ClearedRequest | Deny:
        """May this go to a model?"""
        decision = self._decide(Point.LLM_REQUEST, self._book.llm_request, subject)
        if decision.enforced not in _PASSING:
            return Deny(decision=decision)
        return ClearedRequest(request=subject.request, decision=decision)

    def llm_response(self, subject: ResponseInput) -> AdmittedReply | Deny:
        """May the run act on this reply?"""
        decision = self._decide(Point.LLM_RESPONSE, self._book.llm_response, subject)
        if decision.enforced not in _PASSING:
            return Deny(decision=decision)
        return AdmittedReply(reply=subject.reply, decision=decision)

    def tool_call(self, subject: CallInput) -> AuthorizedCall | Ask | Deny:
        """May this call be made, with these arguments? `Ask`: only if a person says so.

        What a person said counts for the very action that was shown, and for what asks only: it
        undoes no denial.
        """
        decision = self._decide(Point.TOOL_CALL, self._book.tool_call, subject)
        spec = next((s for s in subject.facts.offered if s.name == subject.call.name), None)
        if decision.enforced is Verdict.REQUIRE_APPROVAL:
            if not _is_granted(subject):
                return Ask(decision=decision)
            decision = replace(decision, verdict=Verdict.ALLOW, code=GRANTED)
        if decision.enforced not in _PASSING:
            return Deny(decision=decision)
        if spec is None:
            # Whatever the rules say, a tool that is not offered cannot be called.
            return Deny(
                decision=refusal(Point.TOOL_CALL, self._book.bundle, "gate_error:unknown_tool")
            )
        call = ToolCall(
            call_id=subject.call.call_id,
            name=subject.call.name,
            arguments=dict(subject.call.arguments),
        )
        if Obligation.STRIP_LINKS in decision.obligations and not decision.is_observed:
            stripped = without_links(call.arguments, spec, state_of(subject.facts))
            call = replace(call, arguments=stripped)
        return AuthorizedCall(call=call, spec=spec, decision=decision)

    def tool_result(self, subject: ResultInput) -> AdmittedResult | Deny:
        """May the model see this result?"""
        decision = self._decide(Point.TOOL_RESULT, self._book.tool_result, subject)
        if decision.enforced not in _PASSING:
            return Deny(decision=decision)
        if decision.enforced is Verdict.REDACT and _CLEANING & set(decision.obligations):
            return Deny(decision=self._uncleaned(decision))
        return AdmittedResult(result=subject.result, decision=decision)

    def agent_message(self, subject: MessageInput) -> AdmittedMessage | Deny:
        """May one agent hand this to another?"""
        decision, look = self._judged(Point.AGENT_MESSAGE, self._book.agent_message, subject)
        if decision.enforced not in _PASSING:
            return Deny(decision=decision)
        if decision.enforced is Verdict.REDACT:
            if look is None:
                return Deny(decision=self._uncleaned(decision))
            return AdmittedMessage(text=_passing(look, decision), decision=decision)
        return AdmittedMessage(text=subject.text, decision=decision)

    def run_output(self, subject: OutputInput) -> ReleasedOutput | Deny:
        """May this answer leave?"""
        decision, look = self._judged(Point.RUN_OUTPUT, self._book.run_output, subject)
        if decision.enforced not in _PASSING:
            return Deny(decision=decision)
        if decision.enforced is Verdict.REDACT:
            text = "" if look is None else _passing(look, decision)
            if look is None or not _fits(subject.output_schema, text):
                return Deny(decision=self._uncleaned(decision))
            return ReleasedOutput(text=text, decision=decision)
        return ReleasedOutput(text=subject.text, decision=decision)

    def webhook_send(self, subject: DeliveryInput) -> ClearedDelivery | Deny:
        """May this body go to that address?"""
        decision = self._decide(Point.WEBHOOK_SEND, self._book.webhook_send, subject)
        if decision.enforced not in _PASSING:
            return Deny(decision=decision)
        return ClearedDelivery(url=subject.url, body=subject.body, decision=decision)

    def approval_resolve(self, subject: ApprovalInput) -> ResolvedApproval | Deny:
        """Does this decision on an approval count?"""
        decision = self._decide(Point.APPROVAL_RESOLVE, self._book.approval_resolve, subject)
        if decision.enforced not in _PASSING:
            return Deny(decision=decision)
        return ResolvedApproval(
            approval_id=subject.approval_id,
            granted=subject.granted,
            digest=subject.digest,
            decision=decision,
        )

    def _uncleaned(self, decision: Decision) -> Decision:
        """A text that must not pass as it is, and nobody gave it as it may pass."""
        return refusal(
            decision.point, self._book.bundle, "gate_error:not_cleaned", mode=decision.mode
        )

    def _decide(self, point: Point, rules: Sequence[Rule[Subject]], subject: Subject) -> Decision:
        """The decision alone, where no text is put in the place of another."""
        return self._judged(point, rules, subject)[0]

    def _judged(
        self, point: Point, rules: Sequence[Rule[Subject]], subject: Subject
    ) -> tuple[Decision, TextLook | None]:
        """The decision, how long it took, and what a look at the text found."""
        began = self._nanoseconds()
        decision, look = self._weighed(point, rules, subject)
        micros = (self._nanoseconds() - began) // 1000
        return (replace(decision, latency_micros=micros) if micros > 0 else decision), look

    def _weighed(
        self, point: Point, rules: Sequence[Rule[Subject]], subject: Subject
    ) -> tuple[Decision, TextLook | None]:
        """Every check is asked, what they found is judged; no check, or a broken one, denies.

        What already failed a check is not looked at any further.
        """
        if not rules:
            return refusal(point, self._book.bundle, "gate_error:no_rules"), None
        findings: dict[str, str] = {}
        for rule in rules:
            reason = _reason_of(rule, subject)
            if reason is not None:
                findings.setdefault(_id_of(rule), reason)
        found = tuple(Finding(rule_id=rule, reason=why) for rule, why in findings.items())
        bundle = self._book.bundle
        try:
            look = None if found else look_of(subject, authority_of(subject), self._book.masks)
            seen = None if look is None else look.feature
            question = features(point, subject, found, bundle.default_mode, seen)
        except Exception:  # noqa: BLE001 - what cannot be looked at is not let through
            if found:
                return decide(_bare(point, found, bundle), bundle), None
            return refusal(point, bundle, "gate_error:features"), None
        return decide(question, bundle, catalogue_digest=self._book.catalogue_digest), look


def _passing(look: TextLook, decision: Decision) -> str:
    """What may pass of a text: without credentials too, unless only other rules objected."""
    others = {"r1.schema", "r7.links"}
    return look.cleaned if set(decision.rules) <= others else look.masked


def _fits(schema: JsonObject | None, cleaned: str) -> bool:
    """Whether an answer still is what the caller asked for when something was taken out of it."""
    try:
        return schema is None or first_violation(schema, json.loads(cleaned)) is None
    except (ValueError, SchemaRefusedError):
        return False


def _no_clock() -> int:
    return 0


def _bare(point: Point, found: tuple[Finding, ...], bundle: PolicyBundle) -> DecisionInput:
    """What was found, when there is no more to judge: it denies by itself."""
    return DecisionInput(point=point, mode=bundle.default_mode, findings=found)


def _is_granted(subject: CallInput) -> bool:
    """Whether somebody approved of this action: the same call, label, policy and catalogue."""
    approval, digest = subject.approval, subject.digest
    return (
        approval is not None
        and approval.granted
        and len(digest) > 0
        and hmac.compare_digest(approval.digest, digest)
    )


def _reason_of(rule: Rule[Subject], subject: Subject) -> str | None:
    """What a rule says against it. Only a plain None is no reason; junk is one."""
    try:
        reason: object = rule.judge(subject)
    except Exception:  # noqa: BLE001 - whatever a rule raises, the answer is no
        return "gate_error:rule_raised"
    if reason is None:
        return None
    if isinstance(reason, str) and _REASON.fullmatch(reason) is not None:
        return reason
    return "gate_error:bad_reason"


def _id_of(rule: Rule[Subject]) -> str:
    """The rule's id, or a stand-in for one that cannot be told or recorded."""
    try:
        rule_id: object = rule.rule_id
    except Exception:  # noqa: BLE001 - the rule has denied; its name must not undo that
        rule_id = None
    if isinstance(rule_id, str) and _RULE_ID.fullmatch(rule_id) is not None:
        return rule_id
    return "unnamed"


def rule_ids(book: RuleBook) -> Mapping[Point, tuple[str, ...]]:
    """The ids of the rules that are asked at each point."""
    return {
        point: tuple(rule.rule_id for rule in rules)
        for point, rules in (
            (Point.RUN_SUBMIT, book.run_submit),
            (Point.LLM_REQUEST, book.llm_request),
            (Point.LLM_RESPONSE, book.llm_response),
            (Point.TOOL_CALL, book.tool_call),
            (Point.TOOL_RESULT, book.tool_result),
            (Point.AGENT_MESSAGE, book.agent_message),
            (Point.RUN_OUTPUT, book.run_output),
            (Point.WEBHOOK_SEND, book.webhook_send),
            (Point.APPROVAL_RESOLVE, book.approval_resolve),
        )
    }
