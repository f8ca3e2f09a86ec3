"""What must hold for any question: more rules, less trust or fewer rights never let more pass."""

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.capability import Capabilities
from app.domain.features import (
    ArgumentFeature,
    AskedFor,
    ContextFeature,
    Counters,
    DecisionInput,
    OutputFeature,
    PartiesFeature,
    Score,
    Source,
    ToolFeature,
)
from app.domain.label import Confidentiality, Integrity, Label, highest, lowest
from app.domain.mode import Mode
from app.domain.run import JsonObject
from app.domain.step import Effect, Role
from app.domain.verdict import Point, Verdict, is_weaker
from app.policy.bundle import PolicyBundle, TenantRule
from app.policy.decide import decide
from tests.support.gate_scene import BUNDLE, MALLORY, Scene

PROVING = frozenset({Source.INSTRUCTION, Source.CAPABILITY, Source.CREATED, Source.LISTED})
NAMES = st.sampled_from(["a", "b", "c.d"])
INTEGRITY, CIRCLE = st.sampled_from(Integrity), st.sampled_from(Confidentiality)
ENFORCING = st.sampled_from([Mode.STANDARD, Mode.STRICT, Mode.PLAN])


def built(kind: type[Any], **parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(kind, **parts)


ARGUMENTS = built(
    ArgumentFeature,
    path=NAMES,
    role=st.sampled_from(Role),
    sources=st.frozensets(st.sampled_from(Source), min_size=1, max_size=3),
    integrity=INTEGRITY,
    confidentiality=CIRCLE,
    object_kind=st.none(),
    host=st.none(),
    carried_links=st.integers(0, 1),
    carried_addresses=st.integers(0, 1),
)
QUESTIONS = built(
    DecisionInput,
    point=st.sampled_from(Point),
    mode=ENFORCING,
    tool=built(
        ToolFeature,
        name=NAMES,
        effect=st.sampled_from(Effect),
        asked_for=st.sampled_from(AskedFor),
        calls_made=st.integers(0, 2),
        max_calls=st.integers(0, 3),
        fits_plan=st.sampled_from([None, True, False]),
    ),
    arguments=st.lists(ARGUMENTS, max_size=3).map(tuple),
    findings=st.just(()),
    context=built(ContextFeature, integrity=INTEGRITY, confidentiality=CIRCLE),
    counters=built(
        Counters,
        **{name: st.integers(0, 3) for name in ("steps", "tokens", "cost_micros", "asks_refused")},
        **{name: st.just(3) for name in ("max_steps", "max_tokens", "max_wall_seconds")},
    ),
    output=st.none() | built(OutputFeature, undeclared_links=st.integers(0, 1)),
    parties=st.none() | built(PartiesFeature),
    scores=st.lists(
        built(Score, detector=NAMES, version=st.just("1"), per_mille=st.integers(0, 1000)),
        max_size=2,
    ).map(tuple),
    hosts=st.just(()),
)


class _Always:
    def holds(self, features: JsonObject) -> bool:
        return bool(features)


def no_weaker(harder: DecisionInput, easier: DecisionInput) -> None:
    """What was stopped stays stopped, at least as sternly."""
    one, other = decide(harder, BUNDLE), decide(easier, BUNDLE)
    assert not is_weaker(one.verdict, other.verdict), (one, other)


@settings(max_examples=150, deadline=None)
@given(QUESTIONS, st.sampled_from(Verdict))
def test_one_more_rule_never_lets_more_pass(question: DecisionInput, verdict: Verdict) -> None:
    more = TenantRule(
        rule_id="own", point=question.point, when=_Always(), verdict=verdict, reason="own:no"
    )
    bundle: PolicyBundle = replace(BUNDLE, tenant_rules=(more,))
    plain, ruled = decide(question, BUNDLE), decide(question, bundle)
    assert not is_weaker(ruled.verdict, plain.verdict)
    assert set(plain.rules) <= set(ruled.rules)


@settings(max_examples=250, deadline=None)
@given(QUESTIONS, INTEGRITY, CIRCLE)
def test_a_lower_label_of_the_context_never_lets_more_pass(
    question: DecisionInput, integrity: Integrity, circle: Confidentiality
) -> None:
    seen = question.context
    lower = replace(
        seen,
        integrity=lowest(seen.integrity, integrity),
        confidentiality=highest(seen.confidentiality, circle),
        may_instruct=False,
    )
    no_weaker(replace(question, context=lower), question)


@settings(max_examples=250, deadline=None)
@given(QUESTIONS, st.data())
def test_a_value_with_less_ground_never_passes_more(
    question: DecisionInput, data: st.DataObject
) -> None:
    def less(it: ArgumentFeature) -> ArgumentFeature:
        taken = data.draw(st.frozensets(st.sampled_from(sorted(PROVING))))
        return replace(
            it,
            sources=(it.sources - taken) or frozenset({Source.MODEL}),
            is_anchored=False,
            is_enumerated=False,
            is_within_readers=False,
            confidentiality=Confidentiality.SECRET,
        )

    no_weaker(replace(question, arguments=tuple(map(less, question.arguments))), question)


@settings(max_examples=250, deadline=None)
@given(QUESTIONS, st.booleans(), st.booleans())
def test_a_narrower_right_never_lets_more_pass(
    question: DecisionInput, granted: bool, confined: bool
) -> None:
    tool = question.tool
    assert tool is not None
    narrow = replace(
        tool,
        is_granted=tool.is_granted and granted,
        is_confined=tool.is_confined and confined,
        asked_for=AskedFor.NO,
        max_calls=min(tool.max_calls, 1),
        fits_plan=False,
    )
    capped = tuple(replace(it, is_over_cap=True) for it in question.arguments)
    no_weaker(replace(question, tool=narrow, arguments=capped), question)


@settings(max_examples=100, deadline=None)
@given(QUESTIONS)
def test_a_stricter_mode_never_lets_more_pass(question: DecisionInput) -> None:
    plain = replace(question, mode=Mode.STANDARD)
    for mode in (Mode.STRICT, Mode.PLAN):
        no_weaker(replace(question, mode=mode), plain)
    watched = decide(replace(question, mode=Mode.OBSERVE), BUNDLE)
    assert watched.verdict is decide(plain, BUNDLE).verdict


@settings(max_examples=60, deadline=None)
@given(QUESTIONS)
def test_a_question_survives_its_json_and_is_answered_alike(question: DecisionInput) -> None:
    again = DecisionInput.from_json(question.to_json())
    assert again == question
    assert decide(again, BUNDLE) == decide(question, BUNDLE)
    assert decide(again, BUNDLE).input_digest == decide(question, BUNDLE).input_digest


LABELS = st.builds(
    Label,
    integrity=INTEGRITY,
    confidentiality=CIRCLE,
    readers=st.none() | st.frozensets(st.sampled_from("abc")),
)


@given(LABELS, LABELS, LABELS)
def test_labels_only_ever_fall(one: Label, two: Label, three: Label) -> None:
    both = one.join(two)
    assert both == two.join(one)
    assert both.join(three) == one.join(two.join(three))
    assert both.join(one) == both
    assert one.join(one) == one


SETS = st.none() | st.frozensets(st.sampled_from(["a", "b@c", "@c", "d/e", "d", "*.f", "g.f"]))
RIGHTS = st.builds(
    Capabilities,
    tools=SETS,
    recipients=SETS,
    domains=SETS,
    paths=SETS,
    max_amount=st.none() | st.decimals(0, 9, places=0),
    max_calls=st.dictionaries(st.sampled_from("ab"), st.integers(0, 3)),
)


@given(RIGHTS, RIGHTS)
def test_what_two_levels_allow_is_in_both(one: Capabilities, two: Capabilities) -> None:
    both = one.meet(two)
    assert both == two.meet(one)
    assert both.meet(one) == both
    for level in (one, two):
        if level.tools is not None:
            assert both.tools is not None
            assert both.tools <= level.tools
        if level.max_amount is not None:
            assert both.max_amount is not None
            assert both.max_amount <= level.max_amount
        assert all(both.max_calls[tool] <= most for tool, most in level.max_calls.items())


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["Reply to Anna", "Answer the last mail", "Pay the club", "Cancel session 5"]),
    st.sampled_from(["send_mail", "delete_mail", "cancel_session", "pay_account"]),
    st.sampled_from(["4", "5", "6", "anna.berg@dome.example", MALLORY]),
    st.frozensets(st.sampled_from(["send_mail", "cancel_session"])),
)
def test_fewer_declared_rights_never_let_more_pass(
    task: str, name: str, value: str, tools: frozenset[str]
) -> None:
    values = {"to": value, "mail_id": value, "session_id": value, "account": value}
    wide = frozenset({"send_mail", "delete_mail", "cancel_session", "pay_account"})
    reads = ("list_mails", "list_sessions")
    broad = Scene.of(task, *reads, tools=wide, recipients=frozenset({MALLORY}))
    narrow = Scene.of(task, *reads, tools=tools, recipients=frozenset())
    call = {key: it for key, it in values.items() if key in _ARGUMENTS[name]}
    one, other = narrow.verdict(name, **call), broad.verdict(name, **call)
    assert not is_weaker(one, other)


_ARGUMENTS = {
    "send_mail": ("to",),
    "delete_mail": ("mail_id",),
    "cancel_session": ("session_id",),
    "pay_account": ("account",),
}
