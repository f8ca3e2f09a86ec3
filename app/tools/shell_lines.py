"""Reads what surrounds the words of a shell command: lines, comments, assignments, redirections.

After POSIX.1-2024 (XCU 2.3, 2.7) and the manual of GNU bash 5.2. The body of a here-document begins
behind the line that announces it; one that readers would end differently is an error.

Threat: Privilege escalation via tool calls
"""

import re
from typing import NamedTuple

from app.tools.shell_tree import Assignment, Redirect, Text, Word
from app.tools.shell_words import AFTER_WORD, SUBSCRIPT, Budget, Found, WordReader

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?=|\[)")
_ARRAY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\+?=\(")
_REDIRECT = re.compile(
    r"([0-9]{1,9}|\{[A-Za-z_][A-Za-z0-9_]*\})?(<<<|<<-|<<|<&|<>|<(?!\()|>>|>&|>\||>(?!\())|(&>>|&>)"
)
_COMMENT = re.compile(r"#[^\n]*")
_DELIMITER = re.compile(r"(['\"]?)(\\?)([A-Za-z0-9_.!@%+=:,/-]+)\1(?=[ \t\n;&|<>()]|\Z)")
_LINE = re.compile(r"[^\n]*")
_JOINED_LINE = re.compile(r"(?:[^\\\n]|\\(?:.|\n|\Z))*", re.DOTALL)
_MAX_DOCUMENTS = 16
_KEY = re.compile(SUBSCRIPT)
_ELEMENT = re.compile(rf"[A-Za-z_][A-Za-z0-9_]*{SUBSCRIPT}\+?=")
_JOIN = re.compile(r"\\.", re.DOTALL)


class _Document(NamedTuple):
    """A here-document whose body has not come yet."""

    at: int
    delimiter: str
    is_quoted: bool
    is_indented: bool


class LineReader(WordReader):
    """Keeps the here-documents that are announced, until their line ends."""

    def __init__(self, text: str, budget: Budget, nesting: int) -> None:
        super().__init__(text, budget, nesting)
        self._documents: list[_Document] = []
        self._bodies: list[Word] = []
        self._is_substituted = False

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            self._fail()

    def _blank(self) -> None:
        """Blanks, and the comment that may follow them."""
        self._skip_blanks()
        comment = self._match(_COMMENT)
        if comment is not None:
            self._note((Text(comment[0], is_quoted=True),))  # a shell can read its own text

    def _newlines(self) -> None:
        self._blank()
        while self._take("\n"):
            self._read_documents()
            self._blank()

    def _assignment(self, *, is_argument: bool) -> Assignment | None:
        """An assignment; as an argument only one of an array, for others read as words do."""
        found = _ASSIGNMENT.match(self._text, self._at)
        if found is None or (is_argument and _ARRAY.match(self._text, self._at) is None):
            return None
        element = _ELEMENT.match(self._text, self._at) if found[2] == "[" else None
        if found[2] == "[" and element is None:
            return None
        self._at = found.end()
        if element is not None:
            key = Found()
            self._subscript(key)
            self._take("+")
            self._expect("=")
            return Assignment(name=found[1], value=None, words=(self._made(key), self._value()))
        if self._take("("):
            return Assignment(name=found[1], value=None, words=tuple(self._array()))
        value = self._value()
        if found[2] == "+=":
            return Assignment(name=found[1], value=None, words=(value,))
        return Assignment(name=found[1], value=value)

    def _value(self) -> Word:
        word = self._word()
        return Word(pieces=()) if word is None else word

    def _array(self) -> list[Word]:
        words: list[Word] = []
        self._newlines()
        while not self._take(")"):
            if self._next() == "[":
                if _KEY.match(self._text, self._at) is None:
                    self._fail()
                self._budget.is_evaluating = True
            word = self._word()
            if word is None:
                self._fail()
            words.append(word)
            self._newlines()
        if self._next() not in AFTER_WORD:
            self._fail()  # the word goes on, and what looks like a comment is none
        return words

    def _redirect_into(self, redirects: list[Redirect]) -> bool:
        """Takes the redirection that stands here, if one does."""
        found = self._match(_REDIRECT)
        if found is None:
            return False
        operator = found[2] or found[3]
        variable = found[1].strip("{}") if found[1] and found[1][0] == "{" else None
        self._skip_blanks()
        if operator in ("<<", "<<-"):
            self._announce(is_indented=operator == "<<-")
            target = Word(pieces=())
        else:
            read = self._word()
            if read is None:
                self._fail()
            target = read
        redirects.append(Redirect(operator=operator, target=target, variable=variable))
        return True

    def _announce(self, *, is_indented: bool) -> None:
        start, found = self._at, self._match(_DELIMITER)
        if found is None or (found[1] and found[2]) or len(self._documents) >= _MAX_DOCUMENTS:
            self._fail()
        self._documents.append(
            _Document(
                at=start,
                delimiter=found[3],
                is_quoted=bool(found[1] or found[2]),
                is_indented=is_indented,
            )
        )

    def _read_documents(self) -> None:
        """The bodies that begin behind this newline. They run with the command, wherever it is."""
        for document in self._documents:
            if "\n" in self._text[document.at : self._at - 1]:
                self._fail()  # a quote or a substitution goes over the end of the line
        waiting, self._documents = self._documents, []
        for document in waiting:
            body = self._body(document)
            if document.is_quoted:
                self._bodies.append(self._made(Found(pieces=[Text(body, is_quoted=True)])))
            else:
                self._bodies.append(self._inner(body).here_document())

    def _body(self, document: _Document) -> str:
        pattern, lines = (_LINE if document.is_quoted else _JOINED_LINE), list[str]()
        while self._at < len(self._text):
            found = self._match(pattern)
            line = "" if found is None else found[0]
            if not document.is_quoted:
                line = _JOIN.sub(lambda pair: "" if pair[0] == "\\\n" else pair[0], line)
            line = line.lstrip("\t") if document.is_indented else line
            is_last = not self._take("\n")
            if line == document.delimiter:
                self._at -= not is_last
                return "\n".join(lines)
            if is_last or (self._is_substituted and line.startswith(document.delimiter)):
                break
            lines.append(line)
        return self._fail()
