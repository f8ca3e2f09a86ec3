"""Looks at a text that would leave and says what is in it, and how it may leave instead.

Threat: Exfiltration via web/shell tools
"""

from dataclasses import dataclass

from app.domain.features import OutputFeature
from app.domain.made_visible import made_visible
from app.domain.visible_text import is_hidden
from app.policy.canary import Canaries
from app.policy.declared_places import DeclaredPlaces
from app.policy.output_links import UncleanOutputError, cleaned_text

_MOST = 10_000  # a count beyond it says nothing more
NO_CANARIES = Canaries.of(())


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedAt:
    """What stands in a text, and the text without it; None when it cannot be made clean."""

    output: OutputFeature
    cleaned: str | None


def looked_at(
    text: str,
    places: DeclaredPlaces,
    *,
    canaries: Canaries = NO_CANARIES,
    has_secret: bool = False,
    max_bytes: int,
) -> LookedAt:
    """The facts of an answer. A text beyond its bound is not looked into: it does not leave."""
    if len(text.encode("utf-8", "replace")) > max_bytes:
        return LookedAt(output=OutputFeature(is_oversized=True), cleaned=None)
    visible = made_visible(text)
    cleaned: str | None
    try:
        done = cleaned_text(visible, places)
        cleaned, links = done.text, sum(done.removed.values())
    except UncleanOutputError:
        cleaned, links = None, 1
    return LookedAt(
        output=OutputFeature(
            undeclared_links=min(links, _MOST),
            invisible_characters=min(sum(map(is_hidden, text)), _MOST),
            has_canary=canaries.are_in(text),
            has_secret=has_secret,
        ),
        cleaned=cleaned,
    )
