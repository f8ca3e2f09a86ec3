"""Each point of the gate stops what it is there to stop, counted outside the process.

A rule planted at one point alone must show; a gate that skips that point must turn the test red.
"""

import pytest

from app import roster
from app.domain.verdict import Deny, Point
from app.policy.gate import DascGate, RuleBook
from tests.integration.gate.gate_scenes import (
    ANSWER,
    DENIED,
    RESULT,
    Observed,
    observed,
)
from tests.support.databases import Roles
from tests.support.planted_rules import (
    PLANTED_CODE,
    PLANTED_ID,
    BypassGate,
    Raises,
    Says,
    asked,
    denial,
    emptied,
    planted,
)

WITH_A_CALLER = tuple(DENIED)
WITHOUT_A_CALLER = (Point.AGENT_MESSAGE, Point.WEBHOOK_SEND, Point.APPROVAL_RESOLVE)


def the_usual_end(seen: Observed) -> None:
    """The scene as it goes when nothing is refused."""
    assert (seen.answer_status, seen.row["status"]) == (200, "succeeded")
    assert seen.ending.run["output"] == ANSWER
    assert seen.results == 1
    assert list(seen.files.values()) == ["42"]
    assert len(seen.requests) == 3
    assert RESULT in seen.requests[2]


def test_every_point_is_tested_here() -> None:
    assert {*WITH_A_CALLER, *WITHOUT_A_CALLER} == set(Point)


def test_without_a_planted_rule_everything_happens(roles: Roles) -> None:
    the_usual_end(observed(roles, DascGate(roster.rule_book())))


@pytest.mark.parametrize("point", WITH_A_CALLER)
def test_a_rule_planted_at_one_point_stops_what_passes_there(roles: Roles, point: Point) -> None:
    DENIED[point](observed(roles, DascGate(planted(point, Says()))), PLANTED_CODE, PLANTED_ID)


@pytest.mark.parametrize("point", WITH_A_CALLER)
def test_a_gate_that_skips_a_point_turns_its_test_red(roles: Roles, point: Point) -> None:
    seen = observed(roles, BypassGate(planted(point, Says()), point))
    the_usual_end(seen)  # the planted rule was really skipped, and nothing else went wrong
    with pytest.raises(AssertionError):
        DENIED[point](seen, PLANTED_CODE, PLANTED_ID)


BROKEN: dict[str, tuple[object, str, str]] = {
    "raises": (Raises(error=TimeoutError), "gate_error:rule_raised", "planted.broken"),
    "says an object": (Says(answer=object()), "gate_error:bad_reason", PLANTED_ID),
    "has a name that no record holds": (Says(rule_id="No Name\n"), PLANTED_CODE, "unnamed"),
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("point", WITH_A_CALLER)
def test_a_broken_rule_denies_and_the_denial_is_recorded(
    roles: Roles, point: Point, fault: str
) -> None:
    rule, code, name = BROKEN[fault]
    DENIED[point](observed(roles, DascGate(planted(point, rule))), code, name)


@pytest.mark.parametrize("point", WITH_A_CALLER)
def test_a_point_without_rules_denies_and_the_denial_is_recorded(
    roles: Roles, point: Point
) -> None:
    DENIED[point](observed(roles, DascGate(emptied(point))), "gate_error:no_rules", "")


def denied_at_the_call(gate: DascGate, point: Point) -> None:
    """The same question for a point that nothing calls yet."""
    decision = denial(asked(gate, point))
    assert (decision.point, decision.code, decision.rules) == (point, PLANTED_CODE, (PLANTED_ID,))


@pytest.mark.parametrize("point", WITHOUT_A_CALLER)
def test_a_rule_planted_at_a_point_without_a_caller_denies_at_the_call(point: Point) -> None:
    denied_at_the_call(DascGate(planted(point, Says())), point)
    assert not isinstance(asked(DascGate(roster.rule_book()), point), Deny)


@pytest.mark.parametrize("point", WITHOUT_A_CALLER)
def test_a_gate_that_skips_a_point_without_a_caller_turns_its_test_red(point: Point) -> None:
    with pytest.raises(AssertionError):
        denied_at_the_call(BypassGate(planted(point, Says()), point), point)


def test_an_empty_rule_book_lets_nothing_in(roles: Roles) -> None:
    empty = RuleBook(bundle=roster.rule_book().bundle)
    DENIED[Point.RUN_SUBMIT](observed(roles, DascGate(empty)), "gate_error:no_rules", "")
