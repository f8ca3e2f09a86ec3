"""Canonical JSON for ledger/v1: one value, one spelling, so a hash of bytes is one of meaning.

Source: docs/ledger-format.md section 2; the restricted profile agrees with RFC 8785 on its domain.

Threat: Ledger tampering
"""

import json
import re
from functools import lru_cache
from typing import Never

from app.domain.run import Json

MAX_INTEGER = 2**53 - 1
MAX_HEADER_BYTES = 8 * 1024
MAX_HEADER_DEPTH = 6
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
)
_KEY = re.compile(r"[a-z0-9_.]{1,64}", re.ASCII)


class CanonicalError(ValueError):
    """A value or a byte string lies outside the canonical profile."""


def canonical(value: Json) -> bytes:
    """The one spelling of `value` in the restricted profile. CanonicalError outside it."""
    _check(value, 1)
    return spelled(value)


def spelled(value: Json) -> bytes:
    """The same for a value that is known to be in the profile: its size alone is looked at."""
    encoded = _dump(value)
    if len(encoded) > MAX_HEADER_BYTES:
        raise CanonicalError("longer than 8 KiB")
    return encoded


def parse_canonical(data: bytes) -> Json:
    """The value of canonical bytes. CanonicalError unless `data` is its one spelling."""
    if len(data) > MAX_HEADER_BYTES:
        raise CanonicalError("longer than 8 KiB")
    try:
        value: Json = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_float=_no_float,
            parse_constant=_no_float,
            parse_int=_small_integer,
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise CanonicalError("not JSON") from error
    if canonical(value) != data:
        raise CanonicalError("not in canonical form")
    return value


def _dump(value: Json) -> bytes:
    text = _ENCODER.encode(value)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CanonicalError("a lone surrogate") from error


def _check(value: Json, depth: int) -> None:
    # bool is an int to Python, so it goes first. Tuples and not unions: those are slow to ask.
    if value is None or isinstance(value, (str, bool)):
        return
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise CanonicalError("an integer beyond 2^53-1")
        return
    if isinstance(value, float):
        raise CanonicalError("a float")
    if depth > MAX_HEADER_DEPTH:
        raise CanonicalError("nested deeper than 6")
    if isinstance(value, list):
        for item in value:
            _check(item, depth + 1)
        return
    for key, item in value.items():
        if not _is_key(key):
            raise CanonicalError("a key outside [a-z0-9_.]{1,64}")
        _check(item, depth + 1)


@lru_cache(maxsize=1024)
def _is_key(key: str) -> bool:
    return _KEY.fullmatch(key) is not None


def _no_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise CanonicalError("a key twice")
    return value


def _no_float(_: str) -> Never:
    raise CanonicalError("a float")


def _small_integer(digits: str) -> int:
    # int() on a long run of digits is quadratic, so the length is looked at first.
    if len(digits) > 17:  # noqa: PLR2004 - a sign and the sixteen digits of 2^53-1, and one to be refused
        raise CanonicalError("an integer beyond 2^53-1")
    return int(digits)
