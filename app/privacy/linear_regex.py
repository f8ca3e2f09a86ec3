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
    options = re2.Options()
    options.max_mem = _MEMORY
    options.log_errors = False
    made: Pattern = re2.compile(pattern.encode(), options)
    return made
