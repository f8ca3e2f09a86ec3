"""Looks once at a text that would leave, be handed on or be read by a model, and cleans it.

What it finds becomes facts for the rules; what is left without it is what may pass instead. Raises
where a text cannot be looked at or does not settle: the gate then denies.

Threat: Exfiltration via web/shell tools
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from app.detectors.injection import injection_note
from app.domain.features import OutputFeature, Score
from app.domain.made_visible import made_visible
from app.domain.run import Json
from app.policy.authority import Authority
from app.policy.canary import Canaries
from app.policy.declared_places import DeclaredPlaces
from app.policy.output_links import cleaned_json, cleaned_text
from app.policy.value_forms import addresses_in, host_of, links_in

Masks = Callable[[str], str]
DETECTOR = "injection"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLook:
    """What stands in a text, and the text without it: `masked` without credentials as well."""

    feature: OutputFeature
    cleaned: str
    masked: str


def looked_at(
    text: str,
    *,
    places: DeclaredPlaces | None,
    canaries: Canaries,
    masks: Masks,
    is_json: bool = False,
) -> TextLook:
    """The look at one text. Without `places` links are left alone. `is_json` keeps its shape."""
    visible = made_visible(text)
    removed: Counter[str] = Counter()
    cleaned = visible
    if places is not None and is_json:
        value: Json = json.loads(visible)
        inner = cleaned_json(value, places, removed)
        cleaned = json.dumps(inner, ensure_ascii=False) if removed else visible
    elif places is not None:
        clean = cleaned_text(visible, places)
        removed.update(clean.removed)
        cleaned = clean.text
    masked = masks(cleaned)
    return TextLook(
        feature=OutputFeature(
            undeclared_links=removed.total(),
            invisible_characters=len(text) - len(visible),
            has_canary=canaries.are_in(text),
            has_secret=masked != cleaned,
        ),
        cleaned=cleaned,
        masked=masked,
    )


def places_of(authority: Authority) -> DeclaredPlaces:
    """Where an answer may lead: declared domains and people, and what the instructions name."""
    granted = authority.capabilities
    said = authority.instructions or ""
    hosts = {*(granted.domains or ()), *authority.listed_hosts}
    hosts |= {host for link in links_in(said) if (host := host_of(link)) is not None}
    people = {*(granted.recipients or ()), *addresses_in(said)}
    return DeclaredPlaces(
        hosts=frozenset(host.casefold() for host in hosts),
        addresses=frozenset(person.casefold() for person in people if "@" in person),
    )


def scores_of(text: str) -> tuple[Score, ...]:
    """What the detectors say of a text. They annotate; they never allow."""
    note = injection_note(text)
    return (Score(detector=DETECTOR, version=note.version, per_mille=round(note.score * 1000)),)
