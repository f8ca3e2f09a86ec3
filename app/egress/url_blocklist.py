"""The blocklist of URLs and bodies: the first layer, an early and clear no, not the boundary.

The patterns that are shipped stand in `url_blocklist.toml`; an operator's file adds to them and
cannot take one away. Matched under RE2 on the text as it was written and as a server would read it.

Threat: Exfiltration via web/shell tools
"""

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import re2

from app.domain.errors import ConfigurationError
from app.privacy.linear_regex import Pattern, compiled

_MAX_PATTERNS = 1000
_MAX_PATTERN_CHARS = 500
_UNWRAPPINGS = 3  # percent-encoding within percent-encoding is taken off so often
_WHERE = ("url", "body", "both")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One pattern: what it is called, and whether it looks at URLs, bodies or both."""

    name: str
    pattern: Pattern
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlBlocklist:
    """Patterns in force. Without entries it finds nothing; the boundary does not rest on it."""

    entries: tuple[Entry, ...] = ()

    def finds(self, written: str, normal: str, body: bytes | None) -> str | None:
        """The name of the first entry that matches, or None. Linear in the texts."""
        urls = tuple(_readings(written.encode("utf-8", "replace"), normal.encode()))
        bodies = () if body is None else tuple(_readings(body))
        for entry in self.entries:
            in_urls = entry.where != "body" and _matches(entry, urls)
            if in_urls or (entry.where != "url" and _matches(entry, bodies)):
                return entry.name
        return None


def _matches(entry: Entry, texts: Sequence[bytes]) -> bool:
    return any(entry.pattern.search(text) is not None for text in texts)


def _readings(*texts: bytes) -> Iterator[bytes]:
    """Each text as it stands and with its percent-encoding taken off, in lower case."""
    for text in texts:
        reading = text
        for _ in range(_UNWRAPPINGS + 1):
            yield reading.lower()
            inner = unquote_to_bytes(reading)
            if inner == reading:
                break
            reading = inner


def blocklist(documents: Sequence[bytes]) -> UrlBlocklist:
    """All entries of all documents: a later one adds. ConfigurationError names the bad entry."""
    entries: dict[str, Entry] = {}
    for document in documents:
        for name, entry in _entries(document):
            if name in entries:
                raise ConfigurationError(f"the URL blocklist names '{name[:64]}' twice")
            entries[name] = entry
    if len(entries) > _MAX_PATTERNS:
        raise ConfigurationError("the URL blocklist has too many entries")
    return UrlBlocklist(entries=tuple(entries.values()))


def _entries(document: bytes) -> Iterator[tuple[str, Entry]]:
    try:
        read = tomllib.loads(document.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise ConfigurationError("the URL blocklist is not TOML") from None
    for name, facts in read.items():
        told = f"the entry '{name[:64]}' of the URL blocklist"
        if not isinstance(facts, dict) or not {"pattern", "why"} <= facts.keys():
            raise ConfigurationError(f"{told} needs a pattern and a why")
        if facts.keys() - {"pattern", "why", "where"}:
            raise ConfigurationError(f"{told} has a word that is not known")
        pattern, where = facts["pattern"], facts.get("where", "both")
        if not isinstance(pattern, str) or not 0 < len(pattern) <= _MAX_PATTERN_CHARS:
            raise ConfigurationError(f"{told} has no pattern of at most {_MAX_PATTERN_CHARS}")
        if where not in _WHERE:
            raise ConfigurationError(f"{told} is for url, body or both")
        try:
            yield name, Entry(name=name, pattern=compiled(pattern), where=where)
        except re2.error:
            raise ConfigurationError(f"{told} is not a pattern of RE2") from None
