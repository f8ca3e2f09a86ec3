"""Takes out of a call what an obligation says must not go out with it.

Threat: Exfiltration via web/shell tools
"""

from app.domain.run import Json, JsonObject
from app.domain.step import ToolSpec
from app.policy.label_state import LabelState
from app.policy.output_links import LINK_REMOVED
from app.policy.value_forms import link_spans


def without_links(arguments: JsonObject, spec: ToolSpec, state: LabelState) -> JsonObject:
    """The arguments without the links that nobody vouches for. Only carried texts are changed."""
    loose = state.loose_links(arguments, spec)
    return {name: _stripped(value, loose) for name, value in arguments.items()}


def _stripped(value: Json, loose: frozenset[str]) -> Json:
    match value:
        case str():
            text = value
            for start, end, form in reversed(link_spans(value)):
                if form in loose:
                    text = text[:start] + LINK_REMOVED + text[end:]
            return text
        case list():
            return [_stripped(inner, loose) for inner in value]
        case dict():
            return {name: _stripped(inner, loose) for name, inner in value.items()}
        case _:
            return value
