"""Reads a shell command into a bounded tree: lists, pipelines, compound commands, redirections.

After POSIX.1-2024 (XCU 2.10) and the manual of GNU bash 5.2, in time linear in the text. What it
does not know for certain is an error, never a guess.

Threat: Privilege escalation via tool calls
"""

import re
from dataclasses import replace

from app.domain.errors import UnreadableShellError
from app.tools.shell_lines import LineReader
from app.tools.shell_tree import (
    Assignment,
    Block,
    Chain,
    Command,
    Function,
    Opaque,
    Program,
    Redirect,
    ShellText,
    Simple,
    Word,
)
from app.tools.shell_words import MAX_CHARS, MAX_NESTING, Budget, Found

_RESERVED = re.compile(
    r"if|then|elif|else|fi|do|done|case|esac|while|until|for|select|in|function|time|coproc"
    r"|\{|\}|!|\[\[|\]\]"
)
_STARTS = re.compile(
    r"(if|while|until|for|select|case|function|coproc|time|\[\[|\{|!)(?=[ \t\n;&|<>()]|\Z)"
)
_ENDS = re.compile(r"(then|elif|else|fi|do|done|esac|\})(?=[ \t\n;&|<>()]|\Z)")
_PREFIX = re.compile(r"!(?=[ \t\n(])|time(?:[ \t]+-p)?(?:[ \t]+--)?(?=[ \t\n(])")
_IN = re.compile(r"in(?=[ \t\n;])")
_ESAC = re.compile(r"esac(?=[ \t\n;&|<>()]|\Z)")
_CONDITION_END = re.compile(r"\]\](?=[ \t\n;&|<>()]|\Z)")
_CONDITION_SIGN = re.compile(r"&&|\|\||[()]|[<>](?!\()")
_PATTERN_ENDS = frozenset(["", " ", "\t", "\n", ";", "&", ")", "<", ">"])
_IN_PATTERN = frozenset(" \t;&)")
_MATCHING = re.compile(r"(?:=~|==|=|!=)(?=[ \t])")
_PARENTHESES = re.compile(r"[ \t]*\([ \t]*\)")
_FUNCTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]*(?=[ \t\n({]|\Z)")
_AFTER_NAME = frozenset(["", " ", "\t", "\n", ";"])
_AFTER_THEN = ("elif", "else", "fi")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNREADABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_DECLARING = frozenset({"declare", "export", "local", "readonly", "typeset"})
_EVALUATING = frozenset({"-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-v"})


def read_shell(text: str) -> ShellText:
    """The tree. UnreadableShellError for what is too large, not well formed, or not plain."""
    if len(text) > MAX_CHARS:
        raise UnreadableShellError("the command is too large")
    if _UNREADABLE.search(text):
        raise UnreadableShellError("the command is not well formed")
    budget = Budget()
    program = GrammarReader(text, budget, 0).whole_program()
    return ShellText(
        program=program,
        is_latent=budget.is_latent,
        is_evaluating=budget.is_evaluating,
        literals=tuple(budget.literals),
    )


class GrammarReader(LineReader):
    """Reads commands; the words in them are read by what it extends."""

    def _inner(self, text: str) -> "GrammarReader":
        return GrammarReader(text, self._budget, self._nesting + 1)

    def whole_program(self) -> Program:
        """All commands up to the end."""
        program = self._program()
        if self._at != len(self._text) or self._documents:
            self._fail()
        return program

    def _nested_program(self) -> Program:
        outside, was_substituted = self._documents, self._is_substituted
        self._documents, self._is_substituted = [], True
        program = self._deeper_program()
        if self._documents or not self._take(")"):
            self._fail()
        self._documents, self._is_substituted = outside, was_substituted
        return program

    def _deeper_program(self) -> Program:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            raise UnreadableShellError("the command is nested too deeply")
        program = self._program()
        self._nesting -= 1
        return program

    def _is_stop(self) -> bool:
        sign = self._next(2)
        return (
            sign in ("", ";;", ";&")
            or sign[0] == ")"
            or _ENDS.match(self._text, self._at) is not None
        )

    def _program(self) -> Program:
        chains: list[Chain] = []
        self._newlines()
        while not self._is_stop():
            chain = self._chain()
            chains.append(chain)
            self._blank()
            if self._is_stop():
                break
            if not (chain.is_background or self._next() == "\n" or self._take(";")):
                self._fail()
            self._newlines()
        bodies = [
            Simple(assignments=(), words=(), redirects=(Redirect(operator="<<", target=body),))
            for body in self._bodies
        ]
        self._bodies = []
        chains += [Chain(pipelines=((body,),), is_background=False) for body in bodies]
        return Program(chains=tuple(chains))

    def _chain(self) -> Chain:
        pipelines = [self._pipeline()]
        while True:
            self._blank()
            if self._take("&&") or self._take("||"):
                self._newlines()
                pipelines.append(self._pipeline())
            else:
                return Chain(pipelines=tuple(pipelines), is_background=self._take("&"))

    def _pipeline(self) -> tuple[Command, ...]:
        commands = [self._command()]
        while True:
            self._blank()
            if self._next(2) == "||" or not self._take("|"):
                return tuple(commands)
            self._take("&")
            self._newlines()
            commands.append(self._command())

    def _command(self) -> Command:
        self._budget.spend(nodes=1)
        self._blank()
        while self._match(_PREFIX) is not None:
            self._blank()
        block = self._block()
        return self._simple() if block is None else block

    def _block(self) -> Command | None:
        """A compound command with its redirections; None when a simple one stands here."""
        found = self._compound()
        if not isinstance(found, Block):
            return found
        redirects: list[Redirect] = []
        self._blank()
        while self._redirect_into(redirects):
            self._blank()
        return replace(found, redirects=tuple(redirects))

    def _compound(self) -> Command | None:
        if self._take("(("):
            return Block(is_group=False, parts=(), words=(self._computed(),))
        if self._take("("):
            program = self._deeper_program()
            self._expect(")")
            return Block(is_group=False, parts=(program,))
        start = self._match(_STARTS)
        return None if start is None else self._begun(start[1])

    def _begun(self, word: str) -> Command:
        """What stands behind the reserved word."""
        match word:
            case "{":
                program = self._deeper_program()
                self._keyword("}")
                return Block(is_group=True, parts=(program,))
            case "if":
                return self._if()
            case "while" | "until":
                return Block(
                    is_group=False, is_tested=True, parts=(self._deeper_program(), self._do())
                )
            case "for" | "select":
                return self._for()
            case "case":
                return self._case()
            case "[[":
                return self._condition()
            case "function":
                self._blank()
                return self._function(self._match(_FUNCTION_NAME))
            case _:
                return self._fail()

    def _keyword(self, *words: str) -> str:
        found = self._match(_ENDS)
        if found is None or found[1] not in words:
            self._fail()
        return found[1]

    def _do(self) -> Program:
        self._keyword("do")
        program = self._deeper_program()
        self._keyword("done")
        return program

    def _if(self) -> Block:
        parts = [self._deeper_program()]
        word = self._keyword("then")
        while word != "fi":
            parts.append(self._deeper_program())
            word = self._keyword(*{"else": ("fi",), "elif": ("then",)}.get(word, _AFTER_THEN))
        return Block(is_group=False, is_tested=True, parts=tuple(parts))

    def _computed(self) -> Word:
        """The rest of `((...))`."""
        found = Found()
        self._arithmetic(found)
        return self._made(found)

    def _for(self) -> Block:
        self._blank()
        if self._take("(("):
            words, assigned = [self._computed()], tuple[str, ...]()
            self._blank()
            self._take(";")
        else:
            words, assigned = self._for_words()
        self._newlines()
        return Block(is_group=False, parts=(self._do(),), words=tuple(words), assigned=assigned)

    def _for_words(self) -> tuple[list[Word], tuple[str, ...]]:
        name = self._match(_NAME)
        if name is None or self._next() not in _AFTER_NAME:
            self._fail()
        words: list[Word] = []
        self._blank()
        if not self._take(";"):
            self._newlines()
            if self._match(_IN) is not None:
                words = self._words()
                if not self._take(";") and self._next() != "\n":
                    self._fail()
        return words, (name[0],)

    def _words(self) -> list[Word]:
        words: list[Word] = []
        self._blank()
        while (word := self._word()) is not None:
            words.append(word)
            self._blank()
        return words

    def _case(self) -> Block:
        self._blank()
        subject = self._word()
        self._newlines()
        if subject is None or self._match(_IN) is None:
            self._fail()
        words, parts = [subject], []
        self._newlines()
        while not self._match(_ESAC):
            self._take("(")
            words += self._alternatives()
            self._expect(")")
            parts.append(self._deeper_program())
            if not (self._take(";;&") or self._take(";;") or self._take(";&")):
                self._keyword("esac")
                break
            self._newlines()
        return Block(is_group=False, parts=tuple(parts), words=tuple(words))

    def _alternatives(self) -> list[Word]:
        found: list[Word] = []
        while True:
            words = self._words()
            if len(words) != 1:
                self._fail()
            found += words
            if not self._take("|"):
                return found

    def _condition(self) -> Block:
        """`[[ ... ]]`: nothing in it runs but what its words expand."""
        words: list[Word] = []
        while True:
            self._newlines()
            if self._match(_CONDITION_END) is not None:
                return Block(is_group=False, parts=(), words=tuple(words))
            if self._match(_CONDITION_SIGN) is not None:
                continue
            if self._match(_MATCHING) is not None:
                self._skip_blanks()
                words.append(self._pattern())
                continue
            word = self._word()
            if word is None:
                self._fail()
            words.append(word)
            if word.bare in _EVALUATING:
                self._budget.is_evaluating = True

    def _pattern(self) -> Word:
        """What a text is matched against: parentheses and bars belong to it."""
        found, depth, start = Found(), 0, self._at
        while (sign := self._next()) not in _PATTERN_ENDS or (depth and sign in _IN_PATTERN):
            is_opened = sign == "("
            if is_opened or sign == "|" or sign in _IN_PATTERN:
                self._at += 1
                depth += is_opened - (sign == ")")
                found.pieces.append(Opaque(is_split=False))
            else:
                self._piece(sign, found, is_first=self._at == start)
        text = self._text[start : self._at]
        if depth or text[:1] in ("", "#") or text == "]]":
            self._fail()
        return self._made(found)

    def _function(self, name: "re.Match[str] | None") -> Function:
        """Behind `function`, or behind the name and its parentheses."""
        if name is None or _RESERVED.fullmatch(name[0]):
            self._fail()
        self._match(_PARENTHESES)
        self._newlines()
        body = self._block()
        if not isinstance(body, Block):
            self._fail()
        return Function(name=name[0], body=body)

    def _simple(self) -> Simple | Function:
        assignments: list[Assignment] = []
        words: list[Word] = []
        redirects: list[Redirect] = []
        while True:
            self._blank()
            if self._redirect_into(redirects):
                continue
            is_open = not words or words[0].bare in _DECLARING
            assignment = self._assignment(is_argument=bool(words)) if is_open else None
            if assignment is not None:
                assignments.append(assignment)
                continue
            start = self._at
            word = self._word()
            if word is None:
                break
            words.append(word)
            if len(words) == 1 and not (assignments or redirects) and self._is_function():
                return self._function(_FUNCTION_NAME.fullmatch(self._text[start : self._at]))
        is_reserved = bool(words) and _RESERVED.fullmatch(words[0].bare or "")
        if is_reserved or not (assignments or words or redirects):
            self._fail()
        return Simple(
            assignments=tuple(assignments), words=tuple(words), redirects=tuple(redirects)
        )

    def _is_function(self) -> bool:
        return _PARENTHESES.match(self._text, self._at) is not None
