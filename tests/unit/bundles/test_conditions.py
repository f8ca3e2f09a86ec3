"""Conditions of tenants: what may be asked, what is refused, and that no trouble reads as no."""

import threading
import time
from collections.abc import Callable

import pytest

from app.bundles.cel_condition import MAX_NANOSECONDS, CelCondition, Glass, condition
from app.bundles.condition_guard import MAX_CONDITION_BYTES, MAX_TOKENS
from app.domain.errors import ConditionError, ConditionRefusedError
from app.domain.features import DecisionInput, Source
from app.domain.label import Integrity
from app.domain.mode import Mode
from app.domain.verdict import Point
from tests.support.policy_words import argument, call

SEEN = argument("to", sources=frozenset({Source.SEEN}), integrity=Integrity.UNTRUSTED)
NAMED = argument("subject")


def read(source: str, clock: Callable[[], int] = time.thread_time_ns) -> CelCondition:
    return condition(source, glass=Glass(), thread_time_ns=clock)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('tool.name == "send_note"', True),
        ('tool.name != "send_note"', False),
        ('tool.effect in ["write", "send"] && counters.steps < 5', True),
        ('arguments.exists(a, a.integrity == "untrusted")', True),
        ('arguments.all(a, "seen" in a.sources)', False),
        ('arguments.exists_one(a, a.path == "to")', True),
        ('arguments.filter(a, a.path != "to").size() > 1', False),
        ("size(arguments) == 2", True),
        ('arguments[0].path == "to" || arguments[1].path == "x"', True),
        ('tool.name.startsWith("send") && tool.name.endsWith("note")', True),
        ('tool.name.contains("nd_n") ? !tool.is_known : tool.is_known', False),
        ("tool.max_calls - tool.calls_made * 2 >= 10", True),
        ("output == null && has(tool.fits_plan)", True),
        ('mode == "standard" && point == "tool.call"', True),
        ("(tool.is_granted)", True),
    ],
)
def test_a_condition_is_answered(source: str, *, expected: bool) -> None:
    assert read(source).holds(call(SEEN, NAMED).to_json()) is expected


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("tool.nme == 'x'", "no such part: nme"),
        ("tools.name == 'x'", "no such variable: tools"),
        ("__result__ == 1", "no such variable"),
        ("arguments.exists(a, a.value == 'x')", "no such part: value"),
        ("arguments.exists(a, hosts.exists(h, h == a.path))", "exists within another"),
        ("hosts.all(h, arguments.filter(a, true).size() == 0)", "filter within another"),
        ("arguments.map(a, a.path) == []", "no such function here: map"),
        ("[1, 2].exists(x, x == 1)", "stands where it means nothing"),
        ("(arguments).exists(a, true)", "stands where it means nothing"),
        ("tool.exists(a, true)", "is for a list"),
        ("arguments.exists(tool, true)", "a name of its own"),
        ("arguments.exists(true, true)", "a name of its own"),
        ("arguments.exists(a)", "a name of its own"),
        ("tool.name.matches('(a+)+$')", "no such function here: matches"),
        ("timestamp('2026-01-01T00:00:00Z') == null", "no such function: timestamp"),
        ("string(tool) == 'x'", "no such function: string"),
        ("size == 1", "no such variable: size"),
        ("tool.size() == 1", "no such function here: size"),
        ("tool['name'] == 'x'", "only a list has places"),
        ("arguments[a].path == 'x'", "only a list has places"),
        ("tool.effect == 'sned'", "never so: sned"),
        ("'sned' != tool.effect", "never so: sned"),
        ("tool.effect in ['write', 'sned']", "never so: sned"),
        ("arguments.exists(a, 'sen' in a.sources)", "never so: sen"),
        ("mode == 'lenient'", "never so: lenient"),
        ("{'a': 1}.a == 1", "cannot be read"),
        ("r'x' == 'x'", "cannot be read"),
        ("b'x' == b'x'", "cannot be read"),
        ("'''x''' == 'x'", "cannot be read"),
        ("1u == 1u", "cannot be read"),
        ("true // and so on", "no such variable: and"),
        ("tool.name == 'x\\x41'", "cannot be read"),
        ("tool.name == 'x", "cannot be read"),
        ("tool.name ==", "not a whole expression"),
        ("(tool.is_known", "a bracket is not closed"),
        ("(tool.is_known]", "a bracket is not closed"),
        ("tool.is_known)", "stands where it means nothing"),
        ("(" * 30 + "true" + ")" * 30, "nested"),
        ("true" + "||true" * 300, f"more than {MAX_TOKENS}"),
        ("true || " + " " * MAX_CONDITION_BYTES + "true", f"longer than {MAX_CONDITION_BYTES}"),
    ],
)
def test_a_condition_that_may_not_be_asked_is_refused(source: str, why: str) -> None:
    with pytest.raises(ConditionRefusedError, match=why.replace("(", r"\(")):
        read(source)


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("output.has_secret", "condition"),  # there is no output at this point
        ('arguments[7].path == "x"', "missing"),
        ("counters.steps / counters.effects == 1", "condition"),
        ("9223372036854775807 + counters.steps > 0", "condition"),
        ("tool.name + 1 == tool.name", "condition"),
        ("counters.steps", "not_boolean"),
        ("tool.name", "not_boolean"),
        ("null", "not_boolean"),
    ],
)
def test_what_has_no_answer_is_an_error_and_never_a_no(source: str, code: str) -> None:
    with pytest.raises(ConditionError) as raised:
        read(source).holds(call(SEEN).to_json())
    assert raised.value.code == code


def test_a_part_that_a_record_lacks_is_an_error() -> None:
    features = call(SEEN).to_json()
    del features["counters"]
    with pytest.raises(ConditionError):
        read("counters.steps == 0").holds(features)


def test_a_condition_that_took_too_long_is_an_error_whatever_it_says() -> None:
    times = iter([0, MAX_NANOSECONDS, 0, MAX_NANOSECONDS + 1])
    asked = read("tool.is_known", lambda: next(times))
    assert asked.holds(call().to_json()) is True
    with pytest.raises(ConditionError, match="timeout"):
        asked.holds(call().to_json())


def test_the_dearest_condition_over_the_largest_record_is_answered() -> None:
    many = [argument("a" * 60 + f"{n}") for n in range(64)]
    within = " || ".join(['a.path.contains("bbbbbb")'] * 50)
    assert read(f"arguments.exists(a, {within})").holds(call(*many).to_json()) is False


@pytest.mark.parametrize(
    "source",
    [
        "1" + " + 1" * (MAX_TOKENS // 2 - 2) + " == 1",
        "true" + " || true" * (MAX_TOKENS // 2 - 1),
        "!" * (MAX_TOKENS - 1) + "true",
        "1 == " + "- " * (MAX_TOKENS - 3) + "1",
    ],
)
def test_the_longest_rows_of_operators_fit_a_small_stack(source: str) -> None:
    found: list[object] = []

    def ask() -> None:
        try:
            found.append(read(source).holds(call().to_json()))
        except (ConditionError, ConditionRefusedError) as error:
            found.append(error)

    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert len(found) == 1


def test_many_conditions_share_one_look_at_a_record_and_see_the_next_one_anew() -> None:
    glass = Glass()
    first = condition("counters.effects == 0", glass=glass, thread_time_ns=time.thread_time_ns)
    second = condition("counters.effects == 1", glass=glass, thread_time_ns=time.thread_time_ns)
    none, one = call().to_json(), call(effects=1).to_json()
    assert [first.holds(none), second.holds(none)] == [True, False]
    assert [first.holds(one), second.holds(one)] == [False, True]


def test_a_condition_sees_no_more_than_the_record() -> None:
    empty = DecisionInput(point=Point.RUN_OUTPUT, mode=Mode.STRICT)
    assert read("tool == null && arguments.size() == 0").holds(empty.to_json()) is True
