"""A copy of a text in plain form to look for things in, with the way back to the text as it came.

NFKC, hidden characters out, digits of all scripts as ASCII, and one level of HTML entities, percent
signs and JSON escapes read. What is found in the copy is cut in the text as it came. UTF-8 bytes.

Threat: PHI leakage in audit logs
"""

import html
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

from app.domain.visible_text import is_hidden
from app.privacy.linear_regex import compiled

_WRITTEN_OTHERWISE: Final = compiled(
    r"[^\x00-\x7f]+|&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});|%[2-7][0-9A-Fa-f]"
    r"|\\u[0-9A-Fa-f]{4}|\\[ntr\"/]"
)
_SIMPLE_ESCAPES: Final = {b"\\n": "\n", b"\\t": "\t", b"\\r": "\r", b'\\"': '"', b"\\/": "/"}
_SIGNS: Final = frozenset(b"\x80&%\\")


@dataclass(frozen=True, slots=True)
class Shadow:
    """The copy; `starts` and `shifts` say from which place on it lags how far behind."""

    text: bytes
    starts: tuple[int, ...]
    pieces: tuple[tuple[int, int, int, int], ...]  # start and end here, start and end there

    def origin(self, start: int, end: int) -> tuple[int, int]:
        """Where a piece of the copy stands in the text; of a rewritten one always the whole."""
        if not self.starts:
            return start, end
        return self._place(start, is_end=False), self._place(end, is_end=True)

    def _place(self, at: int, *, is_end: bool) -> int:
        index = bisect_right(self.starts, at - 1 if is_end else at) - 1
        if index < 0:
            return at
        here, here_end, there, there_end = self.pieces[index]
        if at - 1 < here_end and is_end and at > here:
            return there_end
        if here <= at < here_end and not is_end:
            return there
        return at - here_end + there_end


def shadow_of(raw: bytes) -> Shadow:
    """The copy of a text; plain ASCII is its own copy."""
    if raw.isascii() and b"&" not in raw and b"%" not in raw and b"\\" not in raw:
        return Shadow(raw, (), ())
    made: list[bytes] = []
    pieces: list[tuple[int, int, int, int]] = []
    at = length = 0
    for found in _WRITTEN_OTHERWISE.finditer(raw):
        start, end = found.start(), found.end()
        old = raw[start:end]
        new = _plain(old)
        if new == old:
            continue
        made.append(raw[at:start])
        length += start - at
        if old[0] >= 0x80:  # noqa: PLR2004 - the first byte of what is not ASCII
            for there, there_end, plain in _by_character(old, start):
                made.append(plain)
                pieces.append((length, length + len(plain), there, there_end))
                length += len(plain)
        else:
            made.append(new)
            pieces.append((length, length + len(new), start, end))
            length += len(new)
        at = end
    made.append(raw[at:])
    return Shadow(b"".join(made), tuple(piece[0] for piece in pieces), tuple(pieces))


def _plain(old: bytes) -> bytes:
    if old[0] >= 0x80:  # noqa: PLR2004 - as above
        return "".join(map(_character, old.decode("utf-8", "replace"))).encode()
    if old[:1] == b"&":
        text = html.unescape(old.decode())
    elif old[:1] == b"%":
        text = chr(int(old[1:], 16))
    elif old[:2] == b"\\u":
        code = int.from_bytes(bytes.fromhex(old[2:].decode()))
        text = chr(code) if not 0xD800 <= code < 0xE000 else "?"  # noqa: PLR2004 - surrogates
    else:
        text = _SIMPLE_ESCAPES[old]
    return "".join(map(_character, text)).encode()


def _by_character(old: bytes, start: int) -> list[tuple[int, int, bytes]]:
    out = []
    at = start
    for char in old.decode("utf-8", "replace"):
        size = len(char.encode())
        out.append((at, at + size, _character(char).encode()))
        at += size
    return out


def _character(char: str) -> str:
    if is_hidden(char):
        return ""
    if char.isascii():
        return char
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    return unicodedata.normalize("NFKC", char).replace("\u2019", "'").replace("\u2011", "-")
