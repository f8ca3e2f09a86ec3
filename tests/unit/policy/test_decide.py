"""One question, one answer: the sternest word stands, and whatever goes wrong is a denial."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from app.domain.errors import ConditionError, RecordFormError
from app.domain.features import (
    MAX_ARGUMENT_FEATURES,
    ArgumentFeature,
    DecisionInput,
    Finding,
    OutputFeature,
    PartiesFeature,
    Source,
)
from app.domain.label import Confidentiality, Integrity
from app.domain.mode import Mode
from app.domain.run import Json, JsonObject
from app.domain.step import Role
from app.domain.verdict import Obligation, Point, Verdict
from app.policy.bundle import PolicyBundle, RuleParameters, TenantRule
from app.policy.decide import decide
from app.policy.objection import Objection
from tests.architecture.source_tree import ROOT
from tests.support.gate_scene import ALLOW, ANNA, ASK, BUNDLE, DENY, Scene

POINTS = tuple(Point)
LETTER = {"to": ANNA, "subject": "Re", "body": "See you at the mirror"}


FAULT = Finding(rule_id="x", reason="gate_error:x")


class Answers:
    """A condition that answers with one thing, which need not be an answer."""

    def __init__(self, *, answer: Any) -> None:
        self._answer = answer

    def holds(self, features: JsonObject) -> bool:
        assert features
        answer: bool = self._answer
        return answer


class Breaks:
    """A condition that breaks."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def holds(self, features: JsonObject) -> bool:
        assert features
        raise self._error


def question() -> DecisionInput:
    """A call that the rules allow."""
    return Scene.of("Reply to Anna about the mirror", "list_mails").question("send_mail", **LETTER)


def plain(point: Point) -> DecisionInput:
    """A question that the rules of a point allow."""
    asked = replace(question(), point=point, parties=PartiesFeature(), output=OutputFeature())
    most = replace(asked.counters, max_steps=9, max_tokens=9, max_cost_micros=9)
    return replace(asked, counters=most)


def with_rule(rule: TenantRule) -> PolicyBundle:
    return replace(BUNDLE, tenant_rules=(rule,))


def rule(when: Any, verdict: Verdict = DENY, point: Point = Point.TOOL_CALL) -> TenantRule:
    return TenantRule(rule_id="own.rule", point=point, when=when, verdict=verdict, reason="own:no")


@pytest.mark.parametrize("point", POINTS)
def test_the_plain_question_passes_and_a_finding_denies(point: Point) -> None:
    assert decide(plain(point), BUNDLE).verdict is ALLOW
    found = Finding(rule_id="r1.schema", reason="schema:text")
    decision = decide(replace(plain(point), findings=(found,)), BUNDLE)
    assert (decision.verdict, decision.rules, decision.code) == (DENY, ("r1.schema",), found.reason)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("error", [ValueError, RecursionError, MemoryError, KeyError, TimeoutError])
def test_a_rule_that_raises_denies_at_its_point(point: Point, error: type[Exception]) -> None:
    def broken(_question: DecisionInput, _bundle: PolicyBundle) -> Objection | None:
        raise error

    decision = decide(plain(point), BUNDLE, rules={point: (broken,)})
    assert (decision.verdict, decision.code) == (DENY, "gate_error:rule_raised")
    asked = decide(plain(point), with_rule(rule(Breaks(error()), point=point)))
    assert (asked.verdict, asked.rules, asked.code) == (
        DENY,
        ("own.rule",),
        "gate_error:rule_raised",
    )


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("junk", [0, "", "allow", [], object(), Verdict.ALLOW])
def test_a_rule_that_answers_junk_denies_at_its_point(point: Point, junk: Any) -> None:
    decision = decide(plain(point), BUNDLE, rules={point: (lambda _q, _b: junk,)})
    assert (decision.verdict, decision.code) == (DENY, "gate_error:bad_reason")
    asked = decide(plain(point), with_rule(rule(Answers(answer=junk), point=point)))
    assert (asked.verdict, asked.code) == (DENY, "gate_error:bad_reason")


@pytest.mark.parametrize("point", POINTS)
def test_a_condition_that_took_too_long_denies(point: Point) -> None:
    asked = decide(plain(point), with_rule(rule(Breaks(ConditionError("timeout")), point=point)))
    assert (asked.verdict, asked.code) == (DENY, "gate_error:timeout")


@pytest.mark.parametrize(
    "objection",
    [
        Objection(rule_id="Two words", verdict=ASK, reason="own:no"),
        Objection(rule_id="own", verdict=ASK, reason="Not a code"),
        Objection(rule_id="own", verdict=ALLOW, reason="own:yes"),
        Objection(rule_id="own", verdict="no", reason="own:no"),  # type: ignore[arg-type]
        Objection(rule_id=7, verdict=ASK, reason="own:no"),  # type: ignore[arg-type]
    ],
)
def test_an_objection_that_cannot_be_written_down_denies(objection: Objection) -> None:
    decision = decide(question(), BUNDLE, rules={Point.TOOL_CALL: (lambda _q, _b: objection,)})
    assert decision.verdict is DENY
    assert all(rule.islower() for rule in decision.rules)


@pytest.mark.parametrize(
    "broken",
    [
        object(),
        None,
        replace(question(), arguments=None),  # type: ignore[arg-type]
        replace(question(), tool="send"),  # type: ignore[arg-type]
        replace(question(), counters=object()),  # type: ignore[arg-type]
        replace(question(), point="elsewhere"),  # type: ignore[arg-type]
    ],
)
def test_a_question_that_lacks_something_is_denied(broken: Any) -> None:
    decision = decide(broken, BUNDLE)
    assert (decision.verdict, decision.code[:11]) == (DENY, "gate_error:")


def test_a_call_without_a_tool_or_with_one_nobody_knows_is_denied() -> None:
    missing = decide(replace(question(), tool=None), BUNDLE)
    assert (missing.verdict, missing.code) == (DENY, "gate_error:missing_tool")
    asked = question()
    assert asked.tool is not None
    unknown = decide(replace(asked, tool=replace(asked.tool, is_known=False)), BUNDLE)
    assert (unknown.verdict, unknown.code) == (DENY, "schema:unknown_tool")


def test_a_record_that_is_too_large_is_denied() -> None:
    argument = question().arguments[0]
    many = tuple(replace(argument, path=f"a{n}") for n in range(MAX_ARGUMENT_FEATURES + 1))
    assert decide(replace(question(), arguments=many), BUNDLE).code == "gate_error:oversized"
    long = replace(argument, path="a" * 70_000)
    decision = decide(replace(question(), arguments=(long,)), BUNDLE)
    assert (decision.verdict, decision.code) == (DENY, "gate_error:bad_question")


def test_the_sternest_word_stands_and_all_are_kept() -> None:
    def says(rule_id: str, verdict: Verdict, *duties: Obligation) -> Any:
        word = Objection(
            rule_id=rule_id, verdict=verdict, reason=f"{rule_id}:no", obligations=duties
        )
        return lambda _q, _b: word

    rules = (
        says("one", Verdict.REDACT, Obligation.STRIP_LINKS),
        says("two", DENY),
        says("three", ASK, Obligation.NOTIFY),
    )
    decision = decide(question(), BUNDLE, rules={Point.TOOL_CALL: rules})
    assert (decision.verdict, decision.code) == (DENY, "two:no")
    assert decision.rules == ("one", "two", "three")
    assert decision.reasons == ("one:no", "two:no", "three:no")
    assert decision.obligations == (Obligation.STRIP_LINKS, Obligation.NOTIFY)


def test_a_tenants_rule_can_object_and_cannot_allow() -> None:
    asked = replace(question(), arguments=())
    assert decide(asked, with_rule(rule(Answers(answer=True), ASK))).verdict is ASK
    assert decide(asked, with_rule(rule(Answers(answer=False)))).verdict is ALLOW
    bad = replace(question(), findings=(Finding(rule_id="r1.schema", reason="schema:text"),))
    assert decide(bad, with_rule(rule(Answers(answer=True), ALLOW))).verdict is DENY


def test_observing_lets_choices_pass_and_no_fault() -> None:
    choice = Scene.of("Reply to Anna", "list_mails", mode=Mode.OBSERVE)
    seen = choice.decision("send_mail", to="who@else.example", subject="", body="")
    assert (seen.verdict, seen.enforced) == (ASK, ALLOW)
    stopped = replace(choice.question("send_mail", **LETTER), tool=None)
    for fault in (
        stopped,
        replace(
            choice.question("send_mail", **LETTER),
            findings=(Finding(rule_id="x", reason="gate_error:x"),),
        ),
        Scene.of(None, "list_mails", mode=Mode.OBSERVE).question("send_mail", **LETTER),
    ):
        assert decide(fault, BUNDLE).enforced is DENY


def test_what_cannot_be_softened_is_not() -> None:
    soft = {rule_id: RuleParameters(verdict=ALLOW) for rule_id in ("r1.schema", "r11.budget")}
    bundle = replace(BUNDLE, rules=soft)
    assert decide(replace(question(), tool=None), bundle).verdict is DENY
    late = replace(question(), counters=replace(question().counters, elapsed_seconds=60))
    assert decide(late, bundle).verdict is DENY


def test_a_feature_record_comes_back_from_its_json_and_nothing_else_does() -> None:
    asked = plain(Point.TOOL_CALL)
    form = asked.to_json()
    assert DecisionInput.from_json(form) == asked
    assert DecisionInput.from_json(form).to_json() == form
    broken: list[Json] = [
        None,
        [],
        {**form, "more": 1},
        {name: value for name, value in form.items() if name != "mode"},
        {**form, "mode": "lenient"},
        {**form, "mode": 1},
        {**form, "arguments": {}},
        {**form, "hosts": ["x"] * 1000},
        {**form, "counters": {**dict(form["counters"]), "steps": True}},  # type: ignore[arg-type]
    ]
    for wrong in broken:
        with pytest.raises(RecordFormError):
            DecisionInput.from_json(wrong)


_ELSEWHERE = """
from tests.unit.policy.test_decide import question
from tests.architecture.source_tree import ROOT
from tests.support.gate_scene import BUNDLE
from app.policy.decide import decide
print(decide(question(), BUNDLE))
print(decide(question(), BUNDLE).input_digest)
"""


def test_every_process_decides_alike() -> None:
    def said(seed: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", _ELSEWHERE],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    assert said("1") == said("4242")


def test_a_record_holds_no_value_of_the_call() -> None:
    form = str(
        Scene.of("Reply to Anna about the mirror", "list_mails")
        .question("send_mail", **LETTER)
        .to_json()
    )
    for word in (ANNA, "mirror", "See you", "dome"):
        assert word not in form


def _argument(**more: Any) -> ArgumentFeature:
    plain_one = ArgumentFeature(
        path="a",
        role=Role.CONTENT,
        sources=frozenset({Source.MODEL}),
        integrity=Integrity.USER,
        confidentiality=Confidentiality.PUBLIC,
        is_anchored=True,
    )
    return replace(plain_one, **more)


def test_a_secret_that_was_seen_keeps_free_text_from_leaving() -> None:
    secret = _argument(confidentiality=Confidentiality.SECRET)
    assert decide(replace(question(), arguments=(secret,)), BUNDLE).rules == ("r8.secrets",)
    out = _argument(is_within_readers=False)
    assert decide(replace(question(), arguments=(out,)), BUNDLE).rules == ("r8.secrets",)
    assert decide(replace(question(), arguments=(_argument(),)), BUNDLE).verdict is ALLOW


def test_a_canary_that_leaves_is_denied() -> None:
    hit = OutputFeature(has_canary=True)
    for point in (Point.TOOL_CALL, Point.RUN_OUTPUT, Point.WEBHOOK_SEND):
        assert decide(replace(plain(point), output=hit), BUNDLE).code == "canary:egress"
