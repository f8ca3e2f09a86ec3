"""The word lists of the gate, read once from the files beside this one.

Data and not code, so that what a person may say is one page to read and no rule holds a word.

Threat: Prompt injection via task input
"""

import hashlib
import tomllib
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

from app.domain.step import Effect, Role


def _text(file_name: str) -> str:
    return resources.files("app.policy").joinpath(file_name).read_text("utf-8")


def _table(file_name: str) -> Mapping[str, object]:
    return tomllib.loads(_text(file_name))


def _part(table: object, *names: str) -> object:
    """What stands under these names. KeyError or TypeError for a file that is not as it should."""
    for name in names:
        if not isinstance(table, dict):
            raise TypeError(name)
        table = table[name]
    return table


def _words(table: object, *names: str) -> tuple[str, ...]:
    found = _part(table, *names)
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise TypeError(f"{names} is no list of words")
    return tuple(found)


def _keys(table: object, *names: str) -> tuple[str, ...]:
    found = _part(table, *names)
    if not isinstance(found, dict):
        raise TypeError(f"{names} is no table")
    return tuple(found)


def _rows(table: object, *names: str) -> tuple[tuple[str, ...], ...]:
    found = _part(table, *names)
    if not isinstance(found, list):
        raise TypeError(f"{names} is no list")
    return tuple(tuple(str(word) for word in row) for row in found)


WORDS_DIGEST = hashlib.sha256(
    (_text("gate_words.toml") + _text("role_words.toml")).encode()
).hexdigest()
_GATE = _table("gate_words.toml")
_ROLES = _table("role_words.toml")

FILE_ENDINGS = frozenset(_words(_GATE, "text", "file_endings"))
MONTHS: Mapping[str, int] = MappingProxyType(
    {
        name: number
        for number, names in enumerate(_words(_GATE, "text", "months"), 1)
        for name in names.split()
    }
)
WEEKDAYS = _words(_GATE, "text", "weekdays")
ENDINGS = _words(_GATE, "text", "endings")
TOP_NAMES = frozenset(_words(_GATE, "text", "tops"))
STOP_WORDS = frozenset(_words(_GATE, "text", "stop"))

BEFORE_A_VERB = _words(_GATE, "asking", "before")
FIRST = frozenset(_words(_GATE, "reference", "first"))
LAST = frozenset(_words(_GATE, "reference", "last"))
MOST = frozenset(_words(_GATE, "reference", "most"))
LEAST = frozenset(_words(_GATE, "reference", "least"))
EVERYONE = frozenset(_words(_GATE, "reference", "all"))
ORDINALS = _words(_GATE, "reference", "ordinals")
PEOPLE = frozenset(_words(_GATE, "reference", "people"))
ONESELF = frozenset(_words(_GATE, "reference", "self"))
WHO_FIELDS = frozenset(_words(_GATE, "reference", "who"))
RELATION = frozenset(_words(_GATE, "reference", "relation"))
PRONOUNS = frozenset(_words(_GATE, "reference", "pronoun"))
ANSWERING = frozenset(_words(_GATE, "reference", "answering"))
NUMBER_MARKS = frozenset(_words(_GATE, "reference", "number"))

TOOL_VERBS: Mapping[str, frozenset[str]] = MappingProxyType(
    {group: frozenset(_words(_GATE, "verbs", group, "tools")) for group in _keys(_GATE, "verbs")}
)
SAID: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {group: _words(_GATE, "verbs", group, "said") for group in _keys(_GATE, "verbs")}
)
GROUPS_OF_EFFECT: Mapping[Effect, tuple[str, ...]] = MappingProxyType(
    {Effect(name): _words(_GATE, "effects", name) for name in _keys(_GATE, "effects")}
)
SAME_NOUN: Mapping[str, str] = MappingProxyType(
    {noun: row[0] for row in _rows(_GATE, "nouns", "same") for noun in row}
)
MAKING = frozenset(_words(_GATE, "nouns", "making"))
VERBS_SAID = frozenset(
    word for phrases in SAID.values() for phrase in phrases for word in phrase.split()
)
EMPTY_NOUNS = frozenset(_words(_GATE, "nouns", "empty"))

ROLE_WORDS: tuple[tuple[Role, frozenset[str]], ...] = tuple(
    (Role(name), frozenset(_words(_ROLES, "roles", name))) for name in _words(_ROLES, "order")
)
ROLE_OF_FORMAT: Mapping[str, Role] = MappingProxyType(
    {name: Role(str(_part(_ROLES, "formats", name))) for name in _keys(_ROLES, "formats")}
)
NO_KIND = frozenset(_words(_ROLES, "kinds", "empty"))
