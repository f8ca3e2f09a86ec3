"""What stands in a text that would leave, and that it leaves without it or not at all."""

import pytest

from app import roster
from app.domain.label import Confidentiality, Integrity, Label
from app.domain.step import Effect, Role
from app.domain.verdict import Obligation, Point, ReleasedOutput, Verdict
from app.policy.canary import Canaries
from app.policy.declared_places import DeclaredPlaces
from app.policy.gate import DascGate
from app.policy.gate_inputs import OutputInput
from app.policy.output_features import looked_at
from app.policy.rule_of_two import Leg, breaks_rule_of_two, legs_of
from tests.support.gate_scene import CATALOGUE, tool
from tests.support.planted_rules import denial, facts_with

PLACES = DeclaredPlaces(hosts=frozenset({"dome.example"}))
MARK = "k7f2qa4m6zt3xw5bnp2c"


def _released(text: str, *, with_cleaned: bool = True) -> object:
    found = looked_at(text, PLACES, canaries=Canaries.of((MARK,)), max_bytes=10_000)
    cleaned = found.cleaned if with_cleaned else None
    subject = OutputInput(
        text=text, output_schema=None, facts=facts_with(), output=found.output, cleaned=cleaned
    )
    return DascGate(roster.rule_book()).run_output(subject)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("See https://dome.example/a", "See https://dome.example/a"),
        ("![x](https://lens.invalid/p.png) done", "[image removed] done"),
        ("do\u200bne", "done"),
        ("plain", "plain"),
    ],
)
def test_an_answer_leaves_without_what_was_not_declared(text: str, left: str) -> None:
    answer = _released(text)
    assert isinstance(answer, ReleasedOutput)
    assert answer.text == left
    assert (answer.decision.verdict is Verdict.REDACT) == (text != left)


def test_an_answer_that_nobody_cleaned_does_not_leave() -> None:
    text = "[x](https://lens.invalid/)"
    assert denial(_released(text, with_cleaned=False)).code == "gate_error:not_cleaned"
    answer = _released(text)
    assert isinstance(answer, ReleasedOutput)
    assert answer.decision.obligations == (Obligation.STRIP_LINKS,)
    assert answer.decision.point is Point.RUN_OUTPUT


def test_a_canary_or_too_long_an_answer_does_not_leave() -> None:
    assert denial(_released(f"so {MARK[::-1]}")).code == "canary:egress"
    assert denial(_released("a" * 10_001)).code == "schema:output_too_long"


def test_an_agent_with_untrusted_input_private_access_and_effects_is_told_of() -> None:
    assert breaks_rule_of_two(CATALOGUE)
    private = Label(integrity=Integrity.TOOL, confidentiality=Confidentiality.USER)
    notes = tool("read_notes", Effect.READ, {})
    own = tool("read_own", Effect.READ, {}, labels={"": private})
    sends = tool("send_word", Effect.SEND, {"to": Role.RECIPIENT})
    assert legs_of([notes]) == {Leg.UNTRUSTED_INPUT}
    assert legs_of([own]) == {Leg.PRIVATE_ACCESS}
    assert legs_of([sends]) == {Leg.EFFECTS}
    for pair in ([notes, own], [notes, sends], [own, sends]):
        assert not breaks_rule_of_two(pair)
    assert breaks_rule_of_two([notes, own, sends])
