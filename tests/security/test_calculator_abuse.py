"""Hostile expressions: each ends, none runs code, and the control shows what they do elsewhere.

Threat: Privilege escalation via tool calls
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
# One generous deadline for all payloads together: only a hang can miss it.
DEADLINE_SECONDS = 20.0

LARGE = [
    "9**9**9",
    "9**9**9**9",
    "(9**9)**(9**9)",
    "2**(2**100)",
    "10**10**10",
    "(-9)**9**9",
    "2**99999999",
    "(2**14000)**2",
    "((((2**1000)**10)**10)**10)",
    "pow(9, 9**9)",
    "pow(pow(9, 999), 999)",
    "1 << 10**10",
    "1 << (1 << 60)",
    "0 << 10**18",
    "-1 << 10**10",
    "(1 << 14000) << 14000",
    "factorial(10**6)",
    "factorial(10**100)",
    "factorial(factorial(1000))",
    "factorial(1501)",
    "comb(10**9, 5*10**8)",
    "comb(10**100, 10**50)",
    "perm(10**9, 10**8)",
    "perm(5000, 5000)",
    "comb(10**6, 3)",
    "round(10**500, -10**9)",
    "round(1.5, 10**9)",
    "round(1.5, -10**9)",
    "round(10**499, -(1 << 62))",
    "round(5, 1 << 70)",
    "pow(3, 10**4000, 10**4000)",
    "pow(7**700, 7**700, 7**700 + 2)",
    "pow(2**2048, 2**2048, 2**2048 + 1)",
    "pow(9**999, 9**999, 9**999)",
    "lcm(" + ",".join(f"{prime}**900" for prime in (3, 5, 7, 11, 13, 17, 19, 23, 29)) + ")",
    "sum(" + ",".join(["10**4299"] * 60) + ")",
    "1e308 * 10",
    "1e999",
    "-1e999",
    "1e308 + 1e308",
    "1e999 - 1e999",
    "exp(710)",
    "exp(10**10)",
    "sinh(10**5)",
    "10.0**400",
    "1.5**10**9",
    "10**4000 / 7",
    "sqrt(10**4000)",
    "hypot(10**4000, 1)",
    "float(1)",
    "10**4300",
    "10**4299 * 11",
    "7" * 500,
    "0x" + "f" * 600,
    "1e" + "9" * 499,
    "1e" + "9" * 600,
    "1" + "_1" * 400,
]
HEAVY = [
    "max(" + ",".join(["comb(5000,2500)"] * 60) + ")",
    "max(" + ",".join(["perm(5000,1100)"] * 60) + ")",
    "max(" + ",".join(["factorial(1500)"] * 60) + ")",
    "max(" + ",".join(["pow(7**500,7**500,7**500+2)"] * 34) + ")",
    "max(" + ",".join(["isqrt(3**9000)"] * 55) + ")",
    "max(" + ",".join(["3**9000//7**9"] * 40) + ")",
    "gcd(" + ",".join(["3**9000"] * 70) + ")",
    "lcm(" + ",".join(["3**900"] * 70) + ")",
    "max(" + ",".join(["7**2500*7**2500"] * 45) + ")",
    "max(" + ",".join(["log(7**5000)"] * 70) + ")",
    "max(" + ",".join(["10**4299-1"] * 70) + ")",
    "max(" + ",".join(["7**2500/7**2499"] * 45) + ")",
    "max(" + ",".join(["round(7**470,-400)"] * 50) + ")",
    "max(" + ",".join(["(-1)**10**4200"] * 50) + ")",
]
NESTED = [
    "(" * 500 + "1" + ")" * 499,
    "(" * 41 + "1" + ")" * 41,
    "(" * 1000,
    ")" * 1000,
    "()" * 500,
    "-" * 999 + "1",
    "~" * 999 + "1",
    "+-~" * 333 + "1",
    "- " * 499 + "1",
    "-(" * 300 + "1" + ")" * 300,
    "**".join(["2"] * 300),
    "+".join(["1"] * 500),
    "1" + "+1" * 499,
    "abs(" * 200 + "1" + ")" * 200,
    "-abs(" * 150 + "1" + ")" * 150,
    "max(" + ",".join(["1"] * 400) + ")",
    "1*" * 500,
    "1 " * 500,
    "*" * 1000,
    "1" + "0" * 2000,
    "1+" * 100_000 + "1",
    "(" * 1_000_000,
    " " * 1_000_000,
]
CODE = [
    "__import__('os').system('id')",
    "__import__(chr(111)+chr(115))",
    "().__class__.__bases__[0].__subclasses__()",
    "(1).__class__",
    "1 .real",
    "1..real",
    "abs.__self__",
    "abs.__globals__",
    "pi.__class__.__mro__",
    "eval('1')",
    "exec('1')",
    "compile('1','','eval')",
    "open('/etc/passwd')",
    "getattr(abs, '__self__')",
    "globals()",
    "locals()",
    "vars()",
    "dir()",
    "breakpoint()",
    "input()",
    "exit()",
    "print(1)",
    "lambda: 1",
    "(lambda: 1)()",
    "(x := 1)",
    "x = 1",
    "import os",
    "[1 for _ in 'a']",
    "[1] * 10**9",
    "'a' * 10**9",
    "b'a' * 10**9",
    "f'{1:>999999999}'",
    "f'{__import__(1)}'",
    "'%999999999d' % 1",
    "{1: 2}",
    "{1, 2}",
    "(1, 2)",
    "1, 2",
    "1 if 1 else 2",
    "1 < 2",
    "1 == 1.0",
    "1 is 1",
    "not 1",
    "1 and 2",
    "1or 2",
    "True",
    "False + 1",
    "None",
    "...",
    "1j",
    "1J * 2",
    "(-1)**0.5",
    "(-8)**(1/3)",
    "inf",
    "nan",
    "abs(*1)",
    "abs(**1)",
    "abs(1, **pi)",
    "max(1, *pi)",
    "abs(x=1)",
    "max(key=abs)",
    "sum(x for x in pi)",
    "abs(abs)",
    "abs",
    "pi()",
    "(abs)(1)(2)",
    "1(2)",
    "await 1",
    "yield 1",
    "1; 2",
    "1 # comment",
    "1 \\\n + 2",
    "1\0+1",
    "\0",
    "1\u20281",
    "\uff45val(1)",
    "\uff11+\uff11",
    "\u0661+1",
    "a\u0300bs(1)",
    "\u2124",
    "1\u00d72",
    "\ud800",
    "\x1b[2J",
    "1 @ 2",
    "2 ^ 3",
    "!1",
    "$(id)",
    "`id`",
    "0777",
    "1__0",
    "0x",
    "1e",
    "1.2.3",
    "",
    " ",
    "\n",
    "\t(\n",
]
# Refused by arithmetic, not by size or form: they must end and say so.
UNDEFINED = [
    "1/0",
    "1//0",
    "1%0",
    "0.0**-1",
    "pow(2, 5, 0)",
    "pow(2, -1, 4)",
    "log(0)",
    "log(-1)",
    "log(2, 1)",
    "sqrt(-1)",
    "acos(2)",
    "factorial(-1)",
    "comb(-1, 2)",
    "perm(-5, 2)",
    "isqrt(-1)",
    "1 << -1",
    "1 >> -10**30",
    "1.5 << 2",
    "gcd(1.5, 2)",
    "round(1, 1.5)",
]
PAYLOADS = LARGE + HEAVY + NESTED + CODE + UNDEFINED

_RUN = """
import json, resource, sys, warnings
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
warnings.simplefilter("error")
from app.domain.errors import ToolError
from app.tools.calculator import evaluate
for payload in json.load(sys.stdin):
    try:
        outcome = "value " + evaluate(payload)
    except ToolError as told:
        outcome = "refused " + str(told)
    except BaseException as escaped:
        outcome = "escaped " + type(escaped).__name__
    print(json.dumps(outcome), flush=True)
"""


def _outcomes(payloads: list[str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _RUN],
        input=json.dumps(payloads),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=True,
        cwd=REPOSITORY,
    )
    return [str(json.loads(line)) for line in done.stdout.splitlines()]


def test_every_abusive_expression_ends_refused_or_bounded_within_one_deadline() -> None:
    assert len(set(PAYLOADS)) >= 120
    outcomes = dict(zip(PAYLOADS, _outcomes(PAYLOADS), strict=True))
    assert [text for text, outcome in outcomes.items() if outcome.startswith("escaped")] == []
    assert all(len(outcome) <= 4310 for outcome in outcomes.values())


def test_nothing_hostile_has_a_value_but_what_is_plain_arithmetic() -> None:
    outcomes = dict(zip(PAYLOADS, _outcomes(PAYLOADS), strict=True))
    valued = {text for text, outcome in outcomes.items() if outcome.startswith("value ")}
    hostile = set(LARGE) | set(NESTED) | set(CODE) | set(UNDEFINED)
    assert valued & hostile == set()
    assert valued <= set(HEAVY)


def test_a_refusal_never_says_anything_of_the_host() -> None:
    for outcome in _outcomes(PAYLOADS):
        assert str(REPOSITORY) not in outcome
        assert "Traceback" not in outcome
        assert "object at 0x" not in outcome


@pytest.mark.parametrize("payload", ["9**9**9", "round(10**500, -10**9)"])
def test_control_the_same_expression_hangs_python_itself(payload: str) -> None:
    # Were this to end, the payload would prove nothing about the calculator.
    limited = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); "
        f"print(len(str(eval({payload!r}))))"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", limited], capture_output=True, timeout=2, check=False
        )
    except subprocess.TimeoutExpired:
        return
    assert done.returncode != 0, "the payload is harmless"


def test_control_the_same_code_runs_where_eval_is_used() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "print(eval('().__class__.__bases__[0].__subclasses__()')[0])"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert "class" in ran.stdout
