"""Each of these rules objects to its own facts and to nothing else: taken out, a case is red."""

from dataclasses import replace

import pytest

from app.domain.features import (
    ArgumentFeature,
    AskedFor,
    ContextFeature,
    DecisionInput,
    OutputFeature,
    PartiesFeature,
    Source,
    ToolFeature,
)
from app.domain.label import Confidentiality, Integrity
from app.domain.mode import Mode
from app.domain.step import Effect, Role
from app.domain.verdict import Point, Verdict
from app.policy.bundle import PolicyBundle
from app.policy.decide import decide

BUNDLE = PolicyBundle(policy_id="plain", version=1, digest="0" * 64)
PROVEN = ArgumentFeature(
    path="shelf",
    role=Role.OBJECT,
    sources=frozenset({Source.INSTRUCTION}),
    integrity=Integrity.USER,
    confidentiality=Confidentiality.TENANT,
    object_kind="shelf",
)
CALL = DecisionInput(
    point=Point.TOOL_CALL,
    mode=Mode.STANDARD,
    tool=ToolFeature(
        name="clear_shelf",
        effect=Effect.DESTROY,
        is_known=True,
        asked_for=AskedFor.MENTIONED,
        is_granted=True,
        is_declared=False,
        is_confined=False,
        max_calls=10,
    ),
    arguments=(PROVEN,),
    context=ContextFeature(may_instruct=True, is_labelled=True),
)


@pytest.mark.parametrize("source", [Source.MODEL, Source.SEEN, Source.WRITTEN, Source.QUARANTINED])
@pytest.mark.parametrize("role", [Role.OBJECT, Role.PATH])
def test_what_is_destroyed_was_named_or_somebody_is_asked(source: Source, role: Role) -> None:
    loose = replace(PROVEN, role=role, sources=frozenset({source}), integrity=Integrity.UNTRUSTED)
    named = decide(replace(CALL, arguments=(replace(PROVEN, role=role),)), BUNDLE)
    asked = decide(replace(CALL, arguments=(loose,)), BUNDLE)
    assert "r4.object" not in named.rules
    assert "r4.object" in asked.rules
    assert asked.verdict in {Verdict.REQUIRE_APPROVAL, Verdict.DENY}


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (OutputFeature(is_oversized=True), "schema:output_too_long"),
        (OutputFeature(fits_schema=False), "schema:output"),
    ],
)
def test_an_answer_out_of_its_bounds_does_not_leave(facts: OutputFeature, code: str) -> None:
    question = DecisionInput(point=Point.RUN_OUTPUT, mode=Mode.STANDARD, output=facts)
    assert decide(replace(question, output=OutputFeature()), BUNDLE).verdict is Verdict.ALLOW
    said = decide(question, BUNDLE)
    assert (said.verdict, said.code) == (Verdict.DENY, code)


def test_a_body_goes_only_where_somebody_declared() -> None:
    question = DecisionInput(point=Point.WEBHOOK_SEND, mode=Mode.STANDARD, parties=PartiesFeature())
    assert decide(question, BUNDLE).verdict is Verdict.ALLOW
    elsewhere = replace(question, parties=PartiesFeature(is_declared_destination=False))
    said = decide(elsewhere, BUNDLE)
    assert (said.verdict, said.code) == (Verdict.DENY, "recipient:undeclared")
