"""Arithmetic for an agent: an allow-list over the syntax tree, each size predicted beforehand.

Never `eval`: the text is tokenised, parsed, and walked. Before an operation its result's size and
its work are bounded; what would be too large is refused without being begun.

Threat: Privilege escalation via tool calls
"""

import ast
import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from pydantic import Field

from app.domain.errors import ToolError
from app.domain.label import Label
from app.domain.run import JsonObject
from app.domain.step import Effect, Role, ToolSpec
from app.sandbox.workspace import Workspace
from app.tools.arithmetic_text import MAX_CHARS, MAX_NODES, parsed_arithmetic
from app.tools.toolbox import ClosedArguments, closed_schema, parse_arguments

Number: TypeAlias = int | float

MAX_DIGITS = 4300
MAX_BITS = 14_285  # 10**4300 has 14,285 bits
MAX_FACTORIAL = 1500
MAX_CHOICE = 5000
MAX_MODULAR_BITS = 2048
MAX_ROUNDING = 400
# A unit is about 4e-12 s on a slow core: the whole expression stays below 20 ms.
MAX_WORK = 4_000_000_000

_TOO_LARGE = "the result would be too large"
_CONSTANTS: Mapping[str, float] = {"pi": math.pi, "e": math.e, "tau": math.tau}


class _Meter:
    """Adds up the work of one expression and refuses more than its share."""

    def __init__(self) -> None:
        self._spent = 0

    def charge(self, units: int) -> None:
        self._spent += units
        if self._spent > MAX_WORK:
            raise ToolError("the expression would take too long")


def _number(value: object) -> Number:
    """The value when it is a finite int or float; never a bool or a complex number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ToolError("only real numbers are allowed")
    if isinstance(value, float) and not math.isfinite(value):
        raise ToolError(_TOO_LARGE)
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ToolError(_TOO_LARGE)
    return value


def _whole(*values: Number) -> list[int]:
    """The values as ints, refused when one is a float."""
    whole = [value for value in values if isinstance(value, int)]
    if len(whole) != len(values):
        raise ToolError("this operation needs whole numbers")
    return whole


def _bits(*values: Number) -> int:
    """How long the values are together; a float counts as its 64 bits."""
    return sum(value.bit_length() if isinstance(value, int) else 64 for value in values)


def _require_bits(bits: float) -> None:
    if bits > MAX_BITS:
        raise ToolError(_TOO_LARGE)


def _power(meter: _Meter, base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0 and abs(base) > 1:
        # The first test keeps the product below within what a float can hold.
        _require_bits(exponent)
        _require_bits(exponent * math.log2(abs(base)))
        meter.charge(MAX_BITS * MAX_BITS // 16)
    return _number(base**exponent)


def _power_modulo(meter: _Meter, values: Sequence[Number]) -> Number:
    base, exponent, modulus = _whole(*values)
    if max(map(_bits, (base, exponent, modulus))) > MAX_MODULAR_BITS:
        raise ToolError(_TOO_LARGE)
    meter.charge(_bits(exponent) * _bits(modulus) ** 2)
    return pow(base, exponent, modulus)


def _shift_left(_: _Meter, value: Number, places: Number) -> Number:
    number, by = _whole(value, places)
    _require_bits(by)
    _require_bits(number.bit_length() + by)
    return number << by


def _shift_right(_: _Meter, value: Number, places: Number) -> Number:
    number, by = _whole(value, places)
    return number >> by


def _product(_: _Meter, left: Number, right: Number) -> Number:
    if isinstance(left, int) and isinstance(right, int):
        _require_bits(_bits(left, right) - 1)
    return left * right


def _both(_: _Meter, left: Number, right: Number) -> Number:
    one, other = _whole(left, right)
    return one & other


def _either(_: _Meter, left: Number, right: Number) -> Number:
    one, other = _whole(left, right)
    return one | other


OPERATORS: Mapping[type[ast.operator], Callable[[_Meter, Number, Number], Number]] = {
    ast.Add: lambda _, left, right: left + right,
    ast.Sub: lambda _, left, right: left - right,
    ast.Mult: _product,
    ast.Div: lambda _, left, right: left / right,
    ast.FloorDiv: lambda _, left, right: left // right,
    ast.Mod: lambda _, left, right: left % right,
    ast.Pow: _power,
    ast.LShift: _shift_left,
    ast.RShift: _shift_right,
    ast.BitAnd: _both,
    ast.BitOr: _either,
}


def _pow(meter: _Meter, values: Sequence[Number]) -> Number:
    if len(values) == 2:  # noqa: PLR2004 - the two-argument form
        return _power(meter, values[0], values[1])
    return _power_modulo(meter, values)


def _round(_: _Meter, values: Sequence[Number]) -> Number:
    if len(values) == 1:
        return round(values[0])
    (places,) = _whole(values[1])
    if abs(places) > MAX_ROUNDING:
        raise ToolError(f"round takes at most {MAX_ROUNDING} places either way")
    return round(values[0], places)


def _factorial(meter: _Meter, values: Sequence[Number]) -> Number:
    (number,) = _whole(*values)
    if number > MAX_FACTORIAL:
        raise ToolError(_TOO_LARGE)
    meter.charge(MAX_FACTORIAL * MAX_BITS)
    return math.factorial(number)


def _comb(meter: _Meter, values: Sequence[Number]) -> Number:
    total, chosen = _choice(values)
    meter.charge(32 * total * min(chosen, max(total - chosen, 0)))
    return math.comb(total, chosen)


def _perm(meter: _Meter, values: Sequence[Number]) -> Number:
    total, chosen = _choice(values)
    if chosen <= total:
        _require_bits(chosen * math.log2(max(total, 1)))
    meter.charge(chosen * MAX_BITS)
    return math.perm(total, chosen)


def _choice(values: Sequence[Number]) -> list[int]:
    whole = _whole(*values)
    if max(whole) > MAX_CHOICE:
        raise ToolError(_TOO_LARGE)
    return whole


def _sum(meter: _Meter, values: Sequence[Number]) -> Number:
    meter.charge(_bits(*values))
    return sum(values)


def _gcd(meter: _Meter, values: Sequence[Number]) -> Number:
    meter.charge(_bits(*values) * max(map(_bits, values)) // 4)
    return math.gcd(*_whole(*values))


def _lcm(meter: _Meter, values: Sequence[Number]) -> Number:
    _require_bits(_bits(*values))
    meter.charge(_bits(*values) ** 2)
    return math.lcm(*_whole(*values))


def _isqrt(meter: _Meter, values: Sequence[Number]) -> Number:
    meter.charge(_bits(*values) ** 2 // 8)
    return math.isqrt(*_whole(*values))


def _of(function: Callable[[Number], Number]) -> "_Function":
    """A function of one number whose work is that of a float operation."""
    return 1, 1, lambda _, values: function(values[0])


_Function: TypeAlias = tuple[int, int, Callable[[_Meter, Sequence[Number]], Number]]

# Name -> fewest arguments, most arguments, what it does.
FUNCTIONS: Mapping[str, _Function] = {
    "abs": _of(abs),
    "acos": _of(math.acos),
    "asin": _of(math.asin),
    "atan": _of(math.atan),
    "atan2": (2, 2, lambda _, values: math.atan2(values[0], values[1])),
    "cbrt": _of(math.cbrt),
    "ceil": _of(math.ceil),
    "comb": (2, 2, _comb),
    "cos": _of(math.cos),
    "cosh": _of(math.cosh),
    "degrees": _of(math.degrees),
    "exp": _of(math.exp),
    "factorial": (1, 1, _factorial),
    "floor": _of(math.floor),
    "gcd": (1, MAX_NODES, _gcd),
    "hypot": (1, MAX_NODES, lambda _, values: math.hypot(*values)),
    "isqrt": (1, 1, _isqrt),
    "lcm": (1, MAX_NODES, _lcm),
    "log": (1, 2, lambda _, values: math.log(*values)),
    "log10": _of(math.log10),
    "log2": _of(math.log2),
    "max": (1, MAX_NODES, lambda _, values: max(values)),
    "min": (1, MAX_NODES, lambda _, values: min(values)),
    "perm": (2, 2, _perm),
    "pow": (2, 3, _pow),
    "radians": _of(math.radians),
    "round": (1, 2, _round),
    "sin": _of(math.sin),
    "sinh": _of(math.sinh),
    "sqrt": _of(math.sqrt),
    "sum": (1, MAX_NODES, _sum),
    "tan": _of(math.tan),
    "tanh": _of(math.tanh),
    "trunc": _of(math.trunc),
}


def _call(meter: _Meter, name: str, values: Sequence[Number]) -> Number:
    if name not in FUNCTIONS:
        raise ToolError("this function is not known")
    fewest, most, function = FUNCTIONS[name]
    if not fewest <= len(values) <= most:
        raise ToolError(f"{name} does not take {len(values)} values")
    return function(meter, values)


def _value(meter: _Meter, node: ast.expr) -> Number:
    """The value of one node; every node, not only the last, is held to the limits."""
    meter.charge(1000)
    match node:
        case ast.Constant(value=literal):
            return _number(literal)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(meter, operand)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(meter, operand)
        case ast.UnaryOp(op=ast.Invert(), operand=operand):
            return _number(~_whole(_value(meter, operand))[0])
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in OPERATORS:
            one, other = _value(meter, left), _value(meter, right)
            meter.charge(_bits(one) * _bits(other) // 4)
            return _number(OPERATORS[type(sign)](meter, one, other))
        case ast.Call(func=ast.Name(id=name), args=given, keywords=[]):
            return _number(_call(meter, name, [_value(meter, one) for one in given]))
        case _:
            raise ToolError("only numbers, operators and the known functions are allowed")


def evaluate(expression: str) -> str:
    """The value of an arithmetic expression, in decimal; ToolError when it has none or is refused.

    Pure. Its time is bounded by what it predicts before each operation, not by a clock.
    """
    tree = parsed_arithmetic(expression, names=FUNCTIONS.keys() | _CONSTANTS.keys())
    try:
        result = _value(_Meter(), tree)
        if isinstance(result, int) and abs(result) >= 10**MAX_DIGITS:
            raise ToolError(_TOO_LARGE)
        return str(result)
    except ZeroDivisionError:
        raise ToolError("division by zero") from None
    except OverflowError:
        raise ToolError(_TOO_LARGE) from None
    except (ValueError, TypeError):
        raise ToolError("the operation is not defined for these numbers") from None


class _CalculatorArguments(ClosedArguments):
    expression: str = Field(
        max_length=MAX_CHARS, description="Arithmetic in Python's notation, for example 2**10 + 1"
    )


class Calculator:
    """Evaluates arithmetic; touches nothing."""

    spec = ToolSpec(
        name="calculator",
        description="Evaluate arithmetic: + - * / // % ** << >> & |, brackets, pi, e, tau and "
        + ", ".join(FUNCTIONS),
        effect=Effect.NONE,
        parameters=closed_schema(_CalculatorArguments),
        roles={"expression": Role.QUERY},
        # A number that the model chose how to reach is no more trusted than the model.
        labels={"": Label()},
        argument_limit_bytes=16 * 1024,
        result_limit_bytes=8 * 1024,
        timeout_seconds=5.0,
    )

    async def run(self, arguments: JsonObject, workspace: Workspace) -> str:
        """The value of the expression. ToolError when it has none or is refused."""
        del workspace  # it needs none
        asked = parse_arguments(_CalculatorArguments, arguments)
        return await asyncio.to_thread(evaluate, asked.expression)
