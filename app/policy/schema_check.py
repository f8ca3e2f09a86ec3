"""Checks values against JSON schemas of a closed, bounded subset; patterns run under RE2 only.

A schema is somebody's program: references, unbounded unions and backtracking patterns are refused
before the first value is looked at.

Threat: Privilege escalation via tool calls
"""

import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import re2
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from app.domain.errors import MeshFlowError
from app.domain.run import Json, JsonObject

MAX_SCHEMA_BYTES = 16 * 1024
MAX_DEPTH = 8
_PLAIN = frozenset(
    {
        "type",
        "title",
        "description",
        "enum",
        "const",
        "required",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "default",
        "examples",
        "$schema",
    }
)
_MAX_UNION = 8


class SchemaRefusedError(MeshFlowError):
    """A schema uses something outside the checked subset."""


def check_schema(schema: JsonObject) -> None:
    """SchemaRefusedError unless the schema stays within the subset and its bounds."""
    if len(json.dumps(schema)) > MAX_SCHEMA_BYTES:
        raise SchemaRefusedError("the schema is too long")
    _walk(schema, 1)
    try:
        Draft202012Validator.check_schema(schema)
    except Exception as error:
        raise SchemaRefusedError("not a JSON schema") from error


def first_violation(schema: JsonObject, value: Json) -> str | None:
    """The keyword that `value` violates first, or None. SchemaRefusedError on a bad schema."""
    validator = _validator(json.dumps(schema, sort_keys=True))
    error = next(validator.iter_errors(value), None)
    return None if error is None else str(error.validator)


@lru_cache(maxsize=256)
def _validator(schema: str) -> Draft202012Validator:
    parsed: JsonObject = json.loads(schema)
    check_schema(parsed)
    return _BoundedValidator(parsed)


def _walk(schema: Json, depth: int) -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise SchemaRefusedError("a schema is an object")
    if depth > MAX_DEPTH:
        raise SchemaRefusedError("the schema is nested too deep")
    for keyword, value in schema.items():
        for inner in _subschemas(keyword, value):
            _walk(inner, depth + 1)


def _subschemas(keyword: str, value: Json) -> list[Json]:
    """The schemas below a keyword; refuses what the subset does not have."""
    match keyword, value:
        case "properties", dict():
            return list(value.values())
        case "anyOf", list() if len(value) <= _MAX_UNION:
            return value
        case "items", _:
            return [value]
        case "pattern", str():
            _compiled(value)
            return []
        case "additionalProperties", bool():
            return []
        case plain, _ if plain in _PLAIN:
            return []
        case _:
            raise SchemaRefusedError("the schema uses something outside the subset")


def _compiled(pattern: Json) -> Any:
    if not isinstance(pattern, str):
        raise SchemaRefusedError("a pattern is text")
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options=options)
    except re2.error as error:
        raise SchemaRefusedError("a pattern that RE2 does not know") from error


def _pattern(_: object, pattern: str, instance: object, __: object) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _compiled(pattern).search(instance):
        yield ValidationError("the text does not match the pattern")


_KEYWORDS: dict[str, Callable[..., Any]] = {"pattern": _pattern}
_extend: Callable[..., type[Draft202012Validator]] = extend
_BoundedValidator = _extend(Draft202012Validator, _KEYWORDS)
