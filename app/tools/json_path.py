"""Finds parts of a JSON value: JSON pointers (RFC 6901) and JSONPath (RFC 9535) without functions.

Left out of RFC 9535 are only its function extensions, two of which take regular expressions. Every
node that is looked at is counted, so that no query and no value make it slow.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from app.domain.errors import ToolError
from app.domain.run import Json

MAX_STEPS = 100_000


class StepMeter:
    """Counts the nodes that are looked at and refuses more than its share."""

    def __init__(self, most: int = MAX_STEPS) -> None:
        self._left = most

    def step(self) -> None:
        """One node more. ToolError when there were too many."""
        self._left -= 1
        if self._left < 0:
            raise ToolError("the query looks at too much; make it narrower")


@dataclass(frozen=True, slots=True)
class Scene:
    """What a filter may speak of besides the node itself."""

    root: Json
    meter: StepMeter


Selector: TypeAlias = Callable[[Json, Scene], Iterator[Json]]
Condition: TypeAlias = Callable[[Json, Scene], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One step of a path: selectors put to each node, or to it and all beneath it."""

    selectors: Sequence[Selector]
    is_descendant: bool = False


class _Nothing:
    """What a query that finds no node is compared as (RFC 9535 section 2.3.5.2.2)."""


NOTHING = _Nothing()
Comparable: TypeAlias = Callable[[Json, Scene], "Json | _Nothing"]


def nodes(segments: Iterable[Segment], start: Json, scene: Scene) -> list[Json]:
    """All values that a path leads to from `start`, in the order of RFC 9535. ToolError."""
    found = [start]
    for segment in segments:
        reached: list[Json] = []
        for node in found:
            places = _descendants(node, scene) if segment.is_descendant else (node,)
            for place in places:
                for selector in segment.selectors:
                    reached.extend(selector(place, scene))
        found = reached
    return found


def _children(node: Json) -> Iterable[Json]:
    match node:
        case dict():
            return node.values()
        case list():
            return node
        case _:
            return ()


def _descendants(node: Json, scene: Scene) -> Iterator[Json]:
    """The node and all beneath it, each before its children."""
    waiting = [node]
    while waiting:
        place = waiting.pop()
        scene.meter.step()
        yield place
        waiting.extend(reversed(list(_children(place))))


def by_name(name: str) -> Selector:
    """The member of that name."""

    def select(node: Json, scene: Scene) -> Iterator[Json]:
        scene.meter.step()
        if isinstance(node, dict) and name in node:
            yield node[name]

    return select


def by_index(index: int) -> Selector:
    """The element at that place; from the end when negative."""

    def select(node: Json, scene: Scene) -> Iterator[Json]:
        scene.meter.step()
        if isinstance(node, list) and -len(node) <= index < len(node):
            yield node[index]

    return select


def by_slice(start: int | None, end: int | None, step: int | None) -> Selector:
    """Every `step`-th element between two places; a step of 0 selects nothing."""

    def select(node: Json, scene: Scene) -> Iterator[Json]:
        if isinstance(node, list) and step != 0:
            for element in node[slice(start, end, step)]:
                scene.meter.step()
                yield element

    return select


def everything(node: Json, scene: Scene) -> Iterator[Json]:
    """All children."""
    for child in _children(node):
        scene.meter.step()
        yield child


def by_condition(condition: Condition) -> Selector:
    """The children for which a condition holds."""

    def select(node: Json, scene: Scene) -> Iterator[Json]:
        for child in _children(node):
            scene.meter.step()
            if condition(child, scene):
                yield child

    return select


def compared(left: Comparable, sign: str, right: Comparable) -> Condition:
    """A comparison as RFC 9535 section 2.3.5.2.2 defines it: of unlike kinds only != holds."""
    test = _COMPARISONS[sign]

    def holds(node: Json, scene: Scene) -> bool:
        return test(left(node, scene), right(node, scene), scene.meter)

    return holds


def _equal(one: "Json | _Nothing", other: "Json | _Nothing", meter: StepMeter) -> bool:
    meter.step()
    match one, other:
        case bool(), bool():
            return one is other
        case (bool(), _) | (_, bool()):
            return False
        case dict(), dict():
            return one.keys() == other.keys() and all(
                _equal(value, other[name], meter) for name, value in one.items()
            )
        case list(), list():
            pairs = zip(one, other, strict=False)
            return len(one) == len(other) and all(_equal(*pair, meter) for pair in pairs)
        case _:
            return one == other


def _less(one: "Json | _Nothing", other: "Json | _Nothing", meter: StepMeter) -> bool:
    meter.step()
    if isinstance(one, bool) or isinstance(other, bool):
        return False
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one < other
    return isinstance(one, str) and isinstance(other, str) and one < other


_Test: TypeAlias = Callable[["Json | _Nothing", "Json | _Nothing", StepMeter], bool]
_COMPARISONS: Mapping[str, _Test] = {
    "==": _equal,
    "!=": lambda one, other, meter: not _equal(one, other, meter),
    "<": _less,
    ">": lambda one, other, meter: _less(other, one, meter),
    "<=": lambda one, other, meter: _less(one, other, meter) or _equal(one, other, meter),
    ">=": lambda one, other, meter: _less(other, one, meter) or _equal(one, other, meter),
}


def at_pointer(document: Json, pointer: str) -> Json:
    """The value at a JSON pointer (RFC 6901). ToolError when there is none."""
    if pointer and not pointer.startswith("/"):
        raise ToolError("a JSON pointer begins with /, a JSONPath with $")
    here = document
    for token in pointer.split("/")[1:]:
        here = _one_down(here, token)
    return here


def _one_down(here: Json, token: str) -> Json:
    if "~" in token.replace("~0", "").replace("~1", ""):
        raise ToolError("in a JSON pointer ~ stands only in ~0 and ~1")
    name = token.replace("~1", "/").replace("~0", "~")
    if isinstance(here, dict) and name in here:
        return here[name]
    is_index = name.isascii() and name.isdecimal() and (name == "0" or name[0] != "0")
    if isinstance(here, list) and is_index and len(name) < 10 and int(name) < len(here):  # noqa: PLR2004 - nine digits are enough
        return here[int(name)]
    raise ToolError("there is nothing at that pointer")
