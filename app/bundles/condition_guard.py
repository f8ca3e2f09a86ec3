"""Reads a condition before the engine does, and lets through only what is bounded and known.

A condition is a subset of the Common Expression Language: parts of the feature record, literals,
operators, `size`, `has`, `startsWith`, `endsWith`, `contains`, and `exists`, `exists_one`, `all`
and `filter` over a list of the record, never one within another. A name that no record has is an
error here and not a rule that never fires; so is a word that a part can never hold.

Threat: Privilege escalation via tool calls
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from app.bundles.feature_shape import Leaf, Parts, Several, Shape
from app.domain.errors import ConditionRefusedError

MAX_CONDITION_BYTES = 2048
MAX_DEPTH = 24
# The engine goes down one step of the stack for each operator in a row, and has no end to it.
MAX_TOKENS = 500

_TOKEN = re.compile(
    r"""\s*(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)"""
    r"""|(?P<number>\d+(?:\.\d+)?)"""
    r"""|(?P<text>"(?:[^"\\\n]|\\["\\])*"|'(?:[^'\\\n]|\\['\\])*')"""
    r"""|(?P<sign>&&|\|\||[=!<>]=|[<>!?:+\-*/%.,()\[\]]))""",
    re.ASCII,
)
_WORDS = frozenset({"true", "false", "null", "in"})
_OVER_LISTS = frozenset({"exists", "exists_one", "all", "filter"})
_OF_TEXT = frozenset({"startsWith", "endsWith", "contains"})
_FUNCTIONS = frozenset({"size", "has"})
_OPENING = {"(": ")", "[": "]"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scope:
    """Which names mean something; within a comprehension, those that one binds as well."""

    names: Mapping[str, Shape]
    is_inner: bool = False


def check_condition(source: str, variables: Mapping[str, Shape]) -> None:
    """ConditionRefusedError for what is too long, too deep, unbounded or of an unknown name.

    What passes may still be no whole expression: that is the engine's to say.
    """
    if len(source.encode("utf-8", "replace")) > MAX_CONDITION_BYTES:
        raise ConditionRefusedError(f"longer than {MAX_CONDITION_BYTES} bytes")
    tokens = _tokens(source)
    _Reading(tokens).expression(0, len(tokens), _Scope(names=variables), 0)


def _tokens(source: str) -> list[_Token]:
    found: list[_Token] = []
    at, end = 0, len(source.rstrip())
    while at < end:
        match = _TOKEN.match(source, at)
        if match is None or match.lastgroup is None:
            raise ConditionRefusedError(f"what stands at character {at + 1} cannot be read")
        token = _Token(kind=match.lastgroup, text=match[match.lastgroup])
        # `r"x"`, `1u` and three quotes mean something of their own in CEL, and are not needed.
        is_glued = match.start(match.lastgroup) == at and bool(found)
        if is_glued and token.kind != "sign" and found[-1].kind != "sign":
            raise ConditionRefusedError(f"what stands at character {at + 1} cannot be read")
        found.append(token)
        at = match.end()
    if not found:
        raise ConditionRefusedError("it is empty")
    if len(found) > MAX_TOKENS:
        raise ConditionRefusedError(f"more than {MAX_TOKENS} words and signs")
    return found


class _Reading:
    """One pass over the tokens of a condition."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self._tokens = tokens

    def expression(self, at: int, end: int, scope: _Scope, depth: int) -> None:
        """Everything from one token up to another. ConditionRefusedError."""
        if depth > MAX_DEPTH:
            raise ConditionRefusedError(f"nested more than {MAX_DEPTH} deep")
        while at < end:
            token = self._tokens[at]
            if token.kind == "name" and token.text not in _WORDS:
                at = self._named(at, end, scope, depth)
            elif token.text in _OPENING:
                close = self._close(at, end)
                self.expression(at + 1, close, scope, depth + 1)
                at = close + 1
            elif token.text in (".", ")", "]"):
                raise ConditionRefusedError(f"'{token.text}' stands where it means nothing")
            else:
                at += 1

    def _named(self, at: int, end: int, scope: _Scope, depth: int) -> int:
        """A name and what hangs on it; where it ends."""
        name = self._tokens[at].text
        if self._is(at + 1, end, "("):
            if name not in _FUNCTIONS:
                raise ConditionRefusedError(f"no such function: {name}")
            close = self._close(at + 1, end)
            self.expression(at + 2, close, scope, depth + 1)
            return close + 1
        shape = scope.names.get(name)
        if shape is None:
            raise ConditionRefusedError(f"no such variable: {name}")
        begun, at = at, at + 1
        while at < end and self._tokens[at].text in (".", "["):
            if self._is(at, end, "["):
                shape, at = self._indexed(at, end, shape), at + 3
                continue
            at += 1
            member = self._tokens[at].text if at < end else ""
            if self._is(at + 1, end, "("):
                shape, at = self._called(at, end, shape, scope, depth)
            else:
                shape, at = _member(shape, member), at + 1
        self._check_words(begun, at, end, shape)
        return at

    def _indexed(self, at: int, end: int, shape: Shape) -> Shape:
        is_place = at + 2 < end and self._tokens[at + 1].text.isdigit()
        if not isinstance(shape, Several) or not is_place or not self._is(at + 2, end, "]"):
            raise ConditionRefusedError("only a list has places, and only by a number")
        return shape.of

    def _called(
        self, at: int, end: int, shape: Shape, scope: _Scope, depth: int
    ) -> tuple[Shape, int]:
        """A function of a part: what it gives, and where the call ends."""
        name, close = self._tokens[at].text, self._close(at + 1, end)
        if name in _OVER_LISTS:
            inner = self._bound(at + 2, close, name, shape, scope)
            self.expression(at + 4, close, inner, depth + 1)
            return (shape if name == "filter" else Leaf()), close + 1
        is_countable = isinstance(shape, Several) or (isinstance(shape, Leaf) and shape.is_text)
        if name == "size" and is_countable and close == at + 2:
            return Leaf(), close + 1
        if name in _OF_TEXT and isinstance(shape, Leaf) and shape.is_text:
            self.expression(at + 2, close, scope, depth + 1)
            return Leaf(), close + 1
        raise ConditionRefusedError(f"no such function here: {name}")

    def _bound(self, at: int, close: int, name: str, shape: Shape, scope: _Scope) -> _Scope:
        """What may be named within a comprehension."""
        if scope.is_inner:
            raise ConditionRefusedError(f"{name} within another one")
        if not isinstance(shape, Several):
            raise ConditionRefusedError(f"{name} is for a list")
        variable = self._tokens[at]
        is_free = variable.kind == "name" and variable.text not in {*_WORDS, *scope.names}
        if not is_free or not self._is(at + 1, close, ","):
            raise ConditionRefusedError(f"{name} takes a name of its own and a condition")
        names = {**scope.names, variable.text: shape.of}
        return replace(scope, names=names, is_inner=True)

    def _check_words(self, begun: int, at: int, end: int, shape: Shape) -> None:
        """A part that can hold only certain words is compared with these and no others."""
        leaf = shape.of if isinstance(shape, Several) else shape
        if not isinstance(leaf, Leaf) or leaf.words is None:
            return
        beside: list[_Token] = []
        if isinstance(shape, Several):
            if begun > 1 and self._tokens[begun - 1].text == "in":
                beside = [self._tokens[begun - 2]]
        elif at + 1 < end and self._tokens[at].text in ("==", "!="):
            beside = [self._tokens[at + 1]]
        elif self._is(at + 1, end, "[") and self._tokens[at].text == "in":
            beside = [*self._tokens[at + 2 : self._close(at + 1, end)]]
        if begun > 1 and self._tokens[begun - 1].text in ("==", "!="):
            beside.append(self._tokens[begun - 2])
        for token in beside:
            if token.kind == "text" and token.text[1:-1] not in leaf.words:
                raise ConditionRefusedError(f"never so: {token.text[1:-1][:64]}")

    def _is(self, at: int, end: int, text: str) -> bool:
        return at < end and self._tokens[at].text == text

    def _close(self, at: int, end: int) -> int:
        """Where the bracket at this token is closed."""
        open_ones: list[str] = []
        for place in range(at, end):
            text = self._tokens[place].text
            if text in _OPENING:
                open_ones.append(_OPENING[text])
            elif text in (")", "]"):
                if text != open_ones.pop():
                    break
                if not open_ones:
                    return place
        raise ConditionRefusedError("a bracket is not closed")


def _member(shape: Shape, name: str) -> Shape:
    found = shape.named.get(name) if isinstance(shape, Parts) else None
    if found is None:
        raise ConditionRefusedError(f"no such part: {name}")
    return found
