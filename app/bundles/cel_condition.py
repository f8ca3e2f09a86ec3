"""The one door to the engine of conditions (Common Expression Language).

A condition sees the feature record and nothing else. Whatever goes wrong in it - a part that is
not there, an answer that is no yes or no, more time than it may take, a fault of the engine - is a
ConditionError, and the gate denies.

Threat: Privilege escalation via tool calls
"""

from collections.abc import Callable, Mapping
from typing import Final

from app.bundles.cel_engine import Program, engine
from app.bundles.condition_guard import check_condition
from app.bundles.feature_shape import VARIABLES, Shape
from app.domain.errors import ConditionError, ConditionRefusedError
from app.domain.run import JsonObject

MAX_NANOSECONDS: Final = 50_000_000  # of this thread's CPU: what others do is not held against it
_FUNCTIONS: Final = frozenset(
    {
        *("size", "startsWith", "endsWith", "contains", "@in", "@not_strictly_false"),
        *("_&&_", "_||_", "!_", "_?_:_", "_[_]", "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"),
        *("_+_", "_-_", "_*_", "_/_", "_%_", "-_"),
    }
)
_NOT_OURS: Final = (KeyboardInterrupt, SystemExit, GeneratorExit)


class Glass:
    """The record that is being asked about, as the engine sees it: made once for many conditions.

    Many threads may share one; a record is not changed while conditions are asked about it.
    """

    def __init__(self) -> None:
        self._seen: tuple[JsonObject, object] | None = None

    def over(self, features: JsonObject) -> object:
        """The engine's view of this record."""
        seen = self._seen
        if seen is not None and seen[0] is features:
            return seen[1]
        view = engine().Context(variables=features)
        self._seen = (features, view)
        return view


class CelCondition:
    """One condition, read once and asked often."""

    def __init__(self, program: Program, glass: Glass, thread_time_ns: Callable[[], int]) -> None:
        self._program = program
        self._glass = glass
        self._thread_time_ns = thread_time_ns

    def holds(self, features: JsonObject) -> bool:
        """Whether it holds of this record. ConditionError, and nothing else."""
        begun = self._thread_time_ns()
        try:
            answer: object = self._program.execute(self._glass.over(features))
        except _NOT_OURS:
            raise
        except (KeyError, IndexError):
            raise ConditionError("missing") from None
        except BaseException:  # noqa: BLE001 - a panic of the engine is no Exception, and denies too
            raise ConditionError("condition") from None
        if self._thread_time_ns() - begun > MAX_NANOSECONDS:
            raise ConditionError("timeout")
        if answer is True or answer is False:
            return answer is True
        raise ConditionError("not_boolean")


def condition(
    source: str,
    *,
    glass: Glass,
    thread_time_ns: Callable[[], int],
    variables: Mapping[str, Shape] = VARIABLES,
) -> CelCondition:
    """The condition of this text. ConditionRefusedError for one that may not be asked."""
    check_condition(source, variables)
    try:
        program = engine().compile(source)
        used = program.references()
    except _NOT_OURS:
        raise
    except BaseException:  # noqa: BLE001 - as above: a text that the engine trips over is refused
        raise ConditionRefusedError("it is not a whole expression") from None
    unknown = sorted({*used["functions"]} - _FUNCTIONS)
    if unknown:
        raise ConditionRefusedError(f"no such function: {unknown[0]}")
    return CelCondition(program, glass, thread_time_ns)
