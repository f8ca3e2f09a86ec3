"""Marks that must never leave: finds them in a text, plain or in the common disguises.

A hit is evidence that somebody carried protected text out. No hit proves nothing.

Threat: Prompt injection via task input
"""

import base64
import codecs
import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from app.domain.run import Json

_LETTERS: Final = 20  # of base 32: 100 bits
_SHORTEST_CORE: Final = 16  # characters of an encoded mark that all alignments share
_MAX_DEPTH: Final = 64


def canary_for(secret: bytes, place: str) -> str:
    """The mark of one place, known to nobody without `secret`; lower-case letters and digits."""
    digest = hmac.new(secret, b"meshflow/canary/v1:" + place.encode(), hashlib.sha256).digest()
    return base64.b32encode(digest).decode().lower()[:_LETTERS]


@dataclass(frozen=True, slots=True)
class Canaries:
    """The marks of one run, with every form in which they are looked for."""

    folded: tuple[str, ...]  # forms looked for in the letters and digits, in one case
    exact: tuple[str, ...]  # forms whose case matters

    @classmethod
    def of(cls, marks: Iterable[str]) -> "Canaries":
        """All forms of these marks."""
        folded: list[str] = []
        exact: list[str] = []
        for mark in marks:
            for form in (mark, mark[::-1], codecs.encode(mark, "rot13")):
                folded += (form, form.encode().hex(), form.upper().encode().hex())
                folded += _aligned(form, base64.b32encode, 5, 8)
                folded += _aligned(form.upper(), base64.b32encode, 5, 8)
            for form in (mark, mark.upper(), mark[::-1]):
                exact += _aligned(form, base64.b64encode, 3, 4)
        return cls(tuple(map(str.lower, folded)), tuple(exact))

    def are_in(self, value: Json) -> bool:
        """Whether a mark stands anywhere in the value, names included, or in all of it together."""
        joined = "".join(_texts(value, 0))
        return self._in_text(joined)

    def _in_text(self, text: str) -> bool:
        kept = "".join(char for char in text if char.isalnum() or char in "+/")
        folded = "".join(char for char in kept.lower() if char not in "+/")
        return any(form in folded for form in self.folded) or any(
            form in kept for form in self.exact
        )


NO_CANARIES: Final = Canaries((), ())


def _aligned(text: str, encode: Callable[[bytes], bytes], width: int, unit: int) -> list[str]:
    """What any text that contains this one contains when it is encoded, for each alignment."""
    cores = []
    for shift in range(width):
        raw = b"\0" * shift + text.encode()
        whole = len(raw) // width * width
        coded = encode(raw[:whole]).decode()
        core = coded[unit if shift else 0 :]
        if len(core) >= _SHORTEST_CORE:
            cores.append(core)
    return cores


def _texts(value: Json, depth: int) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list() if depth < _MAX_DEPTH:
            for item in value:
                yield from _texts(item, depth + 1)
        case dict() if depth < _MAX_DEPTH:
            for key, item in value.items():
                yield key
                yield from _texts(item, depth + 1)
        case int() | float():
            yield str(value)
        case _:
            return
