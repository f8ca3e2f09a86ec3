"""What somebody with authority said at submission, read once into words that can be compared.

Threat: Prompt injection via task input
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal

from app.domain.capability import Capabilities
from app.domain.label import Label
from app.domain.mode import Mode
from app.domain.run import JsonObject
from app.domain.step import ToolSpec
from app.policy.gate_words import (
    ANSWERING,
    BEFORE_A_VERB,
    EMPTY_NOUNS,
    EVERYONE,
    FIRST,
    LAST,
    LEAST,
    MONTHS,
    MOST,
    NO_KIND,
    NUMBER_MARKS,
    ORDINALS,
    PRONOUNS,
    RELATION,
    SAME_NOUN,
    VERBS_SAID,
    WEEKDAYS,
)
from app.policy.value_forms import (
    TELLS_NOTHING,
    accounts_in,
    fold,
    link_form,
    links_in,
    number_of,
    numbers_in,
    singular,
    stem,
    tokens_of,
)

_WORDS = re.compile(r"[^\W_]+|#")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_VERB = re.compile(
    rf"(?:^|[.;:!?,(\-]\s*|\b(?:{'|'.join(BEFORE_A_VERB)})\s+)(?=(\w+))",
)
_CAPITAL = re.compile(r"\b[^\W\d_a-z][^\W\d_A-Z]+\b")
_NO_NAMES = TELLS_NOTHING | VERBS_SAID | frozenset(WEEKDAYS) | frozenset(MONTHS)
_MONEY = re.compile(
    r"[$€£]\s?(\d[\d.,]*\d|\d)|(\d[\d.,]*\d|\d)\s?(?:[$€£]|(?:eur|usd|gbp|euros?|dollars?|pounds?)\b)"
)
_TELLING_NUMBER = 100  # smaller numbers are in every text
_NUMBER_REACH = 4  # words before a number in which its kind may stand


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPart:
    """One data part of a submission with its label. It never instructs."""

    content: str
    label: Label = field(default_factory=Label)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCall:
    """One call of a plan that was handed in; `arguments` None leaves them to the rules."""

    tool: str
    arguments: JsonObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Everything that can give a value or an act its ground.

    `instructions` is None when the key may not instruct. `capabilities` are the effective ones;
    `is_declared` says that the submission itself declared its tools: then no effect comes of
    others. `granted` are the tools of all levels above it; beyond them nothing is called at all.
    `today` gives words like `yesterday` their day, where the caller says which day it is.
    """

    instructions: str | None
    data: tuple[LabelledPart, ...] = ()
    capabilities: Capabilities = field(default_factory=Capabilities)
    is_declared: bool = False
    catalogue: tuple[ToolSpec, ...] = ()
    mode: Mode = Mode.STANDARD
    plan: tuple[PlannedCall, ...] | None = None
    listed_hosts: frozenset[str] = frozenset()
    granted: frozenset[str] | None = None
    today: date | None = None


class Said:
    """The instructions in the forms in which values are looked for in them."""

    __slots__ = (
        "accounts",
        "all_words",
        "has_everyone",
        "has_first",
        "has_last",
        "has_least",
        "has_most",
        "has_relation",
        "imperatives",
        "is_answering",
        "kinds",
        "links",
        "money",
        "numbers",
        "ordinals",
        "telling",
        "text",
        "words",
    )

    def __init__(
        self,
        instructions: str | None,
        catalogue: Iterable[ToolSpec],
        today: date | None = None,
    ) -> None:
        plain = instructions or ""
        self.text = fold(plain)
        self.words = tuple(_WORDS.findall(self.text))
        self.all_words = frozenset(self.words) | {singular(word) for word in self.words}
        self.imperatives = frozenset(_VERB.findall(self.text))
        self.accounts = accounts_in(self.text)
        self.links = frozenset(links_in(plain)) | {link_form(word) for word in self.text.split()}
        self.numbers = numbers_in(self.text)
        self.money = frozenset(_money(self.text))
        specs = tuple(catalogue)
        self.kinds = frozenset(kind for spec in specs for kind in _kinds_of(spec))
        vocabulary = {word for spec in specs for word in name_words(spec.name)}
        vocabulary |= {stem(word) for word in vocabulary}
        self.telling = frozenset(
            token
            for token in tokens_of(plain) | _days(self.all_words, today)
            if token not in TELLS_NOTHING and token not in vocabulary and _tells(token)
        )
        said = self.all_words
        self.ordinals = frozenset(at for at, word in enumerate(ORDINALS) if word in said)
        self.has_first, self.has_last = bool(said & FIRST), bool(said & LAST)
        self.has_most, self.has_least = bool(said & MOST), bool(said & LEAST)
        self.has_everyone, self.is_answering = bool(said & EVERYONE), bool(said & ANSWERING)
        self.has_relation = bool(said & RELATION) or (
            bool(said & PRONOUNS) and not _names_somebody(plain)
        )

    def names_number(self, number: str, kind: str | None) -> bool:
        """Whether the instructions name the thing of this kind that has this bare number.

        The kind, or a word for `number`, must stand just before it; another kind there is another
        thing: event 5 is not mail 5.
        """
        return any(
            self._is_of_kind(self.words[max(0, at - _NUMBER_REACH) : at], kind)
            for at, word in enumerate(self.words)
            if word == number
        )

    def _is_of_kind(self, before: tuple[str, ...], kind: str | None) -> bool:
        """Whether the nearest kind before a number is this one; else, if a number is spoken of."""
        for word in reversed(before):
            found = kind_form(word)
            if kind is not None and same_kind(found, kind):
                return True
            if any(same_kind(found, other) for other in self.kinds):
                return False
        return bool(NUMBER_MARKS.intersection(before))


def _tells(token: str) -> bool:
    if token.startswith("#"):
        number = number_of(token[1:])
        return number is not None and (abs(number) >= _TELLING_NUMBER or number % 1 != 0)
    return len(token) > 1 or not token.isascii()


def _kinds_of(spec: ToolSpec) -> Iterator[str]:
    """Every kind of object that a tool speaks of."""
    declared = [*spec.object_kinds.values(), *(it.kind for it in spec.results), spec.creates]
    yield from (kind_form(kind) for kind in declared if kind)
    noun = noun_of(spec.name)
    if noun is not None:
        yield noun


def _names_somebody(text: str) -> bool:
    """Whether a word looks like a name: an address, or a capital that has no other reason.

    Of words at the start of a sentence those that people begin requests with are none.
    """
    if "@" in text:
        return True
    return any(
        word.casefold() not in _NO_NAMES and singular(word.casefold()) not in _NO_NAMES
        for word in _CAPITAL.findall(text)
    )


def _days(words: frozenset[str], today: date | None) -> frozenset[str]:
    """The dates that words like `yesterday` stand for."""
    if today is None:
        return frozenset()
    return frozenset(
        f"@{day.month}-{day.day}"
        for word, off in (("yesterday", -1), ("today", 0), ("tomorrow", 1))
        if word in words
        for day in (today + timedelta(days=off),)
    )


def _money(text: str) -> Iterator[Decimal]:
    for match in _MONEY.finditer(text):
        number = number_of(match.group(1) or match.group(2))
        if number is not None:
            yield number


def name_words(name: str) -> tuple[str, ...]:
    """The words of a name in `snake_case`, `camelCase`, `kebab-case` or with dots."""
    spaced = _CAMEL.sub(" ", name)
    return tuple(word.casefold() for word in re.split(r"[\W_]+", spaced) if word)


def noun_of(tool: str) -> str | None:
    """The kind of object that a tool's name speaks of: its last word that is a noun."""
    words = name_words(tool)
    before = [
        word for at, word in enumerate(words) if at == 0 or words[at - 1] not in ("by", "from")
    ]
    nouns = [word for word in before[1:] if word not in NO_KIND and word not in EMPTY_NOUNS]
    return kind_form(nouns[-1]) if nouns else None


def kind_form(kind: str) -> str:
    """A kind in the form in which kinds are compared."""
    plain = singular(fold(kind).replace("-", "").replace("_", " "))
    return "email" if plain in ("mail", "email") else plain


def same_kind(one: str, other: str) -> bool:
    """Whether two kinds, of which one was only guessed, may be the same."""
    return one == other or SAME_NOUN.get(one, one) == SAME_NOUN.get(other, other)


def kind_of_name(name: str, tool: str) -> str | None:
    """The kind of object that a field or an argument of this name holds the id of, guessed."""
    words = name_words(name)
    kept = [word for word in words if word not in NO_KIND]
    return kind_form(kept[-1]) if kept and len(kept) < len(words) else noun_of(tool)


def safe_kind(kind: str) -> str:
    """A kind as feature records may hold it."""
    return re.sub(r"[^a-z0-9_.-]", "_", kind)[:64]
