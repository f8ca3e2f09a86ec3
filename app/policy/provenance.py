"""Where a value of a call was found, among all that the run has been told and has read.

Positive only: a value is proven when somebody with authority stated it, as a whole. How a model got
to it is never asked, so a lost model gains nothing by encoding, splitting or translating a value.

Source: policy sections 3 and 5.3.

Threat: Prompt injection via task input
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from app.domain.capability import covers_domain, covers_path, covers_recipient
from app.domain.features import Source
from app.domain.label import Confidentiality, Label, is_trusted
from app.domain.step import Role
from app.policy.argument_roles import Leaf
from app.policy.authority import Authority, Said, kind_of_name, name_words, noun_of, same_kind
from app.policy.gate_words import ONESELF
from app.policy.reference import (
    NOTHING,
    Identity,
    Match,
    Observation,
    Place,
    Pointed,
    is_about_somebody,
    person_words,
)
from app.policy.result_fields import Field, Record, is_id_name
from app.policy.value_forms import (
    TELLS_NOTHING,
    fold,
    form_of,
    host_of,
    number_of,
    occurs,
    singular,
    tokens_of,
)

PROVEN = frozenset({Source.INSTRUCTION, Source.CAPABILITY, Source.CREATED, Source.LISTED})
_INDEXED = (Role.OBJECT, Role.RECIPIENT, Role.URL, Role.PATH)
_TITLE_CHARACTERS = 120
_QUOTE = 120  # characters on either side
_BARE_NUMBER = 9  # digits; longer ones are found nowhere by chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One observation with its trusted fields by value and the text nobody answers for."""

    seen: Observation
    trusted: Mapping[str, tuple[tuple[Record, Field], ...]]
    titles: Mapping[str, tuple[Record, ...]]  # short texts that nobody answers for
    loose: str  # folded
    is_quarantined: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where one value was found, and its label as far as it is known."""

    sources: frozenset[Source]
    label: Label


def reading_of(seen: Observation) -> Reading:
    """The observation made ready to be looked into."""
    trusted: dict[str, list[tuple[Record, Field]]] = {}
    titles: dict[str, list[Record]] = {}
    loose: list[str] = []
    for record in seen.records:
        for field in record.fields:
            if not field.is_trusted:
                text = fold(str(field.value))
                loose.append(text)
                if len(text) <= _TITLE_CHARACTERS:
                    titles.setdefault(text, []).append(record)
                continue
            for form in _forms(field.value):
                trusted.setdefault(form, []).append((record, field))
    return Reading(
        seen=seen,
        trusted={form: tuple(found) for form, found in trusted.items()},
        titles={text: tuple(found) for text, found in titles.items()},
        loose="\n".join(loose),
    )


def _forms(value: str | float | bool) -> set[str]:
    number = number_of(value)
    forms = {form_of(role, str(value)) for role in _INDEXED}
    return forms | ({f"#{number.normalize():f}"} if number is not None else set())


class Provenance:
    """Looks values up. Built anew for each state; it changes nothing."""

    __slots__ = ("_authority", "_created", "_matches", "_people", "_readings", "_said")

    def __init__(
        self,
        authority: Authority,
        said: Said,
        readings: Sequence[Reading],
        matches: Mapping[Place, Match],
        created: frozenset[Identity],
    ) -> None:
        self._authority = authority
        self._said = said
        self._readings = readings
        self._matches = matches
        self._created = created
        self._people = tuple(self._named_people())

    @property
    def around(self) -> frozenset[str]:
        """All words in short fields of the things that the instructions point at one by one."""
        return frozenset(
            word
            for match in self._matches.values()
            if match.pointed - {Pointed.EVERYONE}
            for word in match.around
        )

    def origin(self, leaf: Leaf) -> Origin:
        """All places where a value was found; `model` where there is none."""
        value = leaf.value
        form = form_of(leaf.role, str(value))
        found: set[Source] = set()
        label: Label | None = None
        if self._is_said(leaf, form):
            found.add(Source.INSTRUCTION)
        if self._is_declared(leaf, form):
            found.add(Source.CAPABILITY)
        if self._is_created(leaf, form):
            found.add(Source.CREATED)
        for source, its_label in self._in_readings(leaf, form):
            found.add(source)
            label = its_label if label is None else label.join(its_label)
        found.update(self._in_data(form))
        return Origin(
            sources=frozenset(found) or frozenset({Source.MODEL}),
            label=label or Label(confidentiality=Confidentiality.PUBLIC),
        )

    def quote(self, leaf: Leaf) -> str | None:
        """The text around a value that nobody answers for, where it was first read."""
        form = form_of(leaf.role, str(leaf.value))
        for reading in self._readings:
            at = reading.loose.find(form) if form else -1
            if at >= 0:
                return reading.loose[max(0, at - _QUOTE) : at + len(form) + _QUOTE]
        return None

    def _is_said(self, leaf: Leaf, form: str) -> bool:
        said = self._said
        number = number_of(leaf.value)
        if leaf.role is Role.URL:
            return form in said.links
        if form in said.accounts:
            return True
        if number is not None and leaf.role is not Role.AMOUNT and _is_bare(form):
            return leaf.role not in (Role.OBJECT, Role.CHOICE, Role.RECIPIENT) or (
                said.names_number(form, leaf.kind)
            )
        if number is not None:
            return number in said.numbers
        plain = leaf.role in (Role.ATTRIBUTE, Role.OPTION) or form not in TELLS_NOTHING
        return bool(form) and plain and occurs(form, said.text)

    def _is_declared(self, leaf: Leaf, form: str) -> bool:
        declared = self._authority.capabilities
        match leaf.role:
            case Role.RECIPIENT:
                names = declared.recipients or frozenset()
                return any(covers_recipient(form_of(leaf.role, name), form) for name in names)
            case Role.URL:
                host = host_of(form)
                domains = declared.domains or frozenset()
                return host is not None and any(covers_domain(fold(it), host) for it in domains)
            case Role.PATH:
                paths = declared.paths or frozenset()
                return any(covers_path(form_of(leaf.role, it), form) for it in paths)
            case _:
                return False

    def _is_created(self, leaf: Leaf, form: str) -> bool:
        return leaf.role in (Role.OBJECT, Role.PATH, Role.CHOICE, Role.RECIPIENT) and any(
            made == form and (leaf.kind is None or not kind or same_kind(kind, leaf.kind))
            for kind, made in self._created
        )

    def _in_data(self, form: str) -> Iterator[Source]:
        """Data parts that came with the submission, by their label."""
        for part in self._authority.data:
            if form and occurs(form, fold(part.content)):
                trusted = is_trusted(part.label.integrity)
                yield Source.LISTED if trusted else Source.SEEN

    def _in_readings(self, leaf: Leaf, form: str) -> Iterator[tuple[Source, Label]]:
        number = number_of(leaf.value)
        keys = [form] if number is None else [form, f"#{number.normalize():f}"]
        for reading in self._readings:
            if reading.is_quarantined:
                if occurs(form, reading.loose):
                    yield Source.QUARANTINED, Label()
                continue
            for record, field in {
                id(field): (record, field)
                for key in keys
                for record, field in reading.trusted.get(key, ())
            }.values():
                yield self._ground(leaf, form, reading.seen, record, field), field.label
            if form and occurs(form, reading.loose):
                yield Source.SEEN, Label()
                if self._is_title(leaf, form, reading):
                    yield Source.LISTED, Label()

    def _is_title(self, leaf: Leaf, form: str, reading: Reading) -> bool:
        """Whether a value is the title of a thing that the instructions name by words of it.

        Enough for a thing that goes by its title. Never for a person or an address.
        """
        if leaf.role not in (Role.OBJECT, Role.PATH, Role.CHOICE) or _is_bare(form):
            return False
        if not tokens_of(form) & self._said.telling:
            return False
        if any(occurs(form, text) for text in reading.seen.written):
            return False
        return any(
            Pointed.NAMED
            in self._matches.get((reading.seen.number, record.number), NOTHING).pointed
            for record in reading.titles.get(form, ())
        )

    def _ground(
        self, leaf: Leaf, form: str, seen: Observation, record: Record, field: Field
    ) -> Source:
        """What a trusted field that is equal to the value proves of it."""
        if any(occurs(form, text) for text in seen.written):
            return Source.WRITTEN
        if not _is_same_object(leaf, form, field, seen.tool):
            return Source.SEEN
        match = self._matches.get((seen.number, record.number), NOTHING)
        if not match.pointed:
            return Source.TRUSTED
        if leaf.role in (Role.RECIPIENT, Role.SECRET) and not is_its_id(field):
            return self._ground_of_person(leaf, seen, record, field, match)
        return Source.LISTED

    def _ground_of_person(
        self, leaf: Leaf, seen: Observation, record: Record, field: Field, match: Match
    ) -> Source:
        """A person in a thing that is pointed at is meant only if the instructions mean people.

        Either the words that point are those of the person, or the instructions speak of whoever
        is in it: `the sender`, `reply`. Who pays a thing pays whoever it says.
        """
        said, pointed = self._said, match.pointed
        form = form_of(Role.RECIPIENT, str(field.value))
        if pointed & {Pointed.CREATED, Pointed.ASKED}:
            return Source.LISTED
        if Pointed.SOLE in pointed and ONESELF.intersection(name_words(seen.tool)):
            return Source.LISTED  # the user, who may be told anything of this run
        is_told = singular(fold(field.name)) in said.all_words - TELLS_NOTHING
        speaks = leaf.is_paid or said.has_relation or is_told
        own = person_words(record, field, seen.tool) & said.telling
        is_meant = speaks or (bool(own) and not self._has_namesake(form, own))
        if Pointed.NAMED in pointed and is_meant and not self._has_rival(form, field, match):
            return Source.LISTED
        if pointed & {Pointed.ORDER, Pointed.SOLE, Pointed.LINKED} and speaks:
            return Source.LISTED
        named_so = record.is_plain and noun_of(seen.tool) in said.all_words
        of_all = is_told or named_so or said.is_answering or is_about_somebody(record, seen.tool)
        return Source.LISTED if Pointed.EVERYONE in pointed and of_all else Source.TRUSTED

    def _has_rival(self, form: str, field: Field, match: Match) -> bool:
        """Whether the same words point at another thing with somebody else in the same place."""
        if self._said.has_everyone:
            return False
        for reading in self._readings:
            for record in reading.seen.records:
                if (reading.seen.number, record.number) in match.rivals and any(
                    other.name == field.name and form_of(Role.RECIPIENT, str(other.value)) != form
                    for other in record.fields
                ):
                    return True
        return False

    def _has_namesake(self, form: str, own: frozenset[str]) -> bool:
        """Whether another address anywhere answers to the same words: then nobody is named."""
        if self._said.has_everyone:
            return False
        return any(other != form and own <= words for other, words in self._people)

    def _named_people(self) -> Iterator[tuple[str, frozenset[str]]]:
        """Every address that was read, with the words it answers to.

        One that nobody answers for answers to all words around it: it can take a name from
        somebody, and give it to nobody.
        """
        telling = self._said.telling
        for reading in self._readings:
            for record in reading.seen.records:
                place = (reading.seen.number, record.number)
                match = self._matches.get(place, NOTHING)
                for field in record.fields:
                    text = str(field.value)
                    if "@" in text and len(text) <= _TITLE_CHARACTERS:
                        form = form_of(Role.RECIPIENT, text)
                        words = person_words(record, field, reading.seen.tool)
                        more = frozenset() if field.is_trusted else match.words
                        yield form, (words & telling) | more


def is_its_id(field: Field) -> bool:
    """Whether a field is the id of the thing itself, and not of somebody in it."""
    return field.kind is not None or field.name.casefold() in ("id", "_id", "uuid")


def _is_bare(form: str) -> bool:
    return form.isdigit() and len(form) <= _BARE_NUMBER


def _is_same_object(leaf: Leaf, form: str, field: Field, tool: str) -> bool:
    """Whether a field may be the id of what an argument names: 5 of one kind is no other's 5."""
    if leaf.role not in (Role.OBJECT, Role.CHOICE) or leaf.kind is None:
        return True
    if field.kind is not None:
        if leaf.is_declared_kind:
            return field.kind == leaf.kind
        return same_kind(field.kind, leaf.kind)
    if not _is_bare(form):
        return True
    # A bare number in a field that is no id, such as a count, names nothing.
    guessed = kind_of_name(field.name, tool) if is_id_name(field.name) else None
    return guessed is not None and same_kind(guessed, leaf.kind)
