"""Turns frozen records of plain parts into JSON and back, exactly; what does not fit is refused.

Parts are texts, whole numbers, flags, closed enumerations, records, tuples and sets of these, and
any of them or None. Sets are sorted, so that equal records have equal JSON in every process.
"""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum, StrEnum
from functools import lru_cache
from types import NoneType, UnionType
from typing import TypeVar, Union, get_args, get_origin, get_type_hints

from app.domain.errors import RecordFormError
from app.domain.run import Json

_Made = TypeVar("_Made")
_Reader = Callable[[Json], object]
_MAX_LENGTH = 256  # of any list within a record


def plain(value: object) -> Json:
    """The JSON of a record or a part of one. RecordFormError for what is no such part."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, frozenset):
        return [*sorted(str(plain(item)) for item in value)]
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {part.name: plain(getattr(value, part.name)) for part in fields(value)}
    raise RecordFormError("a part that has no JSON")


def revive(kind: type[_Made], value: Json) -> _Made:
    """The record whose JSON this is. RecordFormError for any part too many, missing or amiss."""
    wanted: object = kind
    made = _reader(wanted)(value)
    if not isinstance(made, kind):
        raise RecordFormError("not the record that was asked for")
    return made


@lru_cache(maxsize=256)
def _reader(kind: object) -> _Reader:
    """What reads a part of this type."""
    origin = get_origin(kind)
    if origin is Union or origin is UnionType:
        return _optional(_reader(next(one for one in get_args(kind) if one is not NoneType)))
    if origin is tuple:
        return _sequence(_reader(get_args(kind)[0]), tuple)
    if origin is frozenset:
        return _sequence(_reader(get_args(kind)[0]), frozenset)
    if isinstance(kind, type):
        if issubclass(kind, StrEnum):
            return _word(kind)
        if kind in (str, int, bool):
            return _exact(kind)
        if is_dataclass(kind):
            return _record(kind)
    raise RecordFormError("a type that has no JSON")


def _optional(inner: _Reader) -> _Reader:
    return lambda value: None if value is None else inner(value)


def _sequence(inner: _Reader, make: Callable[[list[object]], object]) -> _Reader:
    def read(value: Json) -> object:
        if not isinstance(value, list) or len(value) > _MAX_LENGTH:
            raise RecordFormError("not a list, or too long a one")
        return make([inner(item) for item in value])

    return read


def _word(kind: type[StrEnum]) -> _Reader:
    words: dict[Json, StrEnum] = {word.value: word for word in kind}

    def read(value: Json) -> object:
        found = words.get(value) if isinstance(value, str) else None
        if found is None:
            raise RecordFormError("a word that is not of the list")
        return found

    return read


def _exact(kind: type) -> _Reader:
    def read(value: Json) -> object:
        if type(value) is not kind:
            raise RecordFormError("a part of another type")
        return value

    return read


def _record(kind: type) -> _Reader:
    hints = get_type_hints(kind)
    readers = {part.name: _reader(hints[part.name]) for part in fields(kind)}

    def read(value: Json) -> object:
        if not isinstance(value, dict) or value.keys() != readers.keys():
            raise RecordFormError("a part too many, or one that is missing")
        return kind(**{name: reader(value[name]) for name, reader in readers.items()})

    return read
