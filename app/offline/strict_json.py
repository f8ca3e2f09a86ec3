"""Strict JSON of a bundle: no member twice, no floats, one way of writing it, and typed members.

Whatever a hostile file holds, reading it raises BrokenError and nothing else.

Threat: Ledger tampering
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias, Union

Json: TypeAlias = Union[None, bool, int, float, str, list["Json"], dict[str, "Json"]]

LARGEST = 2**53 - 1
_HEX = re.compile(r"[0-9a-f]*")
_LONGEST_NUMBER = 16


class BrokenError(Exception):
    """Something does not hold; `reason` says what, in words that hold no content."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnusableError(Exception):
    """The input is no bundle, no policy, or cannot be read: nothing can be said about it."""


def parse(data: bytes) -> Json:
    """The value that these bytes write, in the profile of section 2 but with free keys."""
    try:
        value: Json = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_members_once,
            parse_constant=_refused,
            parse_float=_refused,
            parse_int=_integer,
        )
    except (ValueError, RecursionError):
        raise BrokenError("is not JSON of the restricted profile") from None
    return value


def canonical(value: Json) -> bytes:
    """The one way of writing a value: sorted keys, no spaces, minimal escapes."""
    try:
        return json.dumps(
            value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
        ).encode("utf-8")
    except (ValueError, RecursionError):
        raise BrokenError("cannot be written as JSON") from None


def parse_canonical(data: bytes) -> Json:
    """A value whose bytes are the one way of writing it."""
    value = parse(data)
    if canonical(value) != data:
        raise BrokenError("is not written in the one canonical way")
    return value


def _members_once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member twice")
    return members


def _refused(_text: str) -> Json:
    raise ValueError("floats and constants are not in the profile")


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > _LONGEST_NUMBER or abs(int(text)) > LARGEST:
        raise ValueError("an integer beyond 2^53 - 1")
    return int(text)


def from_base64(text: str) -> bytes:
    """Standard base64 with padding, in its one form."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        raise BrokenError("is not base64") from None
    if base64.b64encode(data).decode("ascii") != text:
        raise BrokenError("is not base64 in its one form")
    return data


class Row:
    """An object with exactly these members, each read as the type it must have."""

    def __init__(self, value: Json, names: Sequence[str]) -> None:
        if not isinstance(value, dict) or value.keys() != set(names):
            raise BrokenError(f"has not exactly the members {', '.join(sorted(names))}")
        self._members: Mapping[str, Json] = value

    def is_null(self, name: str) -> bool:
        """Whether the member says that it does not apply."""
        return self._members[name] is None

    def value(self, name: str) -> Json:
        """The member as it is."""
        return self._members[name]

    def integer(self, name: str) -> int:
        """A whole number that is not negative."""
        value = self._members[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise BrokenError(f"{name} is not a whole number")
        return value

    def text(self, name: str) -> str:
        """A string."""
        value = self._members[name]
        if not isinstance(value, str):
            raise BrokenError(f"{name} is not text")
        return value

    def hexadecimal(self, name: str, size: int) -> bytes:
        """So many bytes in lower-case hex."""
        value = self._members[name]
        if not isinstance(value, str) or len(value) != 2 * size or not _HEX.fullmatch(value):
            raise BrokenError(f"{name} is not {2 * size} lower-case hex digits")
        return bytes.fromhex(value)

    def raw(self, name: str, size: int | None = None) -> bytes:
        """Bytes in base64, of this length if one is given."""
        try:
            data = from_base64(self.text(name))
        except BrokenError:
            raise BrokenError(f"{name} is not base64") from None
        if size is not None and len(data) != size:
            raise BrokenError(f"{name} is not {size} bytes long")
        return data

    def items(self, name: str) -> list[Json]:
        """An array."""
        value = self._members[name]
        if not isinstance(value, list):
            raise BrokenError(f"{name} is not an array")
        return value

    def path(self, name: str) -> tuple[bytes, ...]:
        """The hashes of a proof, in base64."""
        found: list[bytes] = []
        for item in self.items(name):
            data = from_base64(item) if isinstance(item, str) else b""
            if len(data) != 32:  # noqa: PLR2004 - SHA-256
                raise BrokenError(f"{name} holds something that is no hash")
            found.append(data)
        return tuple(found)

    def sizes(self, name: str) -> dict[str, int]:
        """Log id in hex to the size of that log."""
        value = self._members[name]
        if not isinstance(value, dict):
            raise BrokenError(f"{name} is not an object")
        found: dict[str, int] = {}
        for log, size in value.items():
            if len(log) != 32 or not _HEX.fullmatch(log):  # noqa: PLR2004 - 16 bytes in hex
                raise BrokenError(f"{name} names something that is no log")
            if not isinstance(size, int) or isinstance(size, bool) or size < 0:
                raise BrokenError(f"{name} holds a size that is no whole number")
            found[log] = size
        return found
