"""Which of the things a run has read the instructions point at: by name, by order, or as the only.

A thing is named when it shares telling words with the instructions and nothing of its kind shares
more. Who plants a text can at most make a reference ambiguous, and an ambiguous one proves nothing.

Threat: Prompt injection via task input
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import TypeAlias

from app.domain.step import Effect
from app.policy.authority import Said, kind_of_name, name_words
from app.policy.gate_words import NUMBER_MARKS, PEOPLE, WEEKDAYS, WHO_FIELDS
from app.policy.result_fields import Field, Record, is_id_name
from app.policy.value_forms import (
    TELLS_NOTHING,
    dates_in,
    fold,
    naming_tokens,
    number_of,
    numbered,
    singular,
    stem,
    tokens_of,
)

_SHORT_CHARACTERS = 120  # longer texts are content, and name nothing
_SHORT_WORDS = 14
_NUMBER = re.compile(r"\d{1,6}[A-Za-z]?")
_LONG_CHARACTERS = 4096
_LONG_MATCHES = 2

Place: TypeAlias = tuple[int, int]  # the number of the observation, the number of the record
Identity: TypeAlias = tuple[str, str]  # kind and id, or a place where there is no id


class Pointed(StrEnum):
    """How the instructions point at a record."""

    NAMED = "named"
    ORDER = "order"
    SOLE = "sole"
    EVERYONE = "everyone"
    LINKED = "linked"  # it was read by the id of something pointed at
    ASKED = "asked"  # it was read by a name that stands in the instructions
    CREATED = "created"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One result that the run has read, with what is needed to tell what is in it.

    `by_ids` are the objects that the call named, `by_name` says that each name in the call stands
    in the instructions. `written` are texts that the run had put into the world before.
    """

    number: int
    tool: str
    effect: Effect
    records: tuple[Record, ...]
    by_ids: frozenset[Identity] = frozenset()
    by_name: bool = False
    written: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """How a record is pointed at, and the telling words that it shares with the instructions."""

    pointed: frozenset[Pointed]
    words: frozenset[str]
    around: frozenset[str] = frozenset()  # all words of its short fields
    rivals: frozenset[Place] = frozenset()  # other things that the same words name


NOTHING = Match(pointed=frozenset(), words=frozenset())


def id_of(record: Record, tool: str) -> Identity | None:
    """The kind and the id of the thing that a record is about."""
    for field in record.fields:
        if field.kind is not None:
            return field.kind, fold(str(field.value))
    for field in record.fields:
        if is_id_name(field.name):
            return kind_of_name(field.name, tool) or "", fold(str(field.value))
    return None


def person_words(record: Record, field: Field, tool: str) -> frozenset[str]:
    """The words by which a person could mean whoever stands in a field of a record.

    Those of the value itself, of trusted fields that go with it (`sender_name` with `sender`), and
    in a record about somebody of all that says who it is. Not of a subject or a date.
    """
    words = naming_tokens(str(field.value))
    first = next(iter(name_words(field.name)), "")
    about = is_about_somebody(record, tool)
    for other in record.fields:
        names = name_words(other.name)
        goes_with = other.is_trusted and bool(names) and names[0] == first
        says_who = about and (other.is_trusted or bool(WHO_FIELDS.intersection(names)))
        if goes_with or says_who:
            words |= _words_of(other, ())
    return frozenset(word for word in words if word.isalpha() and word not in WEEKDAYS)


def is_about_somebody(record: Record, tool: str) -> bool:
    """Whether a record is about a person, by the tool's name or the kind of its id."""
    known = id_of(record, tool)
    return any(singular(word) in PEOPLE for word in (*name_words(tool), known[0] if known else ""))


def resolve(
    said: Said, observations: Sequence[Observation], created: frozenset[Identity]
) -> Mapping[Place, Match]:
    """How each record of all observations is pointed at; those that are not are left out."""
    things = _Things(said, observations)
    pointed = things.pointed()
    for place, identity in things.identities.items():
        if identity in created:
            pointed.setdefault(place, set()).add(Pointed.CREATED)
    _follow(observations, things, pointed)
    return {place: things.match(place, frozenset(how)) for place, how in pointed.items() if how}


class _Things:
    """Every record by family and identity, with the telling words it shares."""

    def __init__(self, said: Said, observations: Sequence[Observation]) -> None:
        self._said = said
        self.identities: dict[Place, Identity] = {}
        self._words: dict[Identity, frozenset[str]] = {}
        self._all: dict[Identity, frozenset[str]] = {}
        self._long: dict[Identity, frozenset[str]] = {}
        self._families: dict[str, dict[Identity, list[Place]]] = {}
        self._groups: dict[tuple[int, str], list[Record]] = {}
        for seen in observations:
            for record in seen.records:
                if record.fields:
                    self._add(seen, record)

    def _add(self, seen: Observation, record: Record) -> None:
        place = (seen.number, record.number)
        known = id_of(record, seen.tool)
        family = known[0] if known else f"{seen.tool} {record.group}"
        identity = known or (family, f"{place}")
        self.identities[place] = identity
        self._families.setdefault(family, {}).setdefault(identity, []).append(place)
        self._groups.setdefault((seen.number, record.group), []).append(record)
        telling = self._said.telling
        for field in record.fields:
            every = _words_of(field, seen.written)
            found = every & telling
            self._all[identity] = self._all.get(identity, frozenset()) | every
            self._words[identity] = self._words.get(identity, frozenset()) | found
            longer = _long_words_of(field) & telling
            self._long[identity] = self._long.get(identity, frozenset()) | longer

    def match(self, place: Place, pointed: frozenset[Pointed]) -> Match:
        """All that is known of how a record is pointed at."""
        identity = self.identities.get(place)
        if identity is None:
            return Match(pointed=pointed, words=frozenset())
        family = self._families[_family_of(identity)]
        words = self._words[identity]
        rivals = [
            place
            for other, places in family.items()
            if other != identity and self._words[other] == words
            for place in places
        ]
        return Match(
            pointed=pointed,
            words=words,
            around=self._all.get(identity, frozenset()),
            rivals=frozenset(rivals),
        )

    def pointed(self) -> dict[Place, set[Pointed]]:
        """By name, by order, as the only one, or with all others."""
        found: dict[Place, set[Pointed]] = {}
        for family in self._families.values():
            named = self._named(family)
            for identity, places in family.items():
                how = set()
                if identity in named:
                    how.add(Pointed.NAMED)
                if len(family) == 1:
                    how.add(Pointed.SOLE)
                if self._said.has_everyone and not named:
                    how.add(Pointed.EVERYONE)
                for place in places:
                    found.setdefault(place, set()).update(how)
        for (number, _), group in self._groups.items():
            for at in _by_order(self._said, group):
                found.setdefault((number, at), set()).add(Pointed.ORDER)
        return found

    def _named(self, family: Mapping[Identity, list[Place]]) -> set[Identity]:
        """The things of one kind that share words which no other shares more of."""
        shared = {identity: self._words[identity] for identity in family}
        sets = set(shared.values())
        everywhere = frozenset.intersection(*sets) if len(family) > 1 else frozenset()
        named = {
            identity
            for identity, words in shared.items()
            if words - everywhere and not any(words < other for other in sets)
        }
        return named or self._named_at_length(family)

    def _named_at_length(self, family: Iterable[Identity]) -> set[Identity]:
        """Where no short field tells: the one thing whose text shares the most words."""
        ranked = sorted(family, key=lambda identity: -len(self._long[identity]))
        most = len(self._long[ranked[0]])
        second = len(self._long[ranked[1]]) if len(ranked) > 1 else 0
        return {ranked[0]} if most >= _LONG_MATCHES and most > second else set()


def _family_of(identity: Identity) -> str:
    return identity[0]


def _words_of(field: Field, written: tuple[str, ...]) -> frozenset[str]:
    """The words of a field by which a person could name the thing. Not what the run wrote."""
    value = field.value
    if isinstance(value, bool):
        words = frozenset(stem(word) for word in name_words(field.name))
        return words if value else frozenset(f"un{word}" for word in words)
    text = str(value)
    if len(text) > _SHORT_CHARACTERS or len(text.split()) > _SHORT_WORDS:
        return frozenset()
    if written and any(fold(text) in before for before in written):
        return frozenset()
    words = naming_tokens(text)
    if _NUMBER.fullmatch(text):
        names = (word for word in name_words(field.name) if word not in NUMBER_MARKS)
        words |= {numbered(word, text.casefold()) for word in names}
    return words - TELLS_NOTHING


def _long_words_of(field: Field) -> frozenset[str]:
    if not isinstance(field.value, str) or len(field.value) > _LONG_CHARACTERS:
        return frozenset()
    return tokens_of(field.value) - TELLS_NOTHING


def _by_order(said: Said, group: Sequence[Record]) -> set[int]:
    """The records of one list that stand out as the instructions say: last, second, largest."""
    found = {
        record.number for record in group if record.position in said.ordinals and record.size > 1
    }
    if not (said.has_first or said.has_last or said.has_most or said.has_least):
        return found
    dates, numbers = _columns(group)
    for column in dates:
        if said.has_last:
            found.add(max(column)[1])
        if said.has_first:
            found.add(min(column)[1])
    if not dates and (said.has_first or said.has_last):
        found |= {record.number for record in group if record.position in (0, record.size - 1)}
    for values in numbers:
        if said.has_most:
            found.add(max(values)[1])
        if said.has_least:
            found.add(min(values)[1])
    return found


def _columns(
    group: Sequence[Record],
) -> tuple[list[list[tuple[str, int]]], list[list[tuple[Decimal, int]]]]:
    """The columns of a list that hold dates, and those that hold numbers, with record numbers."""
    dates: dict[str, list[tuple[str, int]]] = {}
    numbers: dict[str, list[tuple[Decimal, int]]] = {}
    for record in group:
        for field in record.fields:
            text = str(field.value)
            number = None if is_id_name(field.name) else number_of(field.value)
            if number is not None:
                numbers.setdefault(field.name, []).append((number, record.number))
            elif len(text) <= len("2000-01-01T00:00:00.000000+00:00") and dates_in(text):
                dates.setdefault(field.name, []).append((text, record.number))
    whole = len(group)
    return (
        [column for column in dates.values() if len(column) == whole],
        [values for values in numbers.values() if len(values) == whole],
    )


def _follow(
    observations: Sequence[Observation], things: _Things, pointed: dict[Place, set[Pointed]]
) -> None:
    """What was read by the id of a thing pointed at, or by its name, is about that thing."""
    meant = {things.identities[place] for place, how in pointed.items() if how}
    for seen in observations:
        root = pointed.setdefault((seen.number, 0), set())
        if seen.by_ids & meant:
            root.add(Pointed.LINKED)
            meant |= {things.identities.get((seen.number, 0), ("", ""))}
        if seen.by_name:
            root.add(Pointed.ASKED)
        own = {record.number for record in seen.records if record.fields}
        for record in seen.records:
            if record.parent is None:
                continue
            above = pointed.get((seen.number, record.parent), set())
            here = pointed.setdefault((seen.number, record.number), set())
            if Pointed.ASKED in above and record.is_plain:
                here.add(Pointed.ASKED)
            # A list that stands alone is not a thing; what is in it is pointed at one by one.
            if above and record.parent in own:
                here.add(Pointed.LINKED)
