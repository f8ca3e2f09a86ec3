"""Loads the rules that find identifiers by shape and by label; the data file's digest names them.

Threat: PHI leakage in audit logs
"""

import hashlib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from app.privacy.identifier_checks import CHECKS
from app.privacy.identifier_words import WORDS_FILE, any_of
from app.privacy.linear_regex import Pattern, compiled

_FILE: Final = "identifier_rules.toml"
_MODES: Final = frozenset({"audit", "llm"})
_CAP: Final = "\\p{Lu}[\\pL'\u2019]{1,24}"
_EDGE: Final = r"(?:^|[^\pL\pN_])"
_JOIN: Final = (
    r"(?:\s{0,2}(?:\b(?i:number|numbers|num|no|nr|nos|id|ids|code|card|is|was|are|as|ending|ends|in"
    r"|with|last|four|digits|serial|n[ºo])\b\.?|[:=#|,.\-]|\)|\(|\*|\"|')){0,6}\s{0,3}"
)
_VALUE: Final = r"(\pL{0,8}[\-./_]{0,2}\pL{0,4}\pN[\pL\pN\-./_]{0,30}(?: [0-9][0-9\-]{1,8}){0,3})"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentifierRule:
    """One rule: where group 1 of `pattern` stands, there is a value of `kind`."""

    rule_id: str
    kind: str
    pattern: Pattern
    modes: frozenset[str]
    is_edged: bool
    keeps_plain: bool  # whether a value of plain words only is none
    least_digits: int
    check: Callable[[str], bool] | None
    finds: tuple[str, ...]
    spares: tuple[str, ...]


@cache
def identifier_rules() -> tuple[IdentifierRule, ...]:
    """The rules in the order of their file; compiled once a process."""
    data = tomllib.loads(_source().decode())
    return (
        *(_shape(entry) for entry in data["rule"]),
        *(_label(entry) for entry in data["label"]),
    )


@cache
def identifier_digest() -> str:
    """SHA-256 over the data files that decide what is found."""
    digest = hashlib.sha256()
    for name in (_FILE, WORDS_FILE, "person_names.txt", "plain_words.txt"):
        digest.update(files("app.privacy").joinpath(name).read_bytes())
    return "sha256:" + digest.hexdigest()


@cache
def _source() -> bytes:
    return files("app.privacy").joinpath(_FILE).read_bytes()


def _shape(entry: Mapping[str, object]) -> IdentifierRule:
    is_edged = entry.get("edge", True) is True
    pattern = _text(entry, "pattern")
    for place, words in (("{MONTH}", any_of("months")), ("{STATE}", any_of("states"))):
        pattern = pattern.replace(place, words)
    pattern = pattern.replace("{CAP}", _CAP)
    return _rule(entry, (_EDGE if is_edged else "") + pattern, is_edged=is_edged)


def _label(entry: Mapping[str, object]) -> IdentifierRule:
    pattern = f"{_EDGE}(?i:{_text(entry, 'words')})\\b{_JOIN}{_VALUE}"
    return _rule({**entry, "least_digits": 2}, pattern, is_edged=True)


def _rule(entry: Mapping[str, object], pattern: str, *, is_edged: bool) -> IdentifierRule:
    modes, check = entry.get("modes"), entry.get("check")
    least = entry.get("least_digits", 0)
    return IdentifierRule(
        rule_id=_text(entry, "id"),
        kind=_text(entry, "type"),
        pattern=compiled(pattern),
        modes=frozenset(map(str, modes)) if isinstance(modes, list) else _MODES,
        is_edged=is_edged,
        keeps_plain=entry.get("keeps_plain") is True,
        least_digits=least if isinstance(least, int) else 0,
        check=CHECKS[check] if isinstance(check, str) else None,
        finds=_texts(entry, "finds"),
        spares=_texts(entry, "spares"),
    )


def _text(entry: Mapping[str, object], name: str) -> str:
    value = entry[name]
    if not isinstance(value, str):
        raise TypeError(name)
    return value


def _texts(entry: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = entry[name]
    if not isinstance(value, list) or not value:
        raise TypeError(name)
    return tuple(map(str, value))
