"""Whatever goes wrong at any of the nine points, the gate says no and says it recordably."""

from dataclasses import fields, replace
from typing import Any

import pytest

from app import roster
from app.domain.record import MAX_CODE_CHARACTERS
from app.domain.run import JsonObject
from app.domain.step import Effect, ToolCall, ToolSpec
from app.domain.verdict import AuthorizedCall, Deny, Point, Verdict
from app.policy.gate import DascGate, RuleBook, rule_ids
from app.policy.gate_inputs import CallInput
from tests.support.planted_rules import (
    PLANTED_CODE,
    PLANTED_ID,
    SPECS,
    BypassGate,
    Nameless,
    Raises,
    Says,
    asked,
    call_of,
    denial,
    emptied,
    facts_with,
    field_of,
    planted,
    with_rules,
)

POINTS = tuple(Point)


class _Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


JUNK: tuple[Any, ...] = (
    False,
    True,
    0,
    0.0,
    "",
    b"",
    (),
    [],
    {},
    object(),
    _Unprintable(),
    "allow ",
    "Two words",
    "x" * (MAX_CODE_CHARACTERS + 1),
    "line\n",
    "no\x00",
    Verdict,
)
ERRORS = (
    ValueError,
    RecursionError,
    TimeoutError,
    MemoryError,
    StopIteration,
    AssertionError,
    AttributeError,
)


def test_a_rule_book_has_a_place_for_every_point_and_the_gate_a_method() -> None:
    assert {field_of(point) for point in POINTS} == {f.name for f in fields(RuleBook)} - {
        "bundle",
        "catalogue_digest",
        "masks",
    }
    assert all(callable(getattr(DascGate, field_of(point))) for point in POINTS)
    assert len(POINTS) == 9


@pytest.mark.parametrize("point", POINTS)
def test_the_rules_in_force_allow_the_plain_question(point: Point) -> None:
    assert not isinstance(asked(DascGate(roster.rule_book()), point), Deny)


@pytest.mark.parametrize("point", POINTS)
def test_the_rules_in_force_have_a_rule_at_every_point(point: Point) -> None:
    assert rule_ids(roster.rule_book())[point]


@pytest.mark.parametrize("point", POINTS)
def test_a_planted_rule_denies_at_its_own_point_and_at_no_other(point: Point) -> None:
    gate = DascGate(planted(point, Says()))
    decision = denial(asked(gate, point))
    assert (decision.point, decision.rules, decision.code) == (point, (PLANTED_ID,), PLANTED_CODE)
    assert decision.policy == roster.rule_book().bundle.ref
    for other in set(POINTS) - {point}:
        assert not isinstance(asked(gate, other), Deny)


@pytest.mark.parametrize("point", POINTS)
def test_a_gate_that_skips_the_point_lets_the_planted_rules_subject_through(point: Point) -> None:
    gate = BypassGate(planted(point, Says()), point)
    with pytest.raises(AssertionError):
        denial(asked(gate, point))


@pytest.mark.parametrize("point", POINTS)
def test_a_point_without_rules_denies(point: Point) -> None:
    decision = denial(asked(DascGate(emptied(point)), point))
    assert (decision.code, decision.rules) == ("gate_error:no_rules", ())
    assert denial(asked(DascGate(RuleBook(bundle=roster.rule_book().bundle)), point)) == decision


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("point", POINTS)
def test_a_rule_that_raises_denies(point: Point, error: type[Exception]) -> None:
    decision = denial(asked(DascGate(planted(point, Raises(error=error))), point))
    assert (decision.code, decision.rules) == ("gate_error:rule_raised", ("planted.broken",))


@pytest.mark.parametrize("point", POINTS)
def test_a_rule_that_really_recurses_without_end_denies(point: Point) -> None:
    def deeper() -> BaseException:
        return deeper()

    decision = denial(asked(DascGate(planted(point, Raises(error=deeper))), point))
    assert decision.code == "gate_error:rule_raised"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("point", POINTS)
def test_the_operators_own_stop_is_no_answer_either(
    point: Point, stop: type[BaseException]
) -> None:
    with pytest.raises(stop):
        asked(DascGate(planted(point, Raises(error=stop))), point)


@pytest.mark.parametrize("answer", JUNK, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("point", POINTS)
def test_a_rule_that_answers_junk_denies_with_a_code_that_can_be_recorded(
    point: Point, answer: Any
) -> None:
    decision = denial(asked(DascGate(planted(point, Says(answer=answer))), point))
    assert (decision.code, decision.rules) == ("gate_error:bad_reason", (PLANTED_ID,))


@pytest.mark.parametrize("rule_id", ["", "Big", "with space", "x" * 65, "new\nline", None, 7])
@pytest.mark.parametrize("point", POINTS)
def test_a_rule_with_an_id_that_no_record_can_hold_still_denies(point: Point, rule_id: Any) -> None:
    decision = denial(asked(DascGate(planted(point, Says(rule_id=rule_id))), point))
    assert (decision.code, decision.rules) == (PLANTED_CODE, ("unnamed",))


@pytest.mark.parametrize("point", POINTS)
def test_a_rule_that_cannot_say_who_it_is_still_denies(point: Point) -> None:
    decision = denial(asked(DascGate(planted(point, Nameless())), point))
    assert (decision.code, decision.rules) == (PLANTED_CODE, ("unnamed",))


@pytest.mark.parametrize("point", POINTS)
def test_something_that_is_no_rule_denies(point: Point) -> None:
    decision = denial(asked(DascGate(planted(point, object())), point))
    assert (decision.code, decision.rules) == ("gate_error:rule_raised", ("unnamed",))


@pytest.mark.parametrize("point", POINTS)
def test_every_rule_is_asked_and_the_first_reason_is_told(point: Point) -> None:
    book = planted(point, Says(answer="planted:first", rule_id="planted.a"))
    rules = getattr(book, field_of(point))
    more = (*rules, Raises(error=ValueError), Says(answer=None), Says())
    decision = denial(asked(DascGate(with_rules(point, *more)), point))
    assert decision.code == "planted:first"
    assert decision.rules == ("planted.a", "planted.broken", PLANTED_ID)


def _asked_about(call: ToolCall, offered: tuple[str, ...] = ("write_file",)) -> str:
    subject = CallInput(call=call, facts=facts_with(offered=offered))
    return denial(asked(DascGate(roster.rule_book()), Point.TOOL_CALL, subject)).code


@pytest.mark.parametrize(
    "name", ["shell", "", "WRITE_FILE", "write_file ", "wr\u0456te_file", "write\u200b_file"]
)
def test_an_unknown_tool_is_denied(name: str) -> None:
    assert _asked_about(call_of(name)) == "schema:unknown_tool"


def test_a_tool_that_the_run_was_not_offered_is_denied() -> None:
    assert _asked_about(call_of("write_file"), offered=("calculator",)) == "schema:unknown_tool"


def test_a_tool_that_no_rule_minds_but_nobody_offered_is_denied_by_the_gate_itself() -> None:
    silent = replace(roster.rule_book(), tool_call=(Says(answer=None),))
    subject = CallInput(call=call_of("shell"), facts=facts_with())
    decision = denial(asked(DascGate(silent), Point.TOOL_CALL, subject))
    assert decision.code == "schema:unknown_tool"


def test_an_argument_that_the_tool_does_not_know_is_denied() -> None:
    extra = call_of(path="a", content="b", mode="0777")
    assert _asked_about(extra) == "schema:arguments"


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "$ref": "https://example.test/schema"},
        {"type": "nonsense"},
        {"type": "object", "not": {}},
        {"pattern": "("},
    ],
)
def test_a_spec_whose_schema_cannot_be_checked_denies_its_own_tool(parameters: JsonObject) -> None:
    bad = ToolSpec(name="odd", description="", effect=Effect.NONE, parameters=parameters)
    facts = replace(facts_with(), offered=(*SPECS, bad))
    subject = CallInput(call=call_of("odd", a=1), facts=facts)
    decision = denial(asked(DascGate(roster.rule_book()), Point.TOOL_CALL, subject))
    assert decision.code == "gate_error:rule_raised"


def test_arguments_are_copied_into_the_proof() -> None:
    call = call_of()
    proof = DascGate(roster.rule_book()).tool_call(CallInput(call=call, facts=facts_with()))
    assert isinstance(proof, AuthorizedCall)
    call.arguments["path"] = "elsewhere"
    assert proof.call.arguments["path"] == "answer.txt"
