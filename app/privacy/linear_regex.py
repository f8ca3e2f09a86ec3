"""The one way this room gets a regular expression: RE2 over UTF-8 bytes, linear in the text.

There is no look-around and no back-reference, and no text makes it slow. RE2's message about an
exhausted automaton is switched off: nothing here may print; it then goes on by a slower way.

Threat: PHI leakage in audit logs
"""

from collections.abc import Iterator
from typing import Protocol

import re2

_MEMORY = 64 << 20  # bytes one automaton may use before RE2 starts it afresh


class Match(Protocol):
    """What RE2 found; offsets are bytes."""

    def group(self, group: int = 0) -> bytes | None:
        """The bytes of a group, or None when it took no part."""

    def start(self, group: int = 0) -> int:
        """Where a group begins, -1 when it took no part."""

    def end(self, group: int = 0) -> int:
        """Where a group ends, -1 when it took no part."""


class Pattern(Protocol):
    """A compiled expression over bytes."""

    @property
    def groups(self) -> int:
        """How many capturing groups it has."""

    @property
    def programsize(self) -> int:
        """How many instructions it was compiled to."""

    def search(self, text: bytes, pos: int = 0) -> Match | None:
        """The leftmost match from `pos` on."""

    def match(self, text: bytes) -> Match | None:
        """The match at the beginning."""

    def fullmatch(self, text: bytes) -> Match | None:
        """The match of all of it."""

    def finditer(self, text: bytes) -> Iterator[Match]:
        """All matches that do not overlap, left to right."""


def compiled(pattern: str) -> Pattern:
    """The expression, or `re2.error` when RE2 cannot take it."""
    made: Pattern = re2.compile(pattern.encode(), _options(_MEMORY))
    return made


def compiled_within(pattern: str, memory: int) -> Pattern | None:
    """An expression of somebody who is not trusted, or None when RE2 or the memory refuses it.

    Matching takes at most about the text's bytes times `programsize` steps, whatever the two are.
    """
    try:
        made: Pattern = re2.compile(pattern.encode(), _options(memory))
    except (re2.error, UnicodeEncodeError):
        return None
    return made


def quoted(text: str) -> str:
    """An expression that means this text and nothing else."""
    plain: str = re2.escape(text)
    return plain


def _options(memory: int) -> re2.Options:
    options = re2.Options()
    options.max_mem = memory
    options.log_errors = False
    return options
