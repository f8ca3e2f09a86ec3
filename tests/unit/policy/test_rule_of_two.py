"""An agent that has all three legs of the rule of two is told of when it is made."""

from app.domain.label import Confidentiality, Integrity, Label
from app.domain.step import Effect, Role
from app.policy.rule_of_two import Leg, breaks_rule_of_two, legs_of
from tests.support.gate_scene import CATALOGUE, tool


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
