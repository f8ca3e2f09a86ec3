"""Goes through a read shell command in the order it runs, and judges every command in it.

Variables: a name that the whole text assigns once, plainly, is known wherever that assignment has
run for certain. All others are unknown, whatever they hold.

Threat: Privilege escalation via tool calls
"""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from app.domain.errors import UnreadableShellError
from app.tools.shell_commands import CommandJudge
from app.tools.shell_grammar import read_shell
from app.tools.shell_refusals import (
    EVALUATED,
    NETWORK,
    UNKNOWN_ARGUMENT,
    UNREADABLE,
    VARIABLE,
    ShellRefusals,
)
from app.tools.shell_tree import (
    Assignment,
    Block,
    Command,
    Function,
    Program,
    Redirect,
    ShellText,
    Simple,
    Word,
)
from app.tools.shell_values import UNKNOWN, Knowledge, Value, one_value, values

MAX_RUN_CHARS = 40_000
_MAX_RUN_NESTING = 8
# Longer texts are not remembered, and no more arguments made of them: expansion multiplies.
_MAX_KNOWN_CHARS = 256
_MAX_ARGUMENTS = 40_000
# The shell itself changes what these hold.
_SPECIAL = re.compile(
    r"_|BASH.*|COMP.*|COPROC|DIRSTACK|EPOCH.*|EUID|FUNCNAME|GROUPS|HIST.*|HOME|HOST.*|IFS|LANG|LC_.*"
    r"|LINENO|MACHTYPE|MAPFILE|OLDPWD|OPT.*|OSTYPE|PIPESTATUS|PPID|PWD|RANDOM|READLINE.*|REPLY"
    r"|SECONDS|SHLVL|SRANDOM|TIMEFORMAT|TMOUT|TMPDIR|UID"
)
# Of these, those that hold any text; the others evaluate what is assigned to them.
_TEXTUAL = re.compile(
    r"_|HOME|HOST.*|IFS|LANG|LC_.*|OLDPWD|OPTARG|PWD|REPLY|TIMEFORMAT|TMPDIR|MACHTYPE|OSTYPE"
)
_NETWORK_FILES = ("/dev/tcp/", "/dev/udp/")
_NETWORK_PARTS = re.compile(
    r"(?:tcp|udp)/|/dev(?!/(?:null|std(?:in|out|err)|fd|tty|u?random|zero)\b)"
)


@dataclass(slots=True)
class Findings:
    """What one walk found."""

    objections: list[str] = field(default_factory=list)
    assigned: Counter[str] = field(default_factory=Counter)
    is_any_assigned: bool = False
    is_latent: bool = False
    is_evaluating: bool = False
    literals: list[str] = field(default_factory=list)
    has_unknown_target: bool = False


def first_objection(text: str, refusals: ShellRefusals) -> str | None:
    """The sentence that refuses this text, or None. UnreadableShellError when it cannot be read."""
    tree = read_shell(text)
    before = _walked(tree, refusals, frozenset(), is_default_ifs=False)
    once = frozenset(
        name
        for name, count in before.assigned.items()
        if count == 1 and not before.is_any_assigned and not _SPECIAL.fullmatch(name)
    )
    found = _walked(tree, refusals, once, is_default_ifs=not before.assigned["IFS"])
    if found.assigned != before.assigned or found.is_any_assigned != before.is_any_assigned:
        return UNKNOWN_ARGUMENT  # what a text assigns depends on what it has assigned
    if found.is_latent and found.is_evaluating:
        found.objections.append(EVALUATED)
    if found.has_unknown_target and _NETWORK_PARTS.search("\0\0".join(found.literals)):
        found.objections.append(NETWORK)
    return next(iter(found.objections), None)


def _walked(
    tree: ShellText, refusals: ShellRefusals, once: frozenset[str], *, is_default_ifs: bool
) -> Findings:
    walk = _Walk(refusals, once, is_default_ifs=is_default_ifs)
    walk.text(tree)
    return walk.findings


class _Walk:
    def __init__(
        self, refusals: ShellRefusals, once: frozenset[str], *, is_default_ifs: bool
    ) -> None:
        self.findings = Findings()
        self._refusals = refusals
        self._once = once
        self._knowledge = Knowledge(is_default_ifs=is_default_ifs)
        self._judge = CommandJudge(refusals, self)
        self._nesting = 0
        self._chars = 0
        self._arguments = 0

    # What rules tell.

    def assigned(self, name: str | None) -> str | None:
        """Counts an assignment."""
        if name is None or name.startswith("!"):
            self.findings.is_any_assigned = True
            return None
        self.findings.assigned[name] += 1
        if _SPECIAL.fullmatch(name) and not _TEXTUAL.fullmatch(name):
            self.findings.is_evaluating = True
        return VARIABLE if self._refusals.refuses_variable(name) else None

    def evaluates(self) -> None:
        """Quoted text may now be run."""
        self.findings.is_evaluating = True

    def runs(self, text: str) -> str | None:
        """Walks a text that is run by another shell, or later: nothing is known in it."""
        self._chars += len(text)
        self._nesting += 1
        if self._chars > MAX_RUN_CHARS or self._nesting > _MAX_RUN_NESTING:
            return UNREADABLE
        try:
            tree = read_shell(text)
        except UnreadableShellError:
            self._nesting -= 1
            return UNREADABLE
        with self._apart():
            self.text(tree)
        self._nesting -= 1
        return None

    # The tree.

    def text(self, tree: ShellText) -> None:
        """Everything in a text."""
        self.findings.is_latent = self.findings.is_latent or tree.is_latent
        self.findings.is_evaluating = self.findings.is_evaluating or tree.is_evaluating
        self.findings.literals += tree.literals
        self._program(tree.program)

    @contextmanager
    def _branch(self) -> Iterator[None]:
        """What is assigned in here is not known after it."""
        before = len(self._knowledge.texts)
        yield
        while len(self._knowledge.texts) > before:
            self._knowledge.texts.popitem()

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """Nothing that was assigned before is known in here."""
        outside = self._knowledge
        self._knowledge = Knowledge(is_default_ifs=outside.is_default_ifs)
        yield
        self._knowledge = outside

    def _object(self, sentence: str | None) -> None:
        if sentence is not None:
            self.findings.objections.append(sentence)

    def _program(self, program: Program) -> None:
        for chain in program.chains:
            first, *rest = chain.pipelines
            if chain.is_background:
                with self._branch():
                    self._pipeline(first)
            else:
                self._pipeline(first)
            for pipeline in rest:
                with self._branch():
                    self._pipeline(pipeline)

    def _pipeline(self, commands: tuple[Command, ...]) -> None:
        if len(commands) == 1:
            self._command(commands[0])
            return
        for command in commands:
            with self._branch():
                self._command(command)

    def _command(self, command: Command) -> None:
        match command:
            case Simple():
                self._simple(command)
            case Block(is_group=True, redirects=()):
                self._block(command)
            case Block():
                with self._branch():
                    self._block(command)
            case Function(body=body):
                with self._branch():
                    self._block(body)

    def _block(self, block: Block) -> None:
        for word in block.words:
            self._word(word)
        for name in block.assigned:
            self._object(self.assigned(name))
        for redirect in block.redirects:
            self._redirect(redirect)
        if block.is_group:
            self._program(block.parts[0])
            return
        for place, part in enumerate(block.parts):
            if place == 0 and block.is_tested:
                self._program(part)
                continue
            with self._branch():
                self._program(part)

    def _word(self, word: Word) -> None:
        """What runs and what is assigned while the word is expanded."""
        for program in word.programs:
            with self._branch():
                self._program(program)
        for name in word.assigned:
            self._object(self.assigned(name))

    def _simple(self, command: Simple) -> None:
        for word in command.words:
            self._word(word)
        for redirect in command.redirects:
            self._redirect(redirect)
        # One that stands with others, or with a redirection, may fail without having assigned.
        is_alone = not command.words and not command.redirects and len(command.assignments) == 1
        for assignment in command.assignments:
            self._assignment(assignment, is_alone=is_alone)
        argv: list[Value] = []
        for word in command.words:
            argv += values(word, self._knowledge)
        self._arguments += len(argv)
        if self._arguments > _MAX_ARGUMENTS:
            raise UnreadableShellError("the command is too large")
        self._object(self._judge.objection(argv))

    def _assignment(self, assignment: Assignment, *, is_alone: bool) -> None:
        for word in assignment.words:
            self._word(word)
        self._object(self.assigned(assignment.name))
        if assignment.value is None:
            return
        self._word(assignment.value)
        text = one_value(assignment.value, self._knowledge).text
        if text is not None and len(text) <= _MAX_KNOWN_CHARS and is_alone:
            self._known(assignment.name, text)

    def _known(self, name: str, text: str) -> None:
        if name in self._once:
            self._knowledge.texts[name] = text

    def _redirect(self, redirect: Redirect) -> None:
        if redirect.operator == "<<":
            # The body is expanded when its command runs, and stands behind later ones.
            with self._apart():
                self._word(redirect.target)
            return
        self._word(redirect.target)
        if redirect.variable is not None:
            self._object(self.assigned(redirect.variable))
        if redirect.operator == "<<<":
            return
        shape = one_value(redirect.target, self._knowledge).shape
        begun = shape.partition(UNKNOWN)[0]
        if UNKNOWN in shape and begun in ("", "/"):
            self.findings.has_unknown_target = True
        is_open = UNKNOWN in shape and begun not in ("", "/")
        if any(
            shape.startswith(place) or (is_open and place.startswith(begun))
            for place in _NETWORK_FILES
        ):
            self._object(NETWORK)
