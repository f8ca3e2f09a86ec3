"""Writes a last value or an exception as Monty's own command writes it; a pure text step.

A value that is not surely written alike is not written: whoever asks has another way.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from app.sandbox.monty_wire import Failed, Place, as_bytes, as_number, fields, varint

_SHOWN_PROGRAM: Final = "<python>"
_MOST_VISITS: Final = 5_000
_MOST_VALUE_BYTES: Final = 64 * 1024
_MOST_DEPTH: Final = 50
_PLAIN_FLOAT: Final = re.compile(r"-?\d{1,15}\.\d{1,17}")
_PLAIN_TEXT: Final = re.compile(r"[ -&(-\[\]-~]*")  # no quotes within, no backslash, ASCII
_SHOWN_REPEATS: Final = 3
_TEXT, _LIST, _TUPLE, _SET = 8, 11, 12, 15  # kinds of values, by their fields


def shown_value(message: bytes) -> str | None:
    """How the value of a last expression is shown, or None when that is not known. ValueError."""
    if len(message) > _MOST_VALUE_BYTES:
        return None
    told = dict(fields(message))
    nodes = [value for number, value in fields(as_bytes(told.get(2, b""))) if number == 2]  # noqa: PLR2004 - the values
    root = as_number(told.get(1, 0))
    if root >= len(nodes):
        raise ValueError("the value is not there")
    kind, body = _kind(as_bytes(nodes[root]))
    if kind == _TEXT:
        return as_bytes(body).decode()
    try:
        return _Values(nodes).shown(root, 0)
    except _NotKnownError:
        return None


class _NotKnownError(Exception):
    """The value is none that is written here."""


class _Values:
    """The values of one message, which name each other by their places."""

    def __init__(self, nodes: Sequence[int | bytes]) -> None:
        self._nodes = nodes
        self._visits = 0

    def shown(self, place: int, depth: int) -> str:
        """As inside a container. _NotKnownError, ValueError."""
        self._visits += 1
        if self._visits > _MOST_VISITS or depth > _MOST_DEPTH or place >= len(self._nodes):
            raise _NotKnownError
        kind, body = _kind(as_bytes(self._nodes[place]))
        if isinstance(body, int):
            return _whole(kind, body)
        match kind:
            case 2:
                return "None"
            case 7:
                return _float(body)
            case 8:
                return _quoted(body.decode())
            case 14:
                return f"{{{self._pairs(body, depth)}}}"
            case _:
                return self._container(kind, body, depth)

    def _container(self, kind: int, body: bytes, depth: int) -> str:
        if kind not in (_LIST, _TUPLE, _SET):
            raise _NotKnownError
        items = ", ".join(self.shown(place, depth + 1) for place in _places(body))
        if kind == _LIST:
            return f"[{items}]"
        if kind == _TUPLE:
            return f"({items})"
        return f"{{{items}}}" if items else "set()"

    def _pairs(self, body: bytes, depth: int) -> str:
        shown = []
        for _, value in fields(body):
            pair = dict(fields(as_bytes(value)))
            key, held = (self.shown(as_number(pair.get(at, 0)), depth + 1) for at in (1, 2))
            shown.append(f"{key}: {held}")
        return ", ".join(shown)


def shown_error(failed: Failed) -> str:
    """The traceback and the exception, as they are shown when a program ends with one."""
    lines = [] if not failed.places else ["Traceback (most recent call last):"]
    for _, group in groupby(failed.places, key=lambda place: (place.line, place.name)):
        places = list(group)
        for place in places[:_SHOWN_REPEATS]:
            lines += _lines(place)
        more = len(places) - _SHOWN_REPEATS
        if more > 0:
            lines.append(f"  [Previous line repeated {more} more time{'s' if more > 1 else ''}]")
    message = "" if failed.message is None else f": {failed.message}"
    return "\n".join([*lines, failed.kind + message])


def _lines(place: Place) -> Iterator[str]:
    within = "" if place.name is None else f", in {place.name}"
    yield f'  File "{_SHOWN_PROGRAM}", line {place.line}{within}'
    source = place.source.strip()
    if not source:
        return
    yield f"    {source}"
    if place.shows_caret and place.line == place.end_line:
        before = place.column - 1 - (len(place.source) - len(place.source.lstrip()))
        width = max(place.end_column - place.column, 1)
        if 0 <= before <= len(place.source) and width <= len(place.source):
            yield "    " + " " * before + "~" * width


def _kind(node: bytes) -> tuple[int, int | bytes]:
    for number, value in fields(node):
        return number, value
    raise ValueError("a value is empty")


def _places(packed: bytes) -> Iterator[int]:
    for _, value in fields(packed):
        at, places = 0, as_bytes(value)
        while at < len(places):
            place, at = varint(places, at)
            yield place


def _signed(value: int) -> int:
    return value >> 1 ^ -(value & 1)


def _whole(kind: int, value: int) -> str:
    match kind:
        case 4:
            return "True" if value else "False"
        case 5:
            return str(_signed(value))
        case _:
            raise _NotKnownError


def _float(body: bytes) -> str:
    if len(body) != 8:  # noqa: PLR2004 - a double
        raise ValueError("a number is cut")
    shown = repr(struct.unpack("<d", body)[0])
    if not _PLAIN_FLOAT.fullmatch(shown):
        raise _NotKnownError
    return shown


def _quoted(text: str) -> str:
    if not _PLAIN_TEXT.fullmatch(text):
        raise _NotKnownError
    return f"'{text}'"
