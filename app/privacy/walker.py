"""Walks a JSON value and gives it back with every string, key and keyed value rewritten.

It knows the shape of JSON and the names of keys; what a text hides it asks. Promises: same shape,
a value of the JSON types only, no deeper than MAX_DEPTH, no larger than MAX_SIZE, else
`UnscannableError`. Nothing is dropped: keys that become equal are numbered.

Threat: PHI leakage in audit logs
"""

import json
from collections.abc import Callable, Iterable

from app.domain.errors import MeshFlowError
from app.domain.run import Json
from app.privacy import secret_words

MAX_DEPTH = 64
MAX_SIZE = 2 << 20  # bytes of canonical JSON

_LONGEST_KEY = 100  # a longer name names nothing
_JOINTS = str.maketrans("", "", "_-. []\"'")
_STRONG = tuple(word.replace("~", "") for word in secret_words.STRONG)
_WEAK = tuple(word.replace("~", "") for word in secret_words.WEAK)
_HEADERS = ("authorization", "cookie")
_NAMES = ("name", "key", "header", "field", "variable")
_LEAST_NUMBER = 100_000  # a number beside "password" is one from six digits on


class UnscannableError(MeshFlowError):
    """The value is no JSON, too deep or too large to be looked through."""


def measured(value: Json) -> int:
    """A lower bound of the value's size in bytes; raises `UnscannableError` for what is no JSON."""
    return _measured(value, 0)


def _measured(value: Json, depth: int) -> int:
    if depth > MAX_DEPTH:
        raise UnscannableError("too deep")
    if isinstance(value, str):
        return len(value)
    if value is None or isinstance(value, (int, float)):
        return 1
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise UnscannableError("a key is no string")
        return _total(value, depth) + _total(value.values(), depth)
    if isinstance(value, list):
        return _total(value, depth)
    raise UnscannableError("no JSON type")


def _total(items: Iterable[Json], depth: int) -> int:
    total = 2
    for item in items:
        # A text is what most items are: a call for each would be most of the work.
        if isinstance(item, str) and depth < MAX_DEPTH:
            total += len(item)
        else:
            total += _measured(item, depth + 1)
        if total > MAX_SIZE:
            raise UnscannableError("too large")
    return total


class Walker:
    """Rewrites one value: `rewrite` cleans a text, `withheld` stands in for a keyed value."""

    def __init__(self, rewrite: Callable[[str], str], withheld: Callable[[], str]) -> None:
        self._rewrite = rewrite
        self._withheld = withheld

    def walked(self, value: Json, depth: int = 0) -> Json:
        """The cleaned value."""
        if depth > MAX_DEPTH:
            raise UnscannableError("too deep")
        match value:
            case str():
                return self._text(value, depth)
            case list():
                return self._list(value, depth)
            case dict():
                return self._dict(value, depth)
            case _:
                return value

    def _list(self, items: list[Json], depth: int) -> Json:
        if len(items) == 2 and isinstance(items[0], str):  # noqa: PLR2004  # a header as a pair
            return [
                self._text(items[0], depth + 1),
                self._keyed(items[0], items[1], depth + 1),
            ]
        return [self.walked(item, depth + 1) for item in items]

    def _dict(self, items: dict[str, Json], depth: int) -> Json:
        named = next((items[name] for name in _NAMES if isinstance(items.get(name), str)), None)
        out: dict[str, Json] = {}
        for key in sorted(items):
            asked = named if key.lower() in ("value", "val") and isinstance(named, str) else key
            item = self._keyed(asked, items[key], depth + 1)
            name = self._text(key, depth + 1)
            number = 2
            while name in out or (name != key and name in items):
                name = f"{self._text(key, depth + 1)}#{number}"
                number += 1
            out[name] = item
        return out

    def _keyed(self, key: str, item: Json, depth: int) -> Json:
        if isinstance(item, list):
            if depth > MAX_DEPTH:
                raise UnscannableError("too deep")
            if _is_secret_name(key) and not any(isinstance(part, list | dict) for part in item):
                return [self._keyed(key, part, depth + 1) for part in item]
            return self.walked(item, depth)
        if _names_secret(key, item):
            return self._withheld()
        return self.walked(item, depth)

    def _text(self, text: str, depth: int) -> str:
        inner = _parsed(text)
        if inner is not None and depth < MAX_DEPTH:
            clean = self.walked(inner, depth + 1)
            if clean != inner:
                text = json.dumps(clean, ensure_ascii=False)
        return self._rewrite(text)


def _parsed(text: str) -> Json:
    stripped = text.strip()
    if (stripped[:1], stripped[-1:]) not in (("{", "}"), ("[", "]")):
        return None
    try:
        inner: Json = json.loads(stripped)
        _measured(inner, 0)
    except (ValueError, RecursionError, UnscannableError):
        return None
    return inner


def _plain(key: str) -> str:
    return key[-_LONGEST_KEY:].translate(_JOINTS).lower()


def _is_secret_name(key: str) -> bool:
    plain = _plain(key)
    return plain.endswith(_STRONG) and not plain.endswith(secret_words.HARMLESS_KEYS)


def _names_secret(key: str, item: Json) -> bool:
    """Whether a leaf is a secret because of its key."""
    if isinstance(item, bool) or item is None or isinstance(item, float | dict):
        return False
    plain = _plain(key)
    if plain.endswith(secret_words.HARMLESS_KEYS):
        return False
    strong = plain.endswith(_STRONG)
    if isinstance(item, int):
        return strong and abs(item) >= _LEAST_NUMBER
    if not isinstance(item, str) or item.startswith("[SECRET:"):
        return False
    value = item.encode("utf-8", "replace")
    if strong:
        return len(value) >= secret_words.SHORTEST_VALUE and not secret_words.is_placeholder(value)
    if plain.endswith(_HEADERS):
        return any(
            secret_words.is_weak_value(part)
            for part in value.replace(b"=", b" ").replace(b";", b" ").split()
        )
    return plain.endswith(_WEAK) and secret_words.is_weak_value(value)
