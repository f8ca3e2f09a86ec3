"""The built-in rules for tool calls, R2 to R14, over facts alone. Permanent ids, parameters, codes.

Each rule says what it has against a call and how severely; the sternest word stands. An undeclared
tool is denied; a declared one with a value that is not proven asks.

Source: policy section 5.4.

Threat: Privilege escalation via tool calls
"""

from app.domain.features import (
    ArgumentFeature,
    AskedFor,
    DecisionInput,
    Source,
    ToolFeature,
)
from app.domain.label import Confidentiality, Integrity, is_trusted
from app.domain.mode import Mode
from app.domain.step import EFFECTFUL, Effect, Role
from app.domain.verdict import Obligation, Verdict
from app.policy.bundle import PolicyBundle
from app.policy.objection import BuiltInRule, Objection

PROVEN = frozenset({Source.INSTRUCTION, Source.CAPABILITY, Source.CREATED, Source.LISTED})
# What tells somebody outside something: words given to it leave.
_TELLING = frozenset(
    {Effect.NETWORK, Effect.SEND, Effect.PAY, Effect.GRANT, Effect.EXECUTE, Effect.ACCOUNT}
)
_GRAVE = frozenset({Effect.DESTROY, Effect.PAY, Effect.GRANT, Effect.ACCOUNT})
_RECIPIENT_ROLES = frozenset({Role.RECIPIENT, Role.URL, Role.SECRET, Role.ATTRIBUTE})
_OUTGOING_ROLES = frozenset(
    {Role.CONTENT, Role.QUERY, Role.COMMAND, Role.ATTRIBUTE, Role.OPTION, Role.URL, Role.SECRET}
)
_ASKED_REFUSALS = 3


def tool_is_known(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R1: a tool that nobody registered is not called, and a call says which tool it means."""
    del bundle
    if question.tool is None:
        return _denial("r1.schema", "gate_error:missing_tool")
    return None if question.tool.is_known else _denial("r1.schema", "schema:unknown_tool")


def tool_is_granted(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R2: within the effective capabilities, or denied; asked for, or a person is asked."""
    tool = question.tool
    if tool is None:
        return None
    if not tool.is_granted:
        return _denial("r2.capability", "capability:undeclared")
    if tool.effect not in EFFECTFUL or tool.asked_for is not AskedFor.NO:
        return None
    if not question.context.may_instruct:
        return _denial("r2.capability", "capability:effect_without_authority")
    if tool.is_confined:
        return None
    return _objection("r2.capability", bundle, "capability:not_asked_for", Verdict.REQUIRE_APPROVAL)


def call_is_planned(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R2 in mode `plan`: no effect but those of the plan, each once."""
    del bundle
    tool = question.tool
    if question.mode is not Mode.PLAN or tool is None or tool.effect not in EFFECTFUL:
        return None
    return None if tool.fits_plan is True else _denial("r2.capability", "capability:not_planned")


def call_is_related(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R2: once untrusted text was seen, an effect has to share something with what was asked."""
    tool = question.tool
    if tool is None or not _is_judged(tool) or is_trusted(question.context.integrity):
        return None
    if tool.effect is Effect.NETWORK:
        return None  # R9
    weighty = [it for it in question.arguments if it.role not in (Role.OPTION, Role.AMOUNT)]
    if not weighty or any(it.is_anchored for it in weighty):
        return None
    return _objection("r2.capability", bundle, "capability:unrelated", Verdict.REQUIRE_APPROVAL)


def recipient_is_proven(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R3: who is told, paid or let in, and what is set of an account, was stated by somebody."""
    tool = question.tool
    if tool is None or not _is_judged(tool):
        return None
    for it in question.arguments:
        if it.role is Role.URL and tool.effect is Effect.NETWORK:
            continue  # R9
        if it.role in _RECIPIENT_ROLES and not _is_proven(it, "r3.recipient", bundle):
            if _is_bounded(it, tool) or _is_harmless(it, tool, question):
                continue
            return _objection(
                "r3.recipient", bundle, f"recipient:{_why(it)}", Verdict.REQUIRE_APPROVAL
            )
    return None


def object_is_named(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R4: what is changed or destroyed was named, pointed at or made by this run."""
    tool = question.tool
    if tool is None or not _is_judged(tool):
        return None
    for it in question.arguments:
        if it.role not in (Role.OBJECT, Role.PATH) or _is_proven(it, "r4.object", bundle):
            continue
        if _is_new_place(it, tool, question) or _is_bounded(it, tool):
            continue
        return _objection("r4.object", bundle, f"object:{_why(it)}", Verdict.REQUIRE_APPROVAL)
    return None


def choice_is_named(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R5: a binding choice was named; that it exists in some list is not enough."""
    tool = question.tool
    if tool is None or not _is_judged(tool):
        return None
    for it in question.arguments:
        binding = it.role is Role.CHOICE and not _is_bounded(it, tool)
        if binding and not _is_proven(it, "r5.choice", bundle):
            return _objection("r5.choice", bundle, f"choice:{_why(it)}", Verdict.REQUIRE_APPROVAL)
    return None


def amount_is_within(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R6: within the cap of the whole run, and not another sum than the one that was stated."""
    tool = question.tool
    if tool is None or tool.effect not in EFFECTFUL:
        return None
    if any(it.is_over_cap for it in question.arguments):
        return _objection("r6.amount", bundle, "amount:over_cap", Verdict.REQUIRE_APPROVAL)
    if tool.effect is Effect.PAY and any(it.is_stated_otherwise for it in question.arguments):
        return _objection("r6.amount", bundle, "amount:stated_otherwise", Verdict.REQUIRE_APPROVAL)
    return None


def links_are_vouched_for(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R7: a link or an address inside a text that goes out has a ground of its own.

    `undeclared` says what becomes of a link without one: it is asked for, or stripped and the rest
    goes out.
    """
    tool = question.tool
    if tool is None or not _is_judged(tool):
        return None
    if any(it.carried_addresses for it in question.arguments):
        return _objection("r7.links", bundle, "links:address", Verdict.REQUIRE_APPROVAL)
    if not any(it.carried_links for it in question.arguments):
        return None
    undeclared = bundle.parameters("r7.links").undeclared
    if undeclared is Verdict.REDACT:
        return Objection(
            rule_id="r7.links",
            verdict=Verdict.REDACT,
            reason="links:stripped",
            obligations=(Obligation.STRIP_LINKS,),
        )
    return _objection("r7.links", bundle, "links:undeclared", Verdict.REQUIRE_APPROVAL)


def secrets_stay(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R8: once a secret was seen no free text goes out unasked; private values go to readers only.

    By what was seen and not by what is said: a secret may be spelled in any way.
    """
    tool = question.tool
    if tool is None or tool.effect not in _TELLING or tool.is_confined:
        return None
    out = [it for it in question.arguments if it.role in _OUTGOING_ROLES]
    if any(it.confidentiality is Confidentiality.SECRET for it in out):
        return _objection("r8.secrets", bundle, "secrets:leave", Verdict.REQUIRE_APPROVAL)
    if any(not it.is_within_readers for it in out):
        return _objection("r8.secrets", bundle, "secrets:reader", Verdict.REQUIRE_APPROVAL)
    return None


def egress_is_proven(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R9: fetching tells the other side something, so the address was stated by somebody."""
    tool = question.tool
    if tool is None or tool.effect is not Effect.NETWORK or tool.is_confined:
        return None
    may_be_seen = bundle.parameters("r9.egress").allows_seen_urls
    for it in question.arguments:
        if it.role is not Role.URL or _is_proven(it, "r9.egress", bundle):
            continue
        if may_be_seen and it.sources & {Source.SEEN, Source.TRUSTED}:
            continue
        return _objection("r9.egress", bundle, f"egress:{_why(it)}", Verdict.REQUIRE_APPROVAL)
    return None


def command_is_confined(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R10: a command runs in a sandbox, or was stated; once untrusted text was seen, nothing else.

    No list of forbidden commands: such a list is a lint and no boundary.
    """
    tool = question.tool
    if tool is None or tool.effect is not Effect.EXECUTE or tool.is_confined:
        return None
    commands = [it for it in question.arguments if it.role is Role.COMMAND]
    if is_trusted(question.context.integrity) and question.context.may_instruct:
        return None
    if commands and all(_is_proven(it, "r10.command", bundle) for it in commands):
        return None
    return _objection("r10.command", bundle, "command:unconfined", Verdict.REQUIRE_APPROVAL)


def calls_are_left(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R11: no tool more often than it may be called, no call after the time is over."""
    counters, tool = question.counters, question.tool
    if counters.elapsed_seconds >= counters.max_wall_seconds:
        return _denial("r11.budget", "budget:wall")
    if tool is not None and tool.is_known and tool.calls_made >= tool.max_calls:
        return _denial("r11.budget", "budget:calls")
    most = bundle.limits.get("effects")
    effectful = tool is not None and tool.effect in EFFECTFUL
    if most is not None and effectful and counters.effects >= most:
        return _denial("r11.budget", "budget:effects")
    return None


def suspicion_is_grave(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R13: after quarantined text nothing is destroyed, paid, granted or reset unasked."""
    tool = question.tool
    quarantined = question.context.integrity is Integrity.QUARANTINED
    if tool is None or tool.effect not in _GRAVE or not quarantined:
        return None
    return _objection("r13.after_quarantine", bundle, "quarantine:effect", Verdict.REQUIRE_APPROVAL)


def strict_asks(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R14: in mode `strict` every effect asks once anything untrusted was seen."""
    tool = question.tool
    if question.mode is not Mode.STRICT or tool is None or tool.effect not in EFFECTFUL:
        return None
    if is_trusted(question.context.integrity):
        return None
    return _objection("r14.strict", bundle, "strict:after_untrusted", Verdict.REQUIRE_APPROVAL)


def asking_has_an_end(question: DecisionInput, bundle: PolicyBundle) -> Objection | None:
    """R14: a run whose asks were refused often enough makes no further effect."""
    tool = question.tool
    if tool is None or tool.effect not in EFFECTFUL:
        return None
    limit = bundle.parameters("r14.strict").limit
    most = _ASKED_REFUSALS if limit is None else limit
    if question.counters.asks_refused < most:
        return None
    return _denial("r14.strict", "approval:refused_often")


def _is_judged(tool: ToolFeature) -> bool:
    """Whether the values of this call matter outside the run's own place."""
    return tool.effect in EFFECTFUL and not tool.is_confined


def _is_proven(it: ArgumentFeature, rule_id: str, bundle: PolicyBundle) -> bool:
    grounds = bundle.parameters(rule_id).grounds
    return bool(it.sources & (PROVEN if grounds is None else grounds))


def _is_bounded(it: ArgumentFeature, tool: ToolFeature) -> bool:
    """Whether the catalogue itself lists what a value may be.

    What is paid for, and what is changed, has to be named all the same.
    """
    if not it.is_enumerated or it.role is Role.OBJECT:
        return False
    return tool.effect is not Effect.PAY or it.role is Role.ATTRIBUTE


def _is_harmless(it: ArgumentFeature, tool: ToolFeature, question: DecisionInput) -> bool:
    """Whether an attribute sets nothing of an account and pays nobody: a word, of a proven call."""
    if it.role is not Role.ATTRIBUTE:
        return False
    if tool.effect in (Effect.GRANT, Effect.SEND):
        return it.is_low_capacity
    if tool.effect is not Effect.WRITE:
        return False
    if is_trusted(question.context.integrity) and Source.MODEL in it.sources:
        return True
    return it.is_low_capacity or it.is_anchored


def _is_new_place(it: ArgumentFeature, tool: ToolFeature, question: DecisionInput) -> bool:
    """Whether this is a place or a name that the model chose for something new."""
    if tool.effect is not Effect.WRITE or (it.role is not Role.PATH and not it.is_new):
        return False
    if it.role is Role.OBJECT and it.sources != {Source.MODEL}:
        return False  # there may be such a thing already
    return it.is_anchored or is_trusted(question.context.integrity)


def _why(it: ArgumentFeature) -> str:
    """The kind of ground that was not enough, for the reason code."""
    for source in (Source.QUARANTINED, Source.WRITTEN, Source.TRUSTED, Source.SEEN):
        if source in it.sources:
            return f"only_{source.value}"
    return "unproven"


def _objection(
    rule_id: str, bundle: PolicyBundle, reason: str, built_in: Verdict
) -> Objection | None:
    """An objection as severe as the policy says; a rule that was set to `allow` has none."""
    verdict = bundle.parameters(rule_id).verdict or built_in
    if verdict is Verdict.ALLOW:
        return None
    return Objection(rule_id=rule_id, verdict=verdict, reason=reason)


def _denial(rule_id: str, reason: str) -> Objection:
    return Objection(rule_id=rule_id, verdict=Verdict.DENY, reason=reason)


CALL_RULES: tuple[BuiltInRule, ...] = (
    tool_is_known,
    tool_is_granted,
    call_is_planned,
    call_is_related,
    recipient_is_proven,
    object_is_named,
    choice_is_named,
    amount_is_within,
    links_are_vouched_for,
    secrets_stay,
    egress_is_proven,
    command_is_confined,
    calls_are_left,
    suspicion_is_grave,
    strict_asks,
    asking_has_an_end,
)
