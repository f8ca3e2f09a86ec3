"""Reads the words of a shell command: quotes, expansions, and what is run while a word is expanded.

After POSIX.1-2024 (XCU 2.2, 2.6) and the manual of GNU bash 5.2. What shells read differently is an
error here: whoever judges a command must not read it otherwise than whoever runs it.

Threat: Privilege escalation via tool calls
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from itertools import groupby
from typing import NoReturn

from app.domain.errors import UnreadableShellError
from app.tools.shell_quotes import decoded_ansi_c, latent, without_backslashes
from app.tools.shell_tree import Glob, Opaque, Parameter, Piece, Program, Text, Word

MAX_CHARS = 20_000
MAX_NESTING = 20
MAX_NODES = 10_000

_PLAIN = re.compile(r"[^\s'\"\\$`;&|<>()*?\[~]+")
_PLAIN_IN_QUOTES = re.compile(r"[^\"\\$`]+")
_PLAIN_IN_BRACES = re.compile(r"[^\"'\\$`{}\[\]<>]+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Behind `$`: the name, or what else it begins, goes on in the next line.
_JOINED_NAME = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]*)?\\\n")
_PARAMETER = re.compile(r"[#!]?(?:[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?$!_-])|#")
_OPERATOR = re.compile(r"(?P<assigns>:?=)|:[-+?]|(?P<slices>:)|[-+?%#/^,]|@[QEAKUuLak](?=\})")
_ARITHMETIC = re.compile(r"[A-Za-z0-9_ \t+\-*/%<>=!&|^~?:,.;\[\]#@]+")
# A name and a bracket begin a subscript in some places: it may hold blanks, and what looks like a
# comment. Only those that end at the same bracket wherever they stand are read.
SUBSCRIPT = (
    r"\[(?:[^\]\[\s'\"\\`$;&|<>()#]|\$[A-Za-z0-9_#?]+|\$\{[A-Za-z0-9_]+\}"
    r"|\"\$?[^\"\]\\`$\n]*\"|'[^'\]\n]*')*\]"
)
_SUBSCRIPTED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\[")
_SUBSCRIPT = re.compile(rf"[A-Za-z_][A-Za-z0-9_]*{SUBSCRIPT}")
_BLANKS = re.compile(r"(?:[ \t]|\\\n)+")
_WORD_ENDS = frozenset(" \t\n;&|<>()")
AFTER_WORD = _WORD_ENDS | {""}


@dataclass(slots=True)
class Budget:
    """What one command may cost in all, however it is nested."""

    chars: int = 3 * MAX_CHARS
    nodes: int = MAX_NODES
    is_latent: bool = False
    is_evaluating: bool = False
    literals: list[str] = field(default_factory=list)

    def spend(self, *, chars: int = 0, nodes: int = 0) -> None:
        """UnreadableShellError when there is nothing left."""
        self.chars -= chars
        self.nodes -= nodes
        if self.chars < 0 or self.nodes < 0:
            raise UnreadableShellError("the command is too large")


@dataclass(slots=True)
class Found:
    """What is collected while one word is read."""

    pieces: list[Piece] = field(default_factory=list)
    programs: list[Program] = field(default_factory=list)
    assigned: list[str] = field(default_factory=list)


class WordReader(ABC):
    """Goes through the text once, left to right; commands inside words are read by the subclass."""

    def __init__(self, text: str, budget: Budget, nesting: int) -> None:
        if nesting > MAX_NESTING:
            raise UnreadableShellError("the command is nested too deeply")
        budget.spend(chars=len(text))
        self._text = text
        self._budget = budget
        self._nesting = nesting
        self._at = 0
        self._is_document = False

    @abstractmethod
    def _nested_program(self) -> Program:
        """The commands up to the closing parenthesis, which is taken too."""

    @abstractmethod
    def _inner(self, text: str) -> "WordReader":
        """A reader of a text that stands inside this one."""

    @abstractmethod
    def whole_program(self) -> Program:
        """All commands up to the end."""

    def _fail(self) -> NoReturn:
        raise UnreadableShellError("the command is not well formed")

    def _next(self, count: int = 1) -> str:
        return self._text[self._at : self._at + count]

    def _take(self, sign: str) -> bool:
        taken = self._text.startswith(sign, self._at)
        self._at += len(sign) * taken
        return taken

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def _skip_blanks(self) -> None:
        self._match(_BLANKS)

    def _word(self) -> Word | None:
        """The word that stands here, up to a blank or an operator; None if there is none."""
        start, found = self._at, Found()
        if _SUBSCRIPTED.match(self._text, start) and not _SUBSCRIPT.match(self._text, start):
            self._fail()
        while self._at < len(self._text):
            sign = self._next()
            if sign in _WORD_ENDS and not self._is_substitution():
                break
            self._piece(sign, found, is_first=self._at == start)
        return None if self._at == start else self._made(found)

    def _made(self, found: Found) -> Word:
        self._budget.spend(nodes=1 + len(found.pieces))
        pieces = _joined(found.pieces)
        self._note(pieces)
        return Word(pieces=pieces, programs=tuple(found.programs), assigned=tuple(found.assigned))

    def _note(self, pieces: tuple[Piece, ...]) -> None:
        texts = "".join(one.text if isinstance(one, Text) else "\0" for one in pieces)
        self._budget.literals.append(texts)
        self._budget.is_latent = self._budget.is_latent or latent(texts)

    def _is_substitution(self) -> bool:
        return self._next(2) in ("<(", ">(")

    def _piece(self, sign: str, found: Found, *, is_first: bool) -> None:
        plain = self._match(_PLAIN)
        if plain is not None:
            found.pieces.append(Text(plain[0], is_quoted=False))
        elif sign in "<>":
            self._at += 2
            found.programs.append(self._nested_program())
            found.pieces += [Text("/dev/fd/", is_quoted=True), Opaque(is_split=False)]
        elif sign in "*?[":
            self._at += 1
            found.pieces.append(Glob(sign))
        elif sign == "~":
            self._at += 1
            is_home = is_first or self._text[self._at - 2] in "=:"
            found.pieces.append(Opaque(is_split=False) if is_home else Text("~", is_quoted=False))
        elif not self._quoting(sign, found):
            self._fail()

    def _quoting(self, sign: str, found: Found) -> bool:
        """Takes what a quote, a backslash, a dollar or a backquote begins outside of quotes."""
        match sign:
            case "'":
                end = self._text.find("'", self._at + 1)
                if end < 0:
                    self._fail()
                found.pieces.append(Text(self._text[self._at + 1 : end], is_quoted=True))
                self._at = end + 1
            case '"':
                self._at += 1
                self._double_quoted(found)
            case "\\":
                after = self._next(2)[1:]
                if not after:
                    self._fail()
                self._at += 2
                if after != "\n":
                    found.pieces.append(Text(after, is_quoted=True))
                elif self._next() not in AFTER_WORD:
                    self._fail()  # what it joins may be a name, an operator or a reserved word
            case "$":
                self._dollar(found, is_quoted=False)
            case "`":
                self._backquoted(found, is_quoted=False)
            case _:
                return False
        return True

    def _double_quoted(self, found: Found) -> None:
        """Up to the closing quote, which is taken too."""
        found.pieces.append(Text("", is_quoted=True))
        while not self._take('"'):
            self._in_quotes(found)

    def _in_quotes(self, found: Found) -> None:
        """One piece of what stands in double quotes, or in a here-document."""
        plain = self._match(_PLAIN_IN_QUOTES)
        if plain is not None:
            found.pieces.append(Text(plain[0], is_quoted=True))
            return
        match self._next():
            case "\\":
                after = self._next(2)[1:]
                if not after:
                    self._fail()
                self._at += 2
                escaped = {"\n": ""}.get(after, after if after in '$`"\\' else f"\\{after}")
                found.pieces.append(Text(escaped, is_quoted=True))
            case "$":
                self._dollar(found, is_quoted=True)
            case "`":
                self._backquoted(found, is_quoted=True)
            case _:
                self._fail()

    def here_document(self) -> Word:
        """The text as the body of a here-document whose delimiter is not quoted."""
        found = Found()
        self._is_document = True
        while self._at < len(self._text):
            if self._take('"'):
                found.pieces.append(Text('"', is_quoted=True))
            elif self._next(2) == '\\"':
                self._at += 2
                found.pieces.append(Text('\\"', is_quoted=True))
            else:
                self._in_quotes(found)
        return self._made(found)

    def _dollar(self, found: Found, *, is_quoted: bool) -> None:
        self._at += 1
        sign = self._next()
        if sign == "(":
            self._at += 1
            if self._take("("):
                self._arithmetic(found)
            else:
                found.programs.append(self._nested_program())
            found.pieces.append(Opaque(is_split=not is_quoted))
        elif sign == "{":
            self._at += 1
            self._in_braces(found, is_quoted=is_quoted)
        elif sign == "[" or self._match(_JOINED_NAME) is not None:
            self._fail()
        elif sign == "'" and not is_quoted:
            end = _ANSI_C_END.match(self._text, self._at + 1)
            if end is None:
                self._fail()
            found.pieces.append(Text(decoded_ansi_c(end[1]), is_quoted=True))
            self._at = end.end()
        elif sign == '"' and not is_quoted:
            self._at += 1
            self._double_quoted(found)
        elif (name := self._match(_NAME)) is not None:
            found.pieces.append(Parameter(name[0], is_quoted))
        elif sign and sign in "@*#?-$!0123456789":
            self._at += 1
            found.pieces.append(Opaque(is_split=not is_quoted or sign == "@"))
        else:
            found.pieces.append(Text("$", is_quoted=True))

    def _in_braces(self, found: Found, *, is_quoted: bool) -> None:
        """`${...}`, whose opening brace is taken."""
        name = self._match(_PARAMETER)
        if name is None:
            self._fail()
        is_indirect = name[0][:-1].startswith("!")
        self._budget.is_evaluating = self._budget.is_evaluating or is_indirect
        is_many = not is_quoted or "@" in name[0] or is_indirect
        if self._take("["):
            is_many = is_many or self._next() == "@"
            self._subscript(found)
        elif self._take("}"):
            is_plain = _NAME.fullmatch(name[0])
            found.pieces.append(
                Parameter(name[0], is_quoted) if is_plain else Opaque(is_split=is_many)
            )
            return
        operator = self._match(_OPERATOR)
        if operator is not None:
            if operator["assigns"]:
                found.assigned.append(name[0])
            if operator["slices"]:
                self._budget.is_evaluating = True
            is_many = self._operand("}", found, is_quoted=is_quoted) or is_many
        if not self._take("}"):
            self._fail()
        found.pieces.append(Opaque(is_split=is_many))

    def _subscript(self, found: Found) -> None:
        """What stands in `[...]`, with the closing bracket."""
        start = self._at
        self._operand("]", found, is_quoted=True)
        if not self._take("]"):
            self._fail()
        if not _SIMPLE_SUBSCRIPT.match(self._text, start, self._at):
            self._budget.is_evaluating = True

    def _operand(self, closing: str, found: Found, *, is_quoted: bool) -> bool:
        """Goes up to the closing sign; whether what it expands to may be several words."""
        inner = Found(programs=found.programs, assigned=found.assigned)
        while (sign := self._next()) != closing:
            plain = self._match(_PLAIN_IN_BRACES)
            if plain is not None:
                inner.pieces.append(Text(plain[0], is_quoted=False))
            elif sign in ("'", '"') and self._is_document:
                self._fail()  # quotes, or characters of the text
            elif sign == "'" and is_quoted:
                self._apostrophe(inner)
            elif sign == "$":
                self._dollar(inner, is_quoted=is_quoted)
            elif sign == "`":
                self._backquoted(inner, is_quoted=is_quoted)
            elif sign in ("[", "]") or (sign in ("<", ">") and not self._is_substitution()):
                self._at += 1
                inner.pieces.append(Text(sign, is_quoted=False))
            elif sign in ("", "{", "}", "<", ">") or not self._quoting(sign, inner):
                self._fail()
        self._note(_joined(inner.pieces))
        return any(isinstance(piece, Opaque) and piece.is_split for piece in inner.pieces)

    def _apostrophe(self, found: Found) -> None:
        """In double quotes it quotes for some operators and not for others: allowed where equal."""
        end = self._text.find("'", self._at + 1)
        between = self._text[self._at + 1 : end]
        if end < 0 or not _SAME_EITHER_WAY.fullmatch(between):
            self._fail()
        found.pieces.append(Text(between, is_quoted=True))
        self._at = end + 1

    def _arithmetic(self, found: Found) -> None:
        """`((...))`, whose opening parentheses are taken. What it names it may assign."""
        depth = 0
        while depth >= 0:
            sign = self._next()
            plain = self._match(_ARITHMETIC)
            if plain is not None:
                if plain[0][-1] in "<>" and self._next() == "(":
                    self._fail()
                names = _NAME.findall(plain[0])
                found.assigned += names
                self._budget.spend(nodes=len(names))
                self._budget.is_evaluating = self._budget.is_evaluating or bool(names)
            elif sign in ("(", ")"):
                self._at += 1
                depth += 1 if sign == "(" else -1
            elif sign == "$":
                self._budget.is_evaluating = True
                self._dollar(
                    Found(programs=found.programs, assigned=found.assigned), is_quoted=True
                )
            elif sign == "`":
                self._budget.is_evaluating = True
                self._backquoted(found, is_quoted=True)
            else:
                self._fail()
        if not self._take(")"):
            self._fail()  # a subshell in a subshell, to some

    def _backquoted(self, found: Found, *, is_quoted: bool) -> None:
        end = _BACKQUOTE_END.match(self._text, self._at + 1)
        if end is None or (is_quoted and '\\"' in end[1]):
            self._fail()
        self._at = end.end()
        inner = self._inner(without_backslashes(end[1]))
        found.programs.append(inner.whole_program())
        found.pieces.append(Opaque(is_split=not is_quoted))


_ANSI_C_END = re.compile(r"((?:[^'\\]|\\.)*)'", re.DOTALL)
_BACKQUOTE_END = re.compile(r"((?:[^`\\]|\\.)*)`", re.DOTALL)
_SIMPLE_SUBSCRIPT = re.compile(r"(?:[0-9]+|[@*])\]")
_SAME_EITHER_WAY = re.compile(r"[^\"'`$\\{}\[\]\n]*")


def _joined(pieces: list[Piece]) -> tuple[Piece, ...]:
    """The pieces with texts of one kind that touch made one."""
    joined: list[Piece] = []
    for kind, run in groupby(pieces, key=_kind):
        if kind is None:
            joined += run
        else:
            text = "".join(piece.text for piece in run if isinstance(piece, Text))
            joined.append(Text(text, is_quoted=kind))
    return tuple(joined)


def _kind(piece: Piece) -> bool | None:
    """Whether a text is quoted; None for what is no text."""
    return piece.is_quoted if isinstance(piece, Text) else None
