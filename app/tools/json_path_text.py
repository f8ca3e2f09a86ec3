"""Reads the text of a JSONPath (RFC 9535 without functions) into what app/tools/json_path.py walks.

What it does not know it refuses, with the place; the text and its nesting are bounded.
"""

import json
import re
from typing import NoReturn

from app.domain.errors import ToolError
from app.domain.run import Json
from app.tools.json_path import (
    NOTHING,
    Comparable,
    Condition,
    Segment,
    Selector,
    by_condition,
    by_index,
    by_name,
    by_slice,
    compared,
    everything,
    nodes,
)

MAX_CHARS = 512
MAX_NESTING = 8

_BLANK = re.compile(r"[ \t\n\r]*")
_NAME = re.compile(r"[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_\u0080-\U0010ffff]*")
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,14}(?![0-9])")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,30})(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?")
_DOUBLE = re.compile(r'"((?:[^"\\\x00-\x1f]|\\.)*)"')
_SINGLE = re.compile(r"'((?:[^'\\\x00-\x1f]|\\.)*)'")
_SIGN = re.compile(r"==|!=|<=|>=|<|>")
_WORD = re.compile(r"(?:true|false|null)(?![A-Za-z0-9_])")
_WORDS: dict[str, Json] = {"true": True, "false": False, "null": None}


def read_json_path(text: str) -> tuple[Segment, ...]:
    """The segments of a JSONPath. ToolError for what is not one, or uses a function."""
    if len(text) > MAX_CHARS:
        raise ToolError(f"the query is longer than {MAX_CHARS} characters")
    reader = _Reader(text)
    reader.expect("$")
    segments = reader.segments(0)
    if reader.at != len(text):
        reader.fail()
    return segments


class _Reader:
    """Goes through the text once, left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.at = 0

    def fail(self) -> NoReturn:
        raise ToolError(f"the JSONPath is not well formed at character {self.at + 1}")

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self.at)
        if found is not None:
            self.at = found.end()
        return found

    def _skip(self) -> None:
        self._match(_BLANK)

    def _take(self, sign: str) -> bool:
        taken = self._text.startswith(sign, self.at)
        self.at += len(sign) * taken
        return taken

    def expect(self, sign: str) -> None:
        if not self._take(sign):
            self.fail()

    def segments(self, nesting: int) -> tuple[Segment, ...]:
        """As many segments as stand here."""
        found: list[Segment] = []
        while True:
            before = self.at
            self._skip()
            if self._take(".."):
                inner = self._bracketed(nesting) if self._take("[") else (self._member(),)
                found.append(Segment(selectors=inner, is_descendant=True))
            elif self._take("."):
                found.append(Segment(selectors=(self._member(),)))
            elif self._take("["):
                found.append(Segment(selectors=self._bracketed(nesting)))
            else:
                self.at = before
                return tuple(found)

    def _member(self) -> Selector:
        if self._take("*"):
            return everything
        name = self._match(_NAME)
        if name is None:
            self.fail()
        return by_name(name[0])

    def _bracketed(self, nesting: int) -> tuple[Selector, ...]:
        found: list[Selector] = []
        while True:
            self._skip()
            found.append(self._selector(nesting))
            self._skip()
            if self._take("]"):
                return tuple(found)
            self.expect(",")

    def _selector(self, nesting: int) -> Selector:
        if self._take("*"):
            return everything
        if self._take("?"):
            return by_condition(self._either(nesting + 1))
        name = self._string()
        return self._places() if name is None else by_name(name)

    def _places(self) -> Selector:
        """An index or a slice."""
        start = self._integer()
        self._skip()
        if not self._take(":"):
            if start is None:
                self.fail()
            return by_index(start)
        self._skip()
        end = self._integer()
        self._skip()
        step = None
        if self._take(":"):
            self._skip()
            step = self._integer()
        return by_slice(start, end, step)

    def _integer(self) -> int | None:
        found = self._match(_INTEGER)
        return None if found is None else int(found[0])

    def _string(self) -> str | None:
        double, single = self._match(_DOUBLE), self._match(_SINGLE)
        if double is not None:
            inside = double[1]
        elif single is not None:
            # What JSON escapes and what a single-quoted text escapes differ only in the quotes.
            inside = re.sub(r"\\'|\"|(\\[^'])", _requoted, single[1])
        else:
            return None
        try:
            text = json.loads(f'"{inside}"')
            text.encode()
        except (ValueError, AttributeError):
            self.fail()
        return str(text)

    def _either(self, nesting: int) -> Condition:
        """Conditions of which one must hold."""
        if nesting > MAX_NESTING:
            raise ToolError("the JSONPath is nested too deeply")
        parts = [self._all(nesting)]
        self._skip()
        while self._take("||"):
            parts.append(self._all(nesting))
            self._skip()
        return lambda node, scene: any(part(node, scene) for part in parts)

    def _all(self, nesting: int) -> Condition:
        """Conditions that must all hold."""
        parts = [self._single(nesting)]
        self._skip()
        while self._take("&&"):
            parts.append(self._single(nesting))
            self._skip()
        return lambda node, scene: all(part(node, scene) for part in parts)

    def _single(self, nesting: int) -> Condition:
        self._skip()
        if self._take("!"):
            self._skip()
            denied = self._grouped(nesting) if self._take("(") else self._exists(nesting)
            return lambda node, scene: not denied(node, scene)
        if self._take("("):
            return self._grouped(nesting)
        return self._comparison(nesting)

    def _grouped(self, nesting: int) -> Condition:
        inner = self._either(nesting + 1)
        self._skip()
        self.expect(")")
        return inner

    def _exists(self, nesting: int) -> Condition:
        is_root = self._text.startswith("$", self.at)
        if not (self._take("@") or self._take("$")):
            self.fail()
        path = self.segments(nesting + 1)
        return lambda node, scene: bool(nodes(path, scene.root if is_root else node, scene))

    def _comparison(self, nesting: int) -> Condition:
        """A comparison, or a query that is true when it finds something."""
        before = self.at
        left = self._comparable(nesting)
        self._skip()
        sign = self._match(_SIGN)
        if sign is None:
            self.at = before
            return self._exists(nesting)
        self._skip()
        return compared(_singular(left, self), sign[0], _singular(self._comparable(nesting), self))

    def _comparable(self, nesting: int) -> Comparable | None:
        """A literal or a query; None for a query that may find more than one node."""
        text, word = self._string(), self._match(_WORD)
        if text is not None:
            return lambda _node, _scene: text
        if word is not None:
            value = _WORDS[word[0]]
            return lambda _node, _scene: value
        number = self._match(_NUMBER)
        if number is not None:
            amount: Json = json.loads(number[0])
            return lambda _node, _scene: amount
        is_root, start = self._text.startswith("$", self.at), self.at
        if not (self._take("@") or self._take("$")):
            self.fail()
        path = self.segments(nesting + 1)
        if not _IS_SINGULAR.fullmatch(self._text, start + 1, self.at):
            return None
        return lambda node, scene: next(
            iter(nodes(path, scene.root if is_root else node, scene)), NOTHING
        )


# Names and single places only: at most one node (RFC 9535 section 2.3.5.1).
_IS_SINGULAR = re.compile(
    rf"(?:{_BLANK.pattern}(?:\.{_NAME.pattern}"
    rf"|\[{_BLANK.pattern}(?:{_INTEGER.pattern}|{_DOUBLE.pattern}|{_SINGLE.pattern})"
    rf"{_BLANK.pattern}\]))*"
)


def _singular(side: Comparable | None, reader: _Reader) -> Comparable:
    if side is None:
        reader.fail()
    return side


def _requoted(found: re.Match[str]) -> str:
    if found[0] == "\\'":
        return "'"
    if found[0] == '"':
        return '\\"'
    if found[1] == '\\"':  # no escape in a single-quoted text
        return "\\ "
    return found[1]
