"""Which texts of a question are looked at, and with what in mind.

Threat: Exfiltration via web/shell tools
"""

from app.domain.features import OutputFeature, Score
from app.policy.authority import Authority
from app.policy.canary import NO_CANARIES
from app.policy.gate_inputs import CallInput, GateInput, MessageInput, OutputInput, ResultInput
from app.policy.text_look import Masks, TextLook, looked_at, places_of, scores_of


def look_of(subject: GateInput, authority: Authority | None, masks: Masks) -> TextLook | None:
    """The look at the text of a question, or None where it has none that leaves. May raise."""
    match subject:
        case OutputInput():
            return looked_at(
                subject.text,
                places=places_of(authority or Authority(instructions=None)),
                canaries=subject.facts.canaries,
                masks=masks,
                is_json=subject.output_schema is not None,
            )
        case MessageInput():
            return looked_at(subject.text, places=None, canaries=NO_CANARIES, masks=masks)
        case CallInput():
            carries = subject.facts.canaries.are_in(subject.call.arguments)
            seen = TextLook(feature=OutputFeature(has_canary=True), cleaned="", masked="")
            return seen if carries else None
        case _:
            return None


def scores_on(subject: GateInput) -> tuple[Score, ...]:
    """What detectors say of what a tool gave back."""
    return scores_of(subject.result.content) if isinstance(subject, ResultInput) else ()
