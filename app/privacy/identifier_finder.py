"""Finds what identifies a person in a text: every rule once, merged, and what was found everywhere.

Two modes: `audit` for what is kept (recall first), `llm` for what a model reads (utility first).
Linear in the text. Offsets are bytes of the text as it came.

Threat: PHI leakage in audit logs
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from app.privacy.identifier_rules import IdentifierRule, identifier_rules
from app.privacy.identifier_words import words_of_list
from app.privacy.linear_regex import Pattern, compiled, quoted
from app.privacy.name_words import known_name
from app.privacy.person_names import names_in, words_of
from app.privacy.shadow import shadow_of

NAME: Final = "NAME"
_TRAILING: Final = b".,;:-/ '\"|^"
_MOST_KNOWN: Final = 256
_SHORTEST_KNOWN: Final = 3


class Mode(StrEnum):
    """What the scrubbed text is for."""

    AUDIT = "audit"
    LLM = "llm"


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One identifier: where it stands, and of what kind it is."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class Known:
    """What is known to identify a person before a text is read: values, and words of names."""

    values: tuple[tuple[str, str], ...] = ()  # kind, value
    names: frozenset[str] = frozenset()

    def with_found(self, found: Iterable[tuple[str, str]]) -> "Known":
        """This and what a text held, bounded: the first ones stay."""
        pairs = dict.fromkeys((*self.values, *found))
        kept = tuple(pairs)[:_MOST_KNOWN]
        return Known(kept, words_of(value for kind, value in kept if kind == NAME))


def findings(raw: bytes, mode: Mode, known: Known | None = None) -> list[Finding]:
    """Every identifier in a UTF-8 text, in order, without overlaps."""
    shadow = shadow_of(raw)
    text = shadow.text
    found = [
        Finding(start, end, rule.kind)
        for rule in identifier_rules()
        if mode in rule.modes
        for start, end in places(rule, text)
    ]
    found += [
        Finding(start, end, NAME) for start, end in names_in(text, is_audit=mode is Mode.AUDIT)
    ]
    known = Known() if known is None else known
    everywhere = known.with_found(
        (NAME, text[one.start : one.end].decode("utf-8", "replace"))
        for one in found
        if one.kind == NAME
    )
    found += _known_places(text, everywhere)
    return [
        Finding(*shadow.origin(one.start, one.end), one.kind)
        for one in merged(found)
        if one.end > one.start
    ]


def merged(found: Iterable[Finding]) -> list[Finding]:
    """Overlapping findings as one, of the kind of the longest."""
    out: list[Finding] = []
    for one in sorted(found, key=lambda item: (item.start, -item.end)):
        if out and one.start < out[-1].end:
            last = out[-1]
            kind = last.kind if last.end - last.start >= one.end - one.start else one.kind
            out[-1] = Finding(last.start, max(last.end, one.end), kind)
        else:
            out.append(one)
    return out


def places(rule: IdentifierRule, text: bytes) -> Iterator[tuple[int, int]]:
    """Where one rule finds its value in a plain copy of a text."""
    for match in rule.pattern.finditer(text):
        start, end = match.start(1), match.end(1)
        while end > start and text[end - 1] in _TRAILING:
            end -= 1
        if rule.is_edged and _goes_on(text, end):
            continue
        if not (rule.check or rule.least_digits or rule.keeps_plain):
            yield start, end
            continue
        value = text[start:end].decode("utf-8", "replace")
        if rule.least_digits and sum(map(str.isdigit, value)) < rule.least_digits:
            continue
        if rule.check is not None and not rule.check(value):
            continue
        if rule.keeps_plain and _is_plain(value):
            continue
        yield start, end


def _goes_on(text: bytes, end: int) -> bool:
    after = text[end : end + 4].decode("utf-8", "ignore")[:1]
    return after.isalnum() or after == "_"


def _is_plain(value: str) -> bool:
    """Whether a value is one ordinary word, or ordinary words behind a word like `the`."""
    words = [word for word in value.replace("-", " ").split() if word[:1].isupper()]
    if any(not known_name(word).is_plain or known_name(word).is_family for word in words[:1]):
        return False
    return len(words) <= 1 or words[0].lower() in words_of_list("determiners")


def _known_places(text: bytes, known: Known) -> Iterator[Finding]:
    names = sorted(word for word in known.names if len(word) >= _SHORTEST_KNOWN)
    if names:
        for match in _alternatives(tuple(names)).finditer(text):
            if not _goes_on(text, match.end(1)):
                yield Finding(match.start(1), match.end(1), NAME)
    for kind, value in known.values:
        if kind != NAME and len(value) >= _SHORTEST_KNOWN:
            for match in _alternatives((value,)).finditer(text):
                if not _goes_on(text, match.end(1)):
                    yield Finding(match.start(1), match.end(1), kind)


@lru_cache(maxsize=512)
def _alternatives(words: tuple[str, ...]) -> Pattern:
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    return compiled(r"(?i)(?:^|[^\pL\pN_])(" + "|".join(map(quoted, longest_first)) + ")")
