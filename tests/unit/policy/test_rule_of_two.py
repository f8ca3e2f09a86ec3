"""An agent with untrusted input, private access and effects is told of when it is loaded."""

from app.domain.label import Confidentiality, Integrity, Label
from app.domain.step import Effect, Role
from app.policy.rule_of_two import Leg, breaks_rule_of_two, legs_of
from tests.support.gate_scene import CATALOGUE, tool


def test_at_most_two_of_the_three_are_in_one_agent() -> None:
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
