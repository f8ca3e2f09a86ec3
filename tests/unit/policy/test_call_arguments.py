"""R1 at `tool.call`: arguments fit a closed schema to the letter and hide nothing from a reader."""

import unicodedata
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import roster
from app.domain.run import JsonObject
from app.domain.step import Effect, ToolSpec
from app.domain.verdict import Deny, Point
from app.policy.gate import DascGate
from app.policy.gate_inputs import CallInput
from tests.support.planted_rules import allowed, call_of, facts_with, refused

GATE = DascGate(roster.rule_book())


def of_call(name: str = "write_file", /, **arguments: Any) -> CallInput:
    return CallInput(call=call_of(name, **arguments), facts=facts_with())


# One of each family of characters that nobody sees: formats, joiners, bidi controls, tags, fillers,
# selectors, private use, and code points that mean nothing yet.
HIDDEN = {
    "nul": "\x00",
    "soft hyphen": "\u00ad",
    "grapheme joiner": "\u034f",
    "arabic letter mark": "\u061c",
    "hangul filler": "\u115f",
    "mongolian separator": "\u180e",
    "mongolian selector": "\u180b",
    "zero width space": "\u200b",
    "zero width joiner": "\u200d",
    "left to right mark": "\u200e",
    "right to left override": "\u202e",
    "pop directional": "\u202c",
    "word joiner": "\u2060",
    "invisible times": "\u2062",
    "first strong isolate": "\u2068",
    "half width filler": "\uffa0",
    "hangul letter filler": "\u3164",
    "variation selector 1": "\ufe00",
    "byte order mark": "\ufeff",
    "annotation anchor": "\ufff9",
    "shorthand format": "\U0001bca0",
    "musical begin beam": "\U0001d173",
    "language tag": "\U000e0001",
    "tag letter a": "\U000e0061",
    "cancel tag": "\U000e007f",
    "variation selector 17": "\U000e0100",
    "private use": "\ue000",
    "supplementary private use": "\U000f0000",
    "no character": "\uffff",
    "half a surrogate pair": "\ud800",
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_hidden_character_in_a_value_is_refused(name: str) -> None:
    subject = of_call(path="a.txt", content=f"be{HIDDEN[name]}fore")
    assert refused(Point.TOOL_CALL, subject) == "schema:invisible_characters"


@pytest.mark.parametrize("name", HIDDEN)
def test_a_hidden_character_in_a_key_is_refused(name: str) -> None:
    subject = of_call(**{"path": "a", "content": "b", f"con{HIDDEN[name]}tent": "c"})
    assert refused(Point.TOOL_CALL, subject) == "schema:invisible_characters"


@pytest.mark.parametrize("name", HIDDEN)
def test_a_hidden_character_deep_inside_is_refused(name: str) -> None:
    hidden: list[Any] = [1, {"a": [[HIDDEN[name]]]}]
    subject = of_call(path="a", content="b", more=hidden)
    assert refused(Point.TOOL_CALL, subject) == "schema:invisible_characters"


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "äöü ß é",
        "日本語",
        "עברית",
        "हिन्दी",
        "a\tb\nc\r\n",
        "\u00a0",
        "❤\ufe0f 👍🏽 1\ufe0f\u20e3",
    ],
)
def test_text_that_people_write_is_no_hidden_text(text: str) -> None:
    assert allowed(Point.TOOL_CALL, of_call(path="a.txt", content=text))


# Each reads like another text, and is that text in form NFKC.
DISGUISED = {
    "full width letters": "\uff53ecret.txt",
    "full width dots": "\uff0e\uff0e/a",
    "full width slash": "a\uff0fb",
    "two dots in one": "\u2025/a",
    "ligature": "\ufb01le",
    "kelvin sign": "\u212a",
    "superscript": "a\u00b2",
    "circled": "\u24d0",
    "mathematical letters": "\U0001d41a",
    "accent of its own": "re\u0301sume\u0301",
    "no-break space": "a\u00a0b",
    "half width kana": "\uff76",
}


@pytest.mark.parametrize("how", DISGUISED)
def test_a_name_that_is_another_in_disguise_is_refused(how: str) -> None:
    assert refused(Point.TOOL_CALL, of_call(path=DISGUISED[how], content="x")) == (
        "schema:not_canonical"
    )
    plain = unicodedata.normalize("NFKC", DISGUISED[how])
    assert plain != DISGUISED[how]
    assert allowed(Point.TOOL_CALL, of_call(path=plain, content="x"))


@pytest.mark.parametrize("how", DISGUISED)
def test_what_is_written_into_a_file_keeps_its_own_letters(how: str) -> None:
    assert allowed(Point.TOOL_CALL, of_call(path="a.txt", content=DISGUISED[how]))


@pytest.mark.parametrize("how", DISGUISED)
def test_a_disguise_deep_inside_is_refused(how: str) -> None:
    parameters: JsonObject = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"names": {"type": "array", "items": {"type": "object"}}},
    }
    spec = ToolSpec(name="lister", description="", effect=Effect.NONE, parameters=parameters)
    facts = replace(facts_with(), offered=(spec,), declared=None)
    for hidden in ({"k": [DISGUISED[how]]}, {DISGUISED[how]: 1}):
        subject = CallInput(call=call_of("lister", names=[hidden]), facts=facts)
        assert refused(Point.TOOL_CALL, subject) == "schema:not_canonical"
    plain = CallInput(call=call_of("lister", names=[{"k": ["plain"]}]), facts=facts)
    assert allowed(Point.TOOL_CALL, plain)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30))
def test_whatever_names_something_is_in_the_one_form(text: str) -> None:
    if allowed(Point.TOOL_CALL, of_call(path=text, content="x")):
        assert unicodedata.normalize("NFKC", text) == text


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=20), st.text(max_size=20), st.characters(categories=("Cf", "Cs", "Co", "Cn"))
)
def test_no_format_character_anywhere_is_let_through(before: str, after: str, char: str) -> None:
    assert not allowed(Point.TOOL_CALL, of_call(path="a", content=before + char + after))


MISFITS: dict[str, tuple[str, JsonObject]] = {
    "extra key": ("write_file", {"path": "a", "content": "b", "append": True}),
    "missing": ("write_file", {"path": "a"}),
    "nothing": ("write_file", {}),
    "null": ("write_file", {"path": "a", "content": None}),
    "number for text": ("write_file", {"path": "a", "content": 7}),
    "truth for text": ("write_file", {"path": True, "content": "b"}),
    "list for text": ("write_file", {"path": ["a"], "content": "b"}),
    "object for text": ("write_file", {"path": {"a": 1}, "content": "b"}),
    "too long": ("write_file", {"path": "a" * 5000, "content": "b"}),
    "truth for a number": ("read_file", {"path": "a", "offset": True}),
    "falsehood for a number": ("read_file", {"path": "a", "offset": False}),
    "text for a number": ("read_file", {"path": "a", "offset": "1"}),
    "fraction for a number": ("read_file", {"path": "a", "offset": 1.5}),
    "below the least": ("read_file", {"path": "a", "offset": -1}),
    "above the most": ("read_file", {"path": "a", "offset": 1 << 50}),
    "another case of a key": ("write_file", {"Path": "a", "content": "b"}),
    "look-alike key": ("write_file", {"p\u0430th": "a", "content": "b"}),
}


@pytest.mark.parametrize("name", MISFITS)
def test_arguments_that_do_not_fit_to_the_letter_are_refused(name: str) -> None:
    tool, arguments = MISFITS[name]
    subject = replace(of_call(), call=replace(call_of(tool), arguments=arguments))
    assert refused(Point.TOOL_CALL, subject) == "schema:arguments"


def test_arguments_that_are_no_object_are_refused() -> None:
    not_an_object: Any = ["path", "content"]
    subject = replace(of_call(), call=replace(call_of(), arguments=not_an_object))
    assert refused(Point.TOOL_CALL, subject) == "schema:arguments"


def test_arguments_as_long_as_a_book_are_refused() -> None:
    subject = of_call(path="a", content="b" * (256 * 1024))
    assert refused(Point.TOOL_CALL, subject) == "schema:arguments_too_long"


def test_arguments_nested_beyond_reading_are_refused() -> None:
    deep: Any = "x"
    for _ in range(5_000):
        deep = [deep]
    assert refused(Point.TOOL_CALL, of_call(path="a", content=deep)) == "gate_error:rule_raised"


arguments_of_any_kind = st.dictionaries(
    st.sampled_from(["path", "content", "offset", "mode", "expression"]) | st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@settings(max_examples=400, deadline=None)
@given(arguments_of_any_kind)
def test_whatever_is_let_through_has_exactly_the_declared_arguments(arguments: JsonObject) -> None:
    answer = GATE.tool_call(
        CallInput(call=replace(call_of(), arguments=arguments), facts=facts_with())
    )
    if not isinstance(answer, Deny):
        assert set(arguments) == {"path", "content"}
        assert all(type(value) is str for value in arguments.values())
