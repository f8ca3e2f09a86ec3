"""Tells what the words of a shell command become, as far as that is known before it runs.

Threat: Privilege escalation via tool calls
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from app.tools.shell_tree import Glob, Opaque, Parameter, Piece, Text, Word

# Stands in a shape for what is not known; no command that is read holds this character.
UNKNOWN = "\0"
_MAX_BRACED = 64
_MAX_BRACES = 16
_BRACE = re.compile(r"([{},])")
_SEQUENCE = re.compile(r"[^{},]*\.\.[^{},]*")
_BLANKS = re.compile(r"[ \t\n]+")
_PATTERN_SIGNS = frozenset("*?[\\")


@dataclass(frozen=True, slots=True)
class Value:
    """An argument: its text with `UNKNOWN` in the places that only running tells."""

    shape: str
    # Any number of words; only the first is sure to begin as the shape does.
    is_split: bool = False

    @property
    def text(self) -> str | None:
        """The whole text when it is known."""
        return None if self.is_split or UNKNOWN in self.shape else self.shape

    @property
    def known(self) -> tuple[str, ...]:
        """The parts that are known."""
        return tuple(part for part in self.shape.split(UNKNOWN) if part)

    def may_be_flag(self) -> bool:
        """Whether a word that this becomes can begin with a dash and be a flag."""
        if self.is_split or self.shape[:1] == "-":
            return True
        return self.shape[:1] == UNKNOWN and all(_FLAG_PART.fullmatch(part) for part in self.known)


_FLAG_PART = re.compile(r"[A-Za-z-]+")


@dataclass(slots=True, kw_only=True)
class Knowledge:
    """What variables hold here, and whether blanks alone divide what they hold."""

    texts: dict[str, str] = field(default_factory=dict)
    is_default_ifs: bool = True


def values(word: Word, knowledge: Knowledge) -> list[Value]:
    """What the word becomes: braces first, then parameters, then the division into words."""
    found: list[Value] = []
    for pieces in _braced(word.pieces):
        found += _Fields(knowledge).of(pieces)
    return found


def one_value(word: Word, knowledge: Knowledge) -> Value:
    """What the word becomes where it is not divided: assigned, or as the target of `>`."""
    shape = "".join(_shapes(word.pieces, knowledge.texts))
    return Value(shape)


def _shapes(pieces: tuple[Piece, ...], texts: Mapping[str, str]) -> Iterator[str]:
    for piece in pieces:
        match piece:
            case Text(text=text):
                yield text
            case Glob(sign=sign):
                yield sign
            case Parameter(name=name):
                yield texts.get(name, UNKNOWN)
            case Opaque():
                yield UNKNOWN


class _Fields:
    """One word after its braces, while it is divided."""

    def __init__(self, knowledge: Knowledge) -> None:
        self._knowledge = knowledge
        self._done: list[Value] = []
        self._parts: list[str] = []
        self._is_begun = False
        self._is_split = False

    def of(self, pieces: tuple[Piece, ...]) -> list[Value]:
        """The words."""
        closes = _closing(pieces)
        is_inside = False
        for place, piece in enumerate(pieces):
            match piece:
                case Text(text=text, is_quoted=is_quoted) if is_inside:
                    # What brackets hold is one unknown character, not these; `]` may be among them.
                    _, closing, after = text.rpartition("]")
                    is_inside = is_quoted or not closing
                    self._add("" if is_inside else after)
                case Text(text=text):
                    self._add(text)
                case Glob(sign="[") if not is_inside:
                    is_inside = place < closes
                    self._add(UNKNOWN if is_inside else "[")
                case Glob():
                    self._add(UNKNOWN)
                case Parameter(name=name, is_quoted=is_quoted):
                    self._parameter(self._knowledge.texts.get(name), is_quoted=is_quoted)
                case Opaque(is_split=is_split):
                    self._add(UNKNOWN)
                    self._is_split = self._is_split or is_split
        self._end()
        return self._done

    def _add(self, text: str) -> None:
        self._parts.append(text)
        self._is_begun = True

    def _end(self) -> None:
        if self._is_begun:
            self._done.append(Value("".join(self._parts), self._is_split))
        self._parts, self._is_begun, self._is_split = [], False, False

    def _parameter(self, text: str | None, *, is_quoted: bool) -> None:
        if is_quoted:
            self._add(UNKNOWN if text is None else text)
            return
        if text is None or not self._knowledge.is_default_ifs or _PATTERN_SIGNS & set(text):
            self._add(UNKNOWN)
            self._is_split = True
            return
        fields = _BLANKS.split(text)
        for place, part in enumerate(fields):
            if place:
                self._end()
            if part:
                self._add(part)


def _closing(pieces: tuple[Piece, ...]) -> int:
    """Behind this place no `[` is closed: it stands for itself."""
    may_close = [
        place
        for place, piece in enumerate(pieces)
        if not isinstance(piece, Text) or (not piece.is_quoted and "]" in piece.text)
    ]
    closing = [place for place in may_close if pieces[place] != Glob("[")]
    return max(closing, default=-1)


_Item = str | Piece


def _braced(pieces: tuple[Piece, ...]) -> list[tuple[Piece, ...]]:
    """The words that braces make of one. What is not plain becomes unknown from there on."""
    items: list[_Item] = []
    for piece in pieces:
        if isinstance(piece, Text) and not piece.is_quoted:
            parts = enumerate(_BRACE.split(piece.text))
            items += [part if at % 2 else Text(part, is_quoted=False) for at, part in parts if part]
        else:
            items.append(piece)
    opened = items.count("{")
    if not opened:
        return [pieces]
    if opened > _MAX_BRACES or (opened != items.count("}") and "," in items):
        return [_unknown_from(items, items.index("{"))]
    return _expanded(items)


def _expanded(items: list[_Item]) -> list[tuple[Piece, ...]]:
    """The words; a brace without its like, or without a comma in it, stands for itself."""
    for at, item in enumerate(items):
        closing, commas = _closing_brace(items, at) if item == "{" else (0, [])
        inside = items[at + 1 : closing]
        if commas:
            begins = [at, *commas]
            ends = [*commas, closing]
            middles = [
                middle
                for begin, end in zip(begins, ends, strict=True)
                for middle in _expanded(items[begin + 1 : end])
            ]
        elif closing and _SEQUENCE.fullmatch(_plain(inside)):
            middles = [(Opaque(is_split=False),)]
        else:
            continue
        tails = _expanded(items[closing + 1 :])
        if len(middles) * len(tails) > _MAX_BRACED:
            return [_unknown_from(items, at)]
        before = _literal(items[:at])
        return [before + middle + tail for middle in middles for tail in tails]
    return [_literal(items)]


def _closing_brace(items: list[_Item], opening: int) -> tuple[int, list[int]]:
    """Where the brace is closed (0 when it is not), and the commas that divide what it holds."""
    depth, commas = 0, list[int]()
    for at in range(opening, len(items)):
        item = items[at]
        depth += (item == "{") - (item == "}")
        if depth == 0:
            return at, commas
        if depth == 1 and item == ",":
            commas.append(at)
    return 0, []


def _plain(items: list[_Item]) -> str:
    return "".join(
        item if isinstance(item, str) else item.text if isinstance(item, Text) else ""
        for item in items
    )


def _literal(items: list[_Item]) -> tuple[Piece, ...]:
    return tuple(Text(one, is_quoted=False) if isinstance(one, str) else one for one in items)


def _unknown_from(items: list[_Item], at: int) -> tuple[Piece, ...]:
    return (*_literal(items[:at]), Opaque(is_split=True))
