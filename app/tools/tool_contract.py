"""What every tool must declare before it may be offered: the contract, checked without running it.

A declaration that leaves anything open is refused at start, by the tool's name; nothing is filled
in for it.

Threat: Privilege escalation via tool calls
"""

import json
import re
from collections.abc import Iterator, Mapping

from app.domain.errors import ConfigurationError
from app.domain.label import Integrity
from app.domain.run import Json, JsonObject
from app.domain.step import TOOL_NAME, Effect, Role, ToolSpec
from app.domain.visible_text import hides_something, shows_something

MAX_DESCRIPTION_CHARS = 4096
MAX_SCHEMA_BYTES = 16 * 1024
MAX_SCHEMA_DEPTH = 8
MAX_TIMEOUT_SECONDS = 60.0
MAX_ARGUMENT_BYTES = 256 * 1024
MAX_RESULT_BYTES = 1024 * 1024
MAX_CALLS = 10_000

_ARGUMENT_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_EFFECTS = frozenset(Effect)
_NEED = re.compile(r"[a-z0-9_]{1,64}", re.ASCII)
_POINTER = re.compile(r"(?:/(?:[^/~\x00-\x1f]|~[01])*)*")
# Text that is kept letter for letter may only be what is looked at or run, never a name.
_FREE_ROLES = frozenset({Role.CONTENT, Role.COMMAND, Role.QUERY})
# No tool speaks for the operator or the user: what it gives back came from somewhere else.
_TOO_TRUSTED = frozenset({Integrity.OPERATOR, Integrity.USER})


def require_contract(name: str, spec: ToolSpec) -> None:
    """ConfigurationError, with the tool's name and the first gap, unless all is declared."""
    if name != spec.name:
        raise ConfigurationError(f"the tool '{name}' calls itself '{spec.name}'")
    gap = next(contract_gaps(spec), None)
    if gap is not None:
        raise ConfigurationError(f"the tool '{name}' does not keep the tool contract: {gap}")


def contract_gaps(spec: ToolSpec) -> Iterator[str]:
    """What a declaration lacks or leaves open, in plain words; nothing when it is whole."""
    if TOOL_NAME.fullmatch(spec.name) is None:
        yield "its name is not of a-z, 0-9, _, . and -"
    if not shows_something(spec.description) or len(spec.description) > MAX_DESCRIPTION_CHARS:
        yield "its description is empty or too long"
    if hides_something(spec.description) or hides_something(spec.parameters):
        yield "its description or schema holds invisible characters"
    if spec.effect not in _EFFECTS:
        yield "its effect class is unknown"
    open_end = _open_end(spec.parameters, MAX_SCHEMA_DEPTH)
    if open_end is None and spec.parameters.get("type") != "object":
        open_end = "it is not an object"
    if open_end is not None:
        yield f"its schema is not closed: {open_end}"
        return
    if len(json.dumps(spec.parameters)) > MAX_SCHEMA_BYTES:
        yield "its schema is too long"
    yield from _argument_gaps(spec)
    yield from _result_gaps(spec)
    yield from _limit_gaps(spec)


def _open_end(schema: Json, depth: int) -> str | None:
    """Where a parameter schema leaves room for more than it says, or None when it is closed."""
    if not isinstance(schema, dict):
        return "it is not an object"
    if depth == 0:
        return "it is nested too deep"
    match schema.get("type"):
        case "object":
            return _open_object(schema, depth)
        case "string":
            bounded = _is_bound(schema.get("maxLength")) or isinstance(schema.get("enum"), list)
            return None if bounded else "a string has no maxLength"
        case "array":
            if not _is_bound(schema.get("maxItems")):
                return "an array has no maxItems"
            return _open_end(schema.get("items"), depth - 1)
        case "integer" | "number" | "boolean" | "null":
            return None
        case _:
            return "a value has no plain type"


def _open_object(schema: JsonObject, depth: int) -> str | None:
    properties = schema.get("properties")
    if not isinstance(properties, dict) or schema.get("additionalProperties") is not False:
        return "an object takes names it does not list"
    if not isinstance(schema.get("required"), list):
        return "an object does not say what it requires"
    below = (_open_end(inner, depth - 1) for inner in properties.values())
    return next(filter(None, below), None)


def _is_bound(value: Json) -> bool:
    return type(value) is int and 0 <= value <= MAX_RESULT_BYTES


def _argument_gaps(spec: ToolSpec) -> Iterator[str]:
    properties = spec.parameters["properties"]
    declared: Mapping[str, Json] = properties if isinstance(properties, dict) else {}
    for name, schema in declared.items():
        if _ARGUMENT_NAME.fullmatch(name) is None:
            yield "an argument's name is not of a-z, 0-9 and _"
        if not isinstance(spec.roles.get(name), Role):
            yield f"the argument '{name}' has no role"
        is_text = isinstance(schema, dict) and schema.get("type") == "string"
        if name in spec.free_text and not (is_text and spec.roles.get(name) in _FREE_ROLES):
            yield f"the argument '{name}' is free text but not content, a command or a query"
    if spec.roles.keys() - declared.keys():
        yield "a role is given to an argument that is not there"
    if spec.free_text - declared.keys():
        yield "free text is an argument that is not there"


def _result_gaps(spec: ToolSpec) -> Iterator[str]:
    if not spec.labels:
        yield "its result has no label"
    for path, label in spec.labels.items():
        if _POINTER.fullmatch(path) is None:
            yield "a label stands at something that is no JSON pointer"
        if label.integrity in _TOO_TRUSTED:
            yield "a result claims the word of the operator or the user"


def _limit_gaps(spec: ToolSpec) -> Iterator[str]:
    if not 0 < spec.timeout_seconds <= MAX_TIMEOUT_SECONDS:
        yield f"its time limit is not within {MAX_TIMEOUT_SECONDS:g} s"
    if not 0 < spec.argument_limit_bytes <= MAX_ARGUMENT_BYTES:
        yield f"its limit on arguments is not within {MAX_ARGUMENT_BYTES} bytes"
    if not 0 < spec.result_limit_bytes <= MAX_RESULT_BYTES:
        yield f"its limit on results is not within {MAX_RESULT_BYTES} bytes"
    if not 0 < spec.max_calls <= MAX_CALLS:
        yield f"its calls for a run are not within {MAX_CALLS}"
    if any(_NEED.fullmatch(need) is None for need in spec.needs):
        yield "what it needs of the machine is not a plain word"
