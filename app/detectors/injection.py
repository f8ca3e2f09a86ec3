"""Notes what in a text looks like orders to a model: a version, a score and the rules that hit.

It annotates. A hit may lower the trust in a result, never raise it, and no hit allows nothing:
on texts that its author did not write such rules find few attacks. Linear in the text (RE2).

Threat: Prompt injection via task input
"""

import base64
import binascii
import hashlib
import tomllib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from app.domain.made_visible import made_visible
from app.privacy.linear_regex import Pattern, compiled

_RULES: Final = "injection_rules.toml"
_LONGEST: Final = (
    256 * 1024
)  # characters; what is behind them is not looked at, and the note says so
_MOST_DECODED: Final = 8
_ENCODED: Final = compiled(r"[A-Za-z0-9+/_-]{24,}={0,2}")
# Letters of other scripts that are drawn like Latin ones, and digits that stand in for them.
_LOOKALIKES: Final = str.maketrans(
    "авекмнорстухіјѕԁɡаєαβεικνορτυχ",
    "abekmhopctyxijsdgaeabeiknoptux",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectionNote:
    """What the rules said of a text. `score` lies in 0..1; `is_whole`: all of it was looked at."""

    version: str
    score: float
    rules: tuple[str, ...]
    is_whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectionRule:
    """One rule of the data file with its own examples."""

    rule_id: str
    weight: float
    pattern: Pattern
    finds: tuple[str, ...]
    spares: tuple[str, ...]


@cache
def injection_rules() -> tuple[InjectionRule, ...]:
    """The rules in the order of their file."""
    return tuple(
        InjectionRule(
            rule_id=entry["id"],
            weight=entry["weight"],
            pattern=compiled("(?s)" + entry["pattern"]),
            finds=tuple(entry["finds"]),
            spares=tuple(entry["spares"]),
        )
        for entry in tomllib.loads(_source().decode())["rule"]
    )


@cache
def injection_version() -> str:
    """The SHA-256 of the rules' bytes: the same note of the same text means the same version."""
    return "injection/1:" + hashlib.sha256(_source()).hexdigest()[:16]


@cache
def _source() -> bytes:
    return files("app.detectors").joinpath(_RULES).read_bytes()


def injection_note(text: str) -> InjectionNote:
    """The note on one text. Never raises on text; the same text gives the same note."""
    looked_at = text[:_LONGEST]
    hits: dict[str, float] = {}
    for form in _forms(looked_at):
        raw = form.encode("utf-8", "replace")
        for rule in injection_rules():
            if rule.rule_id not in hits and rule.pattern.search(raw) is not None:
                hits[rule.rule_id] = rule.weight
    clean = 1.0
    for weight in hits.values():
        clean *= 1.0 - weight
    return InjectionNote(
        version=injection_version(),
        score=round(1.0 - clean, 3),
        rules=tuple(hits),
        is_whole=len(text) <= _LONGEST,
    )


def normal_form(text: str) -> str:
    """The text as the rules read it: visible, NFKC, lower case, look-alikes folded, one space."""
    plain = unicodedata.normalize("NFKC", made_visible(text)).lower().translate(_LOOKALIKES)
    lines = (" ".join(line.split()) for line in plain.splitlines())
    return "\n".join(line for line in lines if line)


def _forms(text: str) -> Iterator[str]:
    lines = normal_form(text)
    yield lines
    yield lines.replace("\n", " ")
    for number, found in enumerate(_ENCODED.finditer(text.encode("utf-8", "replace"))):
        if number == _MOST_DECODED:
            return
        decoded = _decoded(found.group() or b"")
        if decoded is not None:
            yield normal_form(decoded)


def _decoded(raw: bytes) -> str | None:
    stripped = raw.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        text = base64.b64decode(stripped + b"=" * (-len(stripped) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return text if text.isprintable() or "\n" in text else None
