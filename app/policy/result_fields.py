"""Takes a result apart into records and labelled fields; what no label reaches is untrusted.

A record is the result itself or an element of a list in it; a field is a plain value in a record.
Bounded: what lies beyond the bounds is left out, and what is left out proves nothing.

Threat: Prompt injection via task input
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from app.domain.label import Label, is_trusted
from app.domain.run import Json
from app.domain.step import EFFECTFUL, FieldCondition, ResultLabel, ToolSpec
from app.policy.authority import kind_form

MAX_FIELDS = 4096
MAX_DEPTH = 16
Path: TypeAlias = tuple[str, ...]
_ID_NAMES = frozenset({"id", "id_", "_id", "uid", "uuid"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One plain value. `kind` is that of the object whose id it is, where the catalogue says so."""

    name: str
    value: str | int | float | bool
    label: Label
    kind: str | None = None

    @property
    def is_trusted(self) -> bool:
        """Whether somebody answers for it."""
        return is_trusted(self.label.integrity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The fields that belong to one thing, and where it stands among its like.

    `group` is the place of the list with `*` for every index, `parent` the number of the record
    that the list belongs to; the result itself is record 0 of group "".
    """

    number: int
    parent: int | None
    group: str
    position: int
    size: int
    fields: tuple[Field, ...]
    is_plain: bool = False  # an element that is a value and no object


def value_of(content: str) -> Json:
    """What a tool's text says: the JSON that it is, or the text."""
    if content[:1] not in ("{", "["):
        return content
    try:
        value: Json = json.loads(content)
    except (ValueError, RecursionError):
        return content
    return value


def records_of(
    value: Json, spec: ToolSpec, told: Mapping[str, Label] | None = None
) -> tuple[Record, ...]:
    """The records of a result of this tool. `told` are labels that came with the result itself."""
    return _Walk(value, _Labels(value, spec, told or {})).records()


@dataclass(slots=True)
class _Open:
    """A record that is still being read."""

    number: int
    parent: int | None
    group: str
    position: int
    size: int
    fields: list[Field]
    is_plain: bool = False


class _Walk:
    """One pass over a result, in its order."""

    def __init__(self, root: Json, labels: "_Labels") -> None:
        self._root = root
        self._labels = labels
        self._open: list[_Open] = []
        self._left = MAX_FIELDS

    def records(self) -> tuple[Record, ...]:
        """All records that have fields, and those that records belong to."""
        self._record(self._root, (), None, "", (0, 1))
        return tuple(
            Record(
                number=made.number,
                parent=made.parent,
                group=made.group,
                position=made.position,
                size=made.size,
                fields=tuple(made.fields),
                is_plain=made.is_plain,
            )
            for made in self._open
        )

    def _record(
        self, value: Json, path: Path, parent: int | None, group: str, place: tuple[int, int]
    ) -> None:
        made = _Open(len(self._open), parent, group, *place, [])
        made.is_plain = parent is not None and not isinstance(value, dict | list)
        self._open.append(made)
        self._inside(value, path, made, group)

    def _inside(self, value: Json, path: Path, record: _Open, group: str) -> None:
        if self._left <= 0 or len(path) > MAX_DEPTH:
            return
        match value:
            case dict():
                for name, inner in value.items():
                    self._inside(inner, (*path, name), record, f"{group}/{name}")
            case list():
                for at, inner in enumerate(value):
                    below = f"{group}/*"
                    self._record(inner, (*path, str(at)), record.number, below, (at, len(value)))
            case None:
                return
            case _:
                self._left -= 1
                label, kind = self._labels.of(path)
                name = next((step for step in reversed(path) if not step.isdigit()), "")
                record.fields.append(Field(name=name, value=value, label=label, kind=kind))


class _Labels:
    """Which label stands at which place of one result."""

    def __init__(self, root: Json, spec: ToolSpec, told: Mapping[str, Label]) -> None:
        self._root = root
        # What a tool that changes things says of itself as a whole is an echo of its arguments.
        echoes = spec.effect in EFFECTFUL
        declared = [
            (steps_of(path), ResultLabel(path=path, label=label))
            for path, label in spec.labels.items()
            if path or not echoes
        ]
        declared += [
            (steps_of(said.path), said) for said in spec.results if said.path or not echoes
        ]
        self._declared = declared
        self._told = [(steps_of(path), label) for path, label in told.items()]

    def of(self, path: Path) -> tuple[Label, str | None]:
        """The label of a place, and the kind of object whose id stands there."""
        fitting = [
            (len(steps), said)
            for steps, said in self._declared
            if _covers(steps, path) and _holds(said.when, self._root, path)
        ]
        longest = max((length for length, _ in fitting), default=-1)
        found = [said for length, said in fitting if length == longest]
        label = found[-1].label if found else None
        kind = next((said.kind for said in reversed(found) if said.kind), None)
        told = [(len(steps), it) for steps, it in self._told if _covers(steps, path)]
        if told:
            given = max(told, key=lambda one: one[0])[1]
            # What the caller says of its own tool stands where the catalogue says nothing;
            # elsewhere it can take trust away and not add any.
            label = given if label is None or longest == 0 else label.join(given)
        return label or Label(), kind_form(kind) if kind and longest == len(path) else None


def steps_of(pointer: str) -> Path:
    """The steps of a JSON pointer (RFC 6901)."""
    if not pointer:
        return ()
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer[1:].split("/"))


def _covers(steps: Path, path: Path) -> bool:
    """Whether a pointer with `*` names this place or one above it."""
    return len(steps) <= len(path) and all(
        step in ("*", at) for step, at in zip(steps, path, strict=False)
    )


def _holds(when: FieldCondition | None, root: Json, path: Path) -> bool:
    """Whether the condition of a label is fulfilled for the field at this place."""
    if when is None:
        return True
    if when.path.startswith("/"):
        named = steps_of(when.path)
        place = [
            path[at] if step == "*" and at < len(path) else step for at, step in enumerate(named)
        ]
    else:
        place = _beside(when.path, root, path)
    found = list(_at(root, place))
    return bool(found) and type(found[0]) is type(when.equals) and found[0] == when.equals


def _beside(name: str, root: Json, path: Path) -> list[str]:
    """The place of a name in the innermost object around a field; `../` goes one object out."""
    up = 0
    while name.startswith("../"):
        name, up = name[3:], up + 1
    place = list(path)
    while place:
        place.pop()
        if isinstance(next(_at(root, place), None), dict):
            if up == 0:
                break
            up -= 1
    return [*place, *name.split("/")]


def _at(root: Json, place: Sequence[str]) -> Iterator[Json]:
    """What stands at a place, if anything does."""
    value = root
    for step in place:
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return
    yield value


def is_id_name(name: str) -> bool:
    """Whether a field of this name holds an id, as far as its name says."""
    low = name.casefold()
    return low in _ID_NAMES or low.endswith("_id") or name.endswith("Id")
