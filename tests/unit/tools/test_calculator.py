"""The calculator agrees with exact arithmetic and says plainly what it will not do."""

import math
import operator
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from app.domain.errors import ToolError
from app.tools.calculator import FUNCTIONS, MAX_DIGITS, evaluate

WHOLE = some.integers(min_value=-(10**60), max_value=10**60)
OFTEN = settings(max_examples=150, deadline=None, database=None)


@OFTEN
@given(one=WHOLE, other=WHOLE)
def test_whole_numbers_are_added_subtracted_and_multiplied_exactly(one: int, other: int) -> None:
    signs: dict[str, Callable[[int, int], int]] = {
        "+": operator.add,
        "-": operator.sub,
        "*": operator.mul,
        "&": operator.and_,
        "|": operator.or_,
    }
    for sign, exact in signs.items():
        assert evaluate(f"({one}) {sign} ({other})") == str(exact(one, other))


@OFTEN
@given(one=WHOLE, other=WHOLE.filter(bool))
def test_division_agrees_with_fractions(one: int, other: int) -> None:
    exact = Fraction(one, other)
    assert evaluate(f"({one}) // ({other})") == str(math.floor(exact))
    assert evaluate(f"({one}) % ({other})") == str(one - other * math.floor(exact))
    assert evaluate(f"({one}) / ({other})") == str(float(exact))


@OFTEN
@given(base=some.integers(-1000, 1000), exponent=some.integers(0, 300))
def test_powers_and_shifts_of_whole_numbers_are_exact(base: int, exponent: int) -> None:
    power = Fraction(base) ** exponent
    assert evaluate(f"({base}) ** {exponent}") == str(power.numerator)
    assert evaluate(f"pow({base}, {exponent}, 997)") == str(power.numerator % 997)
    assert evaluate(f"({base}) << {exponent}") == str(base * 2**exponent)
    assert evaluate(f"({base}) >> {exponent}") == str(math.floor(Fraction(base, 2**exponent)))


TREES = some.recursive(
    some.integers(0, 99).map(str),
    lambda inner: some.builds(
        "({} {} {})".format, inner, some.sampled_from(["+", "-", "*"]), inner
    ),
    max_leaves=20,
)


@OFTEN
@given(text=TREES)
def test_nested_expressions_keep_precedence_and_brackets(text: str) -> None:
    # The reference sees only digits, brackets and three signs, all made here.
    assert evaluate(text) == str(eval(text))  # noqa: S307 - the text is generated above


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1+2*3", "7"),
        ("-2**2", "-4"),
        ("2**-1", "0.5"),
        ("7//-2", "-4"),
        (" 1 +\n 2 ", "3"),
        ("1_000 * 2", "2000"),
        ("0xff + 0b11 + 0o7", "265"),
        (".5 + 1.", "1.5"),
        ("1e3", "1000.0"),
        ("~5", "-6"),
        ("+-+5", "-5"),
        ("sqrt(16)", "4.0"),
        ("cbrt(0)", "0.0"),
        ("round(2.675, 2)", "2.67"),
        ("round(1234, -2)", "1200"),
        ("round(2.5)", "2"),
        ("max(1, 2.5, 2)", "2.5"),
        ("min(3, 1)", "1"),
        ("sum(1, 2, 3)", "6"),
        ("gcd(12, 18, 27)", "3"),
        ("lcm(4, 6)", "12"),
        ("comb(5, 2)", "10"),
        ("perm(5, 2)", "20"),
        ("perm(2, 5)", "0"),
        ("comb(2, 5)", "0"),
        ("factorial(10)", "3628800"),
        ("isqrt(10**40)", str(10**20)),
        ("log(8, 2)", "3.0"),
        ("log10(10**400)", "400.0"),
        ("pow(3, -1, 7)", "5"),
        ("hypot(3, 4)", "5.0"),
        ("floor(-2.5) + ceil(2.5) + trunc(-2.5)", "-2"),
        ("cos(pi) + tau - 2*pi", "-1.0"),
        ("degrees(pi)", "180.0"),
        ("abs(-3)", "3"),
        ("(-1) ** (10**100)", "1"),
        ("10**4299 // 10**4298", "10"),
    ],
)
def test_an_everyday_expression_has_its_value(text: str, value: str) -> None:
    assert evaluate(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1/0", "division by zero"),
        ("1%0", "division by zero"),
        ("0**-1", "division by zero"),
        ("2^3", r"written \*\*"),
        ("sqrt(-1)", "not defined"),
        ("factorial(-1)", "not defined"),
        ("1 << -1", "not defined"),
        ("(-8)**0.5", "real numbers"),
        ("1.5 & 1", "whole numbers"),
        ("factorial(2.5)", "whole numbers"),
        ("sqrt(1, 2)", "does not take 2"),
        ("sum()", "does not take 0"),
        ("1e999", "too large"),
        ("exp(1000)", "too large"),
        ("10**4000 / 3", "too large"),
        ("", "not well formed"),
        ("1 +", "not well formed"),
        ("pi(2)", "not known"),
        ("sqrt", "only numbers"),
        ("price * 2", "'price' is not known"),
        ("-" * 40 + "1", "signs in a row"),
        ("(" * 41 + "1" + ")" * 41, "open brackets"),
    ],
)
def test_what_has_no_value_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(ToolError, match=reason):
        evaluate(text)


def test_the_largest_allowed_result_has_4300_digits() -> None:
    assert evaluate("10**4299 * 9 + (10**4299 - 1)") == "9" * 1 + "9" * (MAX_DIGITS - 1)
    with pytest.raises(ToolError, match="too large"):
        evaluate("10**4299 * 10")


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        ("1" * 499, "1" * 500),
        ("(" * 40 + "1" + ")" * 40, "(" * 41 + "1" + ")" * 41),
        ("-" * 39 + "1", "-" * 40 + "1"),
        ("+".join(["1"] * 40), "+".join(["1"] * 41)),
        ("sum(" + ",".join(["1"] * 298) + ")", "sum(" + ",".join(["1"] * 299) + ")"),
        ("1" + " " * 999, "1" + " " * 1000),
        ("factorial(1500) // factorial(1499)", "factorial(1501) // factorial(1500)"),
        ("comb(5000, 4)", "comb(5001, 4)"),
        ("perm(5000, 4)", "perm(5001, 4)"),
        ("round(10**399, -400)", "round(10**399, -401)"),
        ("round(1.5, 400)", "round(1.5, 401)"),
        ("pow(2**2047, 3, 7)", "pow(2**2048, 3, 7)"),
        ("2**14284", "2**14285"),
        ("1 << 14284", "1 << 14285"),
        ("(2**7000) * (2**7283)", "(2**7000) * (2**7285)"),
        ("pow(7**500, 7**500, 7**500+2)", "pow(7**700, 7**700, 7**700+2)"),
    ],
)
def test_each_limit_lets_the_last_value_through_and_not_the_next(within: str, beyond: str) -> None:
    evaluate(within)
    with pytest.raises(ToolError, match=r"too|longer|more than|at most"):
        evaluate(beyond)


def test_every_function_of_the_table_can_be_called() -> None:
    fitting = {"acos": "0.5", "asin": "0.5", "pow": "2,3", "round": "2.5"}
    for name, (fewest, _, _) in FUNCTIONS.items():
        given_values = fitting.get(name, ",".join(["3"] * fewest))
        float(evaluate(f"{name}({given_values})"))
