"""Schemas are a closed, bounded subset; within it the answer is that of plain JSON Schema."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from app import roster
from app.domain.run import Json, JsonObject
from app.policy.schema_check import (
    MAX_DEPTH,
    MAX_SCHEMA_BYTES,
    SchemaRefusedError,
    check_schema,
    first_violation,
)

OUTSIDE: dict[str, Any] = {
    "$ref": "#",
    "$dynamicRef": "#a",
    "$recursiveRef": "#",
    "$defs": {},
    "definitions": {},
    "$id": "https://example.test/schema",
    "$anchor": "a",
    "$dynamicAnchor": "a",
    "$vocabulary": {},
    "patternProperties": {"(a+)+$": {}},
    "propertyNames": {},
    "dependentSchemas": {},
    "dependentRequired": {},
    "dependencies": {},
    "allOf": [{}],
    "oneOf": [{}],
    "not": {},
    "if": {},
    "then": {},
    "else": {},
    "contains": {},
    "prefixItems": [{}],
    "unevaluatedProperties": False,
    "unevaluatedItems": False,
    "uniqueItems": True,
    "multipleOf": 0.01,
    "format": "uri",
    "contentEncoding": "base64",
    "minProperties": 1,
    "maxProperties": 1,
    "made-up": 1,
    "": 1,
}


def refused(schema: Json) -> bool:
    given_schema: Any = schema
    try:
        check_schema(given_schema)
    except SchemaRefusedError:
        return True
    return False


@pytest.mark.parametrize("keyword", OUTSIDE)
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_keyword_outside_the_subset_is_refused_at_any_depth(keyword: str, depth: int) -> None:
    schema: JsonObject = {keyword: OUTSIDE[keyword]}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": {"anyOf": [{"items": schema}]}}}
    assert refused(schema)


@pytest.mark.parametrize("keyword", OUTSIDE)
def test_a_refused_schema_checks_no_value(keyword: str) -> None:
    with pytest.raises(SchemaRefusedError):
        first_violation({keyword: OUTSIDE[keyword]}, {})


@pytest.mark.parametrize(
    "schema",
    [
        {"additionalProperties": {}},
        {"additionalProperties": {"$ref": "#"}},
        {"properties": []},
        {"properties": {"a": 1}},
        {"properties": {"a": [{}]}},
        {"items": 1},
        {"items": [{}]},
        {"anyOf": {}},
        {"anyOf": []},
        {"anyOf": [{}] * 9},
        {"anyOf": ["string"]},
        {"pattern": 1},
        {"pattern": "("},
        {"pattern": "(?=a)"},
        {"pattern": r"(a)\1"},
        {"type": "nonsense"},
        {"type": 1},
        {"required": "a"},
        {"required": ["a", "a"]},
        {"minLength": -1},
        {"maximum": "9"},
        {"enum": 1},
        [],
        "string",
        1,
        None,
    ],
)
def test_a_schema_that_is_none_is_refused(schema: Json) -> None:
    assert refused(schema)


def nested(depth: int) -> JsonObject:
    schema: JsonObject = {"type": "string"}
    for _ in range(depth - 1):
        schema = {"items": schema}
    return schema


def test_depth_size_and_unions_are_bounded() -> None:
    check_schema(nested(MAX_DEPTH))
    assert refused(nested(MAX_DEPTH + 1))
    check_schema({"anyOf": [{"type": "string"}] * 8})
    check_schema({"description": "a" * (MAX_SCHEMA_BYTES - 100)})
    assert refused({"description": "a" * MAX_SCHEMA_BYTES})


def test_a_schema_nested_beyond_reading_is_refused_or_raises_but_never_passes() -> None:
    with pytest.raises((SchemaRefusedError, RecursionError)):
        check_schema(nested(50_000))


@pytest.mark.parametrize("tool", roster.TOOLS, ids=lambda tool: tool.spec.name)
def test_the_schema_of_every_tool_is_within_the_subset(tool: Any) -> None:
    check_schema(tool.spec.parameters)


HOSTILE = "a" * (256 * 1024 - 1) + "!"


@pytest.mark.parametrize(
    "pattern",
    [
        "^(a+)+$",
        "^(a|aa)+$",
        "^(a|a)*$",
        "^([a-z]+)*$",
        "^(.*a){20}$",
        "(x+x+)+y",
        "^(a?){50}a{50}$",
    ],
)
def test_a_pattern_that_would_backtrack_for_ever_answers(pattern: str) -> None:
    # Under a backtracking engine this test does not end.
    schema: JsonObject = {"type": "string", "pattern": pattern}
    assert first_violation(schema, HOSTILE) == "pattern"


def test_a_pattern_is_searched_for_as_json_schema_has_it() -> None:
    assert first_violation({"pattern": "b"}, "abc") is None
    assert first_violation({"pattern": "^b"}, "abc") == "pattern"
    assert first_violation({"pattern": "^[0-9]+$"}, "12\n") == "pattern"
    assert first_violation({"pattern": "b"}, 7) is None


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer"}, True),
        ({"type": "number"}, False),
        ({"type": "boolean"}, 1),
        ({"type": "boolean"}, 0),
        ({"enum": [1]}, True),
        ({"enum": [False]}, 0),
        ({"const": 0}, False),
        ({"const": [1]}, [True]),
        ({"const": {"a": 1}}, {"a": True}),
    ],
)
def test_numbers_and_truths_are_not_taken_for_each_other(schema: JsonObject, value: Json) -> None:
    assert first_violation(schema, value) is not None


scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "ab", "b1"])
names = st.sampled_from(["a", "b", "c"])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
small = st.integers(0, 3)
types = st.sampled_from(["string", "integer", "number", "boolean", "null", "array", "object"])
plain_keywords: dict[str, st.SearchStrategy[Any]] = {
    "type": types | st.lists(types, min_size=1, max_size=3, unique=True),
    "enum": st.lists(scalars, min_size=1, max_size=3),
    "const": scalars,
    "required": st.lists(names, unique=True),
    "minimum": small,
    "maximum": small,
    "exclusiveMinimum": small,
    "exclusiveMaximum": small,
    "minLength": small,
    "maxLength": small,
    "minItems": small,
    "maxItems": small,
    "pattern": st.sampled_from(["a", "^a", "b$", "^[a-z]*$", "[0-9]", "^$"]),
    "additionalProperties": st.booleans(),
    "title": st.just("t"),
}


def schemas_over(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keywords = {
        **plain_keywords,
        "properties": st.dictionaries(names, inner, max_size=3),
        "items": inner,
        "anyOf": st.lists(inner, min_size=1, max_size=3),
    }
    return st.fixed_dictionaries({}, optional=keywords)


schemas = st.recursive(
    st.fixed_dictionaries({}, optional=plain_keywords), schemas_over, max_leaves=6
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schemas, values)
def test_within_the_subset_the_answer_is_plain_json_schemas(
    schema: JsonObject, value: Json
) -> None:
    plain = Draft202012Validator(schema).is_valid(value)
    assert (first_violation(schema, value) is None) == plain
