"""A tool that leaves anything of its contract open is not offered, and its name is told."""

from dataclasses import replace
from typing import Any

import pytest

from app.domain.errors import ConfigurationError
from app.domain.label import Integrity, Label
from app.domain.run import JsonObject
from app.domain.step import Effect, Role, ToolSpec
from app.tools.tool_contract import contract_gaps, require_contract

CLOSED: JsonObject = {
    "type": "object",
    "properties": {"text": {"type": "string", "maxLength": 10}},
    "required": ["text"],
    "additionalProperties": False,
}
SPEC = ToolSpec(
    name="probe",
    description="says what it is told to",
    effect=Effect.NONE,
    parameters=CLOSED,
    roles={"text": Role.CONTENT},
    labels={"": Label()},
)


def _gaps(**changed: Any) -> str:
    return "; ".join(contract_gaps(replace(SPEC, **changed)))


def test_what_declares_everything_is_taken() -> None:
    require_contract("probe", SPEC)
    assert _gaps(free_text=frozenset({"text"}), needs=frozenset({"landlock"})) == ""
    assert _gaps(labels={"/rows/*/name": Label(), "/a~1b": Label()}) == ""


def test_a_tool_under_another_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="the tool 'other' calls itself 'probe'"):
        require_contract("other", SPEC)


def test_the_refusal_names_the_tool_and_the_gap() -> None:
    with pytest.raises(ConfigurationError, match=r"'probe' does not keep .*: its result has no"):
        require_contract("probe", replace(SPEC, labels={}))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"name": "Probe"}, "its name"),
        ({"name": "pro be"}, "its name"),
        ({"name": "p" * 65}, "its name"),
        ({"name": "рrobe"}, "its name"),  # noqa: RUF001 - the first letter is not Latin
        ({"description": ""}, "its description"),
        ({"description": " \n"}, "its description"),
        ({"description": "x" * 5000}, "its description"),
        ({"description": "adds\u200b numbers"}, "invisible"),
        ({"description": "adds\U000e0061 numbers"}, "invisible"),
        ({"effect": "none at all"}, "effect class"),
        ({"roles": {}}, "the argument 'text' has no role"),
        ({"roles": {"text": "content, honestly"}}, "the argument 'text' has no role"),
        ({"roles": {"text": Role.CONTENT, "more": Role.PATH}}, "not there"),
        ({"free_text": frozenset({"more"})}, "not there"),
        (
            {"free_text": frozenset({"text"}), "roles": {"text": Role.PATH}},
            "free text but not content",
        ),
        (
            {"free_text": frozenset({"text"}), "roles": {"text": Role.RECIPIENT}},
            "free text but not content",
        ),
        ({"labels": {}}, "no label"),
        ({"labels": {"rows": Label()}}, "no JSON pointer"),
        ({"labels": {"/a~2": Label()}}, "no JSON pointer"),
        ({"labels": {"": Label(integrity=Integrity.OPERATOR)}}, "claims the word"),
        ({"labels": {"": Label(integrity=Integrity.USER)}}, "claims the word"),
        ({"timeout_seconds": 0.0}, "time limit"),
        ({"timeout_seconds": 3600.0}, "time limit"),
        ({"timeout_seconds": float("nan")}, "time limit"),
        ({"timeout_seconds": float("inf")}, "time limit"),
        ({"argument_limit_bytes": 0}, "limit on arguments"),
        ({"argument_limit_bytes": 1 << 30}, "limit on arguments"),
        ({"result_limit_bytes": 0}, "limit on results"),
        ({"result_limit_bytes": 1 << 30}, "limit on results"),
        ({"max_calls": 0}, "calls for a run"),
        ({"max_calls": 1 << 30}, "calls for a run"),
        ({"needs": frozenset({"a kernel"})}, "needs of the machine"),
    ],
)
def test_a_gap_is_told(changed: dict[str, Any], told: str) -> None:
    assert told in _gaps(**changed)


def _with(properties: JsonObject) -> JsonObject:
    return {**CLOSED, "properties": properties}


_DEEP: JsonObject = {"type": "integer"}
for _ in range(8):
    _DEEP = {"type": "array", "maxItems": 1, "items": _DEEP}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": "string", "maxLength": 5},
        {**CLOSED, "additionalProperties": True},
        {name: value for name, value in CLOSED.items() if name != "additionalProperties"},
        {name: value for name, value in CLOSED.items() if name != "required"},
        _with({"text": {"type": "string"}}),
        _with({"text": {"type": "string", "maxLength": "10"}}),
        _with({"text": {"type": "string", "maxLength": -1}}),
        _with({"text": {"type": "string", "maxLength": 1 << 40}}),
        _with({"text": {}}),
        _with({"text": {"anyOf": [{"type": "string"}]}}),
        _with({"text": {"type": ["string", "null"], "maxLength": 5}}),
        _with({"text": {"$ref": "#"}}),
        _with({"text": True}),
        _with({"list": {"type": "array", "items": {"type": "integer"}}}),
        _with({"list": {"type": "array", "maxItems": 2, "items": {}}}),
        _with({"inner": {"type": "object", "properties": {}}}),
        _with({"deep": _DEEP}),
    ],
)
def test_a_schema_that_is_not_closed_is_refused(schema: JsonObject) -> None:
    assert "not closed" in _gaps(parameters=schema)


def test_the_schema_may_hide_nothing_and_not_be_endless() -> None:
    described: JsonObject = {"type": "string", "maxLength": 5, "description": "a\u202eb"}
    assert "invisible" in _gaps(parameters=_with({"text": described}))
    described = {"type": "string", "maxLength": 5, "description": "x" * 20_000}
    assert "too long" in _gaps(parameters=_with({"text": described}))


@pytest.mark.parametrize("name", ["__class__", "Text", "a b", "a" * 65, "naïve", ""])
def test_an_argument_has_a_plain_name(name: str) -> None:
    odd = _with({name: {"type": "integer"}})
    assert "argument's name" in _gaps(parameters=odd, roles={name: Role.OPTION})
