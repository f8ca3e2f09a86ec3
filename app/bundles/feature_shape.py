"""What a condition may ask of a feature record: its parts by name, and the words they can hold.

Derived from the record's own types, so that a part that is renamed or added is known here at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from types import MappingProxyType, NoneType, UnionType
from typing import Final, TypeAlias, Union, get_args, get_origin, get_type_hints

from app.domain.features import DecisionInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A text, a number or a flag. `words`: the only texts it can be, when there is a list."""

    is_text: bool = False
    words: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Several:
    """A bounded list of parts that are alike."""

    of: "Shape"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A record: its parts by name."""

    named: Mapping[str, "Shape"]


Shape: TypeAlias = Leaf | Several | Parts


def shape_of(kind: object) -> Shape:
    """The shape of a type that feature records are made of."""
    origin = get_origin(kind)
    if origin is Union or origin is UnionType:
        return shape_of(next(one for one in get_args(kind) if one is not NoneType))
    if origin in (tuple, frozenset):
        return Several(of=shape_of(get_args(kind)[0]))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return Leaf(is_text=True, words=frozenset(word.value for word in kind))
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return Parts(named={part.name: shape_of(hints[part.name]) for part in fields(kind)})
    return Leaf(is_text=kind is str)


def _of_the_record() -> Mapping[str, Shape]:
    shape = shape_of(DecisionInput)
    return MappingProxyType(dict(shape.named) if isinstance(shape, Parts) else {})


VARIABLES: Final[Mapping[str, Shape]] = _of_the_record()
