"""Takes the arguments of a call apart and says what each value is to the call.

What the catalogue declares stands; the rest is guessed by the names and formats of a general
table. A guess is never milder than what it replaces: an unknown text is something to be proven.

Threat: Prompt injection via task input
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from app.domain.run import Json, JsonObject
from app.domain.step import Effect, Role, ToolSpec
from app.policy.authority import kind_form, kind_of_name, name_words, noun_of, same_kind
from app.policy.gate_words import MAKING, ROLE_OF_FORMAT, ROLE_WORDS
from app.policy.value_forms import dates_in, fold

MAX_LEAVES = 512
_PLAIN_WORD = re.compile(r"[\w.:+@/-]{1,40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One plain value in the arguments of a call. `argument` is the name in feature records."""

    argument: str
    name: str
    value: str | int | float | bool
    role: Role
    kind: str | None  # of the object that it names
    is_declared_kind: bool
    is_low_capacity: bool
    is_enumerated: bool = False
    is_new: bool = False
    is_paid: bool = False  # of a call that pays


def leaves_of(arguments: JsonObject, spec: ToolSpec) -> tuple[Leaf, ...] | None:
    """Every plain value of the arguments, or None where there are too many to judge."""
    properties = spec.parameters.get("properties")
    schemas = properties if isinstance(properties, dict) else {}
    found: list[Leaf] = []
    for name, value in arguments.items():
        schema = schemas.get(name)
        for path, leaf in _plain_values(value, ()):
            if len(found) >= MAX_LEAVES:
                return None
            found.append(_leaf(spec, name, path, leaf, _schema_at(schema, path)))
    return tuple(found)


def safe_name(name: str) -> str:
    """A name as feature records may hold it."""
    plain = "_".join(word for word in name_words(name) if word.isascii())
    return re.sub(r"[^a-z0-9_.-]", "", plain)[:64] or "argument"


def _plain_values(
    value: Json, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str | int | float | bool]]:
    match value:
        case dict():
            for name, inner in value.items():
                yield from _plain_values(inner, (*path, name))
        case list():
            for at, inner in enumerate(value):
                yield from _plain_values(inner, (*path, str(at)))
        case None:
            return
        case _:
            yield path, value


def _schema_at(schema: Json, path: tuple[str, ...]) -> JsonObject:
    for step in path:
        if not isinstance(schema, dict):
            return {}
        properties = schema.get("properties")
        inner = properties.get(step) if isinstance(properties, dict) else None
        schema = inner if inner is not None else schema.get("items")
    return schema if isinstance(schema, dict) else {}


def _leaf(
    spec: ToolSpec,
    name: str,
    path: tuple[str, ...],
    value: str | float | bool,
    schema: JsonObject,
) -> Leaf:
    last = next((step for step in reversed(path) if not step.isdigit()), name)
    role = _declared_role(spec, name, path) or _guessed_role(last, value, schema)
    declared = spec.object_kinds.get(name) or spec.object_kinds.get(last)
    kind = kind_form(declared) if declared else kind_of_name(last, spec.name)
    made = kind_made_by(spec)
    return Leaf(
        argument=safe_name(name),
        name=last,
        value=value,
        role=role,
        kind=kind,
        is_declared_kind=declared is not None,
        is_low_capacity=_is_low_capacity(value, schema),
        is_enumerated=isinstance(value, bool) or isinstance(schema.get("enum"), list),
        is_paid=spec.effect is Effect.PAY,
        is_new=made is not None and (kind is None or same_kind(made, kind)),
    )


def kind_made_by(spec: ToolSpec) -> str | None:
    """The kind of object that a call makes: declared, or guessed from a name that says so."""
    if spec.creates is not None:
        return kind_form(spec.creates)
    words = name_words(spec.name)
    makes = spec.effect is Effect.WRITE and bool(words) and words[0] in MAKING
    return noun_of(spec.name) if makes else None


def _declared_role(spec: ToolSpec, name: str, path: tuple[str, ...]) -> Role | None:
    """The role at the longest pointer that covers this value, or that of the argument."""
    steps = (name, *path)
    for length in range(len(steps), 0, -1):
        for spelled in (_pointer(steps[:length]), _pointer(_starred(steps[:length]))):
            if spelled in spec.roles:
                return spec.roles[spelled]
    return spec.roles.get(name)


def _pointer(steps: tuple[str, ...]) -> str:
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


def _starred(steps: tuple[str, ...]) -> tuple[str, ...]:
    return tuple("*" if step.isdigit() else step for step in steps)


def _guessed_role(name: str, value: str | float | bool, schema: JsonObject) -> Role:
    if isinstance(value, bool) or isinstance(schema.get("enum"), list):
        return Role.OPTION
    formatted = schema.get("format")
    if isinstance(formatted, str) and formatted in ROLE_OF_FORMAT:
        return ROLE_OF_FORMAT[formatted]
    words = name_words(name)
    # `user_id` is an id before it is a user; `file_path` a path before it is a file.
    if words and words[-1] in ("id", "ids", "uuid"):
        return Role.OBJECT
    for role, known in ROLE_WORDS:
        if words and words[-1] in known:
            return role
    for role, known in ROLE_WORDS:
        if known.intersection(words):
            return role
    return Role.OPTION if isinstance(value, int | float) else Role.ATTRIBUTE


def _is_low_capacity(value: str | float | bool, schema: JsonObject) -> bool:
    """Whether a value can carry hardly more than a choice (policy section 5.3)."""
    if not isinstance(value, str) or isinstance(schema.get("enum"), list):
        return True
    return _PLAIN_WORD.fullmatch(value) is not None or bool(
        len(value) <= 40 and dates_in(fold(value))  # noqa: PLR2004 - as for a plain word
    )
