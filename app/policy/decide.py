"""One question, one policy, one decision: every rule is asked and the sternest answer stands.

Pure: no clock, no I/O, no randomness. Whatever raises, answers junk or cannot be written down
denies with `gate_error:*`.

Source: policy section 5.

Threat: Prompt injection via task input
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from app.domain.errors import ConditionError
from app.domain.features import (
    MAX_ARGUMENT_FEATURES,
    MAX_FINDINGS,
    MAX_HOSTS,
    MAX_SCORES,
    DecisionInput,
)
from app.domain.mode import Mode
from app.domain.record import MAX_CODE_CHARACTERS
from app.domain.run import JsonObject
from app.domain.verdict import Decision, Obligation, Point, Verdict, is_weaker, most_restrictive
from app.policy.bundle import MAX_TENANT_RULES, PolicyBundle, TenantRule
from app.policy.flow_rules import BUILT_IN
from app.policy.objection import BuiltInRule, Objection

GATE_VERSION = "3"
MAX_FEATURE_BYTES = 64 * 1024
_MAX_POLICIES = 4  # side by side

# What a record can hold. Anything else a rule says would make its own refusal unrecordable.
_RULE_ID = re.compile(r"[a-z0-9_.-]{1,64}", re.ASCII)
_REASON = re.compile(rf"[a-z0-9_.:-]{{1,{MAX_CODE_CHARACTERS}}}", re.ASCII)
_ERROR = "gate_error:"
# Not a matter of mode: without these there is nothing that could be done, or nobody who may.
_ALWAYS_ENFORCED = frozenset({"r1.schema", "r2.capability", "r11.budget"})


def decide(
    question: DecisionInput,
    bundle: PolicyBundle,
    *,
    rules: Mapping[Point, Sequence[BuiltInRule]] = BUILT_IN,
    catalogue_digest: str = "",
) -> Decision:
    """What the policy says to this question. Never raises; the same always, in every process."""
    try:
        form = question.to_json()
        facts = feature_bytes(form)
        objections = [
            *_of_the_content(question),
            *_of_the_bounds(question),
            *_of_policy(question, form, bundle, rules[question.point]),
        ]
        return _decision(question, bundle, objections, facts, catalogue_digest)
    except Exception:  # noqa: BLE001 - whatever is wrong with a question, the answer is no
        return refusal(_point_of(question), bundle, "gate_error:bad_question")


def refusal(
    point: Point, bundle: PolicyBundle, code: str, *, mode: Mode = Mode.STANDARD
) -> Decision:
    """A denial that no rule had to be asked for."""
    return Decision(
        point=point,
        verdict=Verdict.DENY,
        rules=(),
        code=code,
        policy=bundle.ref,
        mode=mode,
        reasons=(code,),
        gate_version=GATE_VERSION,
    )


def _point_of(question: object) -> Point:
    """The point of a question that may lack even that."""
    point: object = getattr(question, "point", None)
    return point if isinstance(point, Point) else Point.TOOL_CALL


def feature_bytes(form: JsonObject) -> bytes:
    """The one spelling of a feature record (docs/ledger-format.md section 2). ValueError if big."""
    spelled = json.dumps(
        form, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()
    if len(spelled) > MAX_FEATURE_BYTES:
        raise ValueError("longer than 64 KiB")
    return spelled


def _of_the_content(question: DecisionInput) -> Iterator[Objection]:
    """What the checks of the content found: always a denial."""
    for found in question.findings:
        yield _denial(found.rule_id, found.reason)


def _of_the_bounds(question: DecisionInput) -> Iterator[Objection]:
    """A record that is larger than any this software makes is not judged in parts."""
    bounded = (
        len(question.arguments) <= MAX_ARGUMENT_FEATURES
        and len(question.findings) <= MAX_FINDINGS
        and len(question.scores) <= MAX_SCORES
        and len(question.hosts) <= MAX_HOSTS
    )
    if not bounded:
        yield _denial("r1.schema", "gate_error:oversized")


def _of_policy(
    question: DecisionInput,
    form: JsonObject,
    bundle: PolicyBundle,
    rules: Sequence[BuiltInRule],
) -> Iterator[Objection]:
    """What a policy has against it, and the one that stands beside it, which can only object."""
    asked: PolicyBundle | None = bundle
    for _ in range(_MAX_POLICIES):
        if asked is None:
            return
        yield from _of_built_in(question, asked, rules)
        yield from _of_the_tenant(question.point, form, asked)
        asked = asked.also
    yield _denial("unnamed", "gate_error:too_many_policies")


def _of_built_in(
    question: DecisionInput, bundle: PolicyBundle, rules: Iterable[BuiltInRule]
) -> Iterator[Objection]:
    for rule in rules:
        try:
            answer: object = rule(question, bundle)
        except Exception:  # noqa: BLE001 - whatever a rule raises, the answer is no
            yield _denial(_name_of(rule), "gate_error:rule_raised")
            continue
        if isinstance(answer, Objection):
            yield answer
        elif answer is not None:
            yield _denial(_name_of(rule), "gate_error:bad_reason")


def _of_the_tenant(point: Point, form: JsonObject, bundle: PolicyBundle) -> Iterator[Objection]:
    if len(bundle.tenant_rules) > MAX_TENANT_RULES:
        yield _denial("unnamed", "gate_error:too_many_rules")
        return
    for rule in bundle.tenant_rules:
        if rule.point is point:
            answer = _asked(rule, form)
            if answer is not None:
                yield answer


def _asked(rule: TenantRule, form: JsonObject) -> Objection | None:
    try:
        holds: object = rule.when.holds(form)
    except ConditionError as error:
        return _denial(rule.rule_id, f"{_ERROR}{error.code}")
    except Exception:  # noqa: BLE001 - as for a built-in rule
        return _denial(rule.rule_id, "gate_error:rule_raised")
    if holds is True:
        if rule.verdict is Verdict.ALLOW:
            return None  # a tenant's rule can object; it cannot allow
        return Objection(rule_id=rule.rule_id, verdict=rule.verdict, reason=rule.reason)
    return None if holds is False else _denial(rule.rule_id, "gate_error:bad_reason")


def _decision(
    question: DecisionInput,
    bundle: PolicyBundle,
    objections: Sequence[Objection],
    facts: bytes,
    catalogue_digest: str,
) -> Decision:
    """The sternest of what was said, and all that was said, each thing once."""
    said = [_recordable(objection) for objection in objections]
    verdict = most_restrictive(objection.verdict for objection in said)
    rules: dict[str, str] = {}
    for objection in said:
        held = rules.get(objection.rule_id)
        if held is None or is_weaker(_verdict_of(said, objection.rule_id, held), objection.verdict):
            rules[objection.rule_id] = objection.reason
    code = next((one.reason for one in said if one.verdict is verdict), "allow")
    obligations = {duty for objection in said for duty in objection.obligations}
    return Decision(
        point=question.point,
        verdict=verdict,
        rules=tuple(rules),
        code=code,
        policy=bundle.ref,
        mode=question.mode,
        reasons=tuple(rules.values()),
        obligations=tuple(duty for duty in Obligation if duty in obligations),
        is_observed=_is_observed(question.mode, verdict, said),
        catalogue_digest=catalogue_digest,
        gate_version=GATE_VERSION,
        input_digest=hashlib.sha256(facts).hexdigest(),
        facts=facts,
    )


def _is_observed(mode: Mode, verdict: Verdict, said: Sequence[Objection]) -> bool:
    """Whether the mode lets pass what was objected to: only choices, never faults or limits."""
    if mode is not Mode.OBSERVE or verdict is Verdict.ALLOW:
        return False
    return not any(
        one.verdict is Verdict.DENY
        and (one.rule_id in _ALWAYS_ENFORCED or one.reason.startswith(_ERROR))
        for one in said
    )


def _verdict_of(said: Iterable[Objection], rule_id: str, reason: str) -> Verdict:
    return most_restrictive(
        one.verdict for one in said if one.rule_id == rule_id and one.reason == reason
    )


def _recordable(objection: Objection) -> Objection:
    """The objection itself, or a denial in its place where it cannot be written down."""
    rule_id: object = objection.rule_id
    reason: object = objection.reason
    named = isinstance(rule_id, str) and _RULE_ID.fullmatch(rule_id) is not None
    told = isinstance(reason, str) and _REASON.fullmatch(reason) is not None
    if named and told and objection.verdict in _OBJECTING:
        return objection
    return _denial(
        objection.rule_id if named else "unnamed",
        objection.reason if told else "gate_error:bad_reason",
    )


_OBJECTING = frozenset(Verdict) - {Verdict.ALLOW}


def _denial(rule_id: str, reason: str) -> Objection:
    return Objection(rule_id=rule_id, verdict=Verdict.DENY, reason=reason)


def _name_of(rule: BuiltInRule) -> str:
    name = getattr(rule, "__name__", "unnamed")
    return name if isinstance(name, str) else "unnamed"
