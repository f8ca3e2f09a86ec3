"""Judges one simple command of a shell by its resolved arguments, and those it would start.

Threat: Privilege escalation via tool calls
Threat: Exfiltration via web/shell tools
"""

import posixpath
import re
from collections.abc import Iterator

from app.tools.shell_builtins import BUILTINS, Notes
from app.tools.shell_filters import FILTERS
from app.tools.shell_find import read_find
from app.tools.shell_flags import before_operands
from app.tools.shell_refusals import (
    DELETES,
    OUTSIDE_PLACE,
    SHELL_INPUT,
    UNKNOWN_ARGUMENT,
    UNKNOWN_NAME,
    UNREAD_TEXT,
    VARIABLE,
    ShellRefusals,
    flags_not_allowed,
    not_allowed,
)
from app.tools.shell_values import UNKNOWN, Value
from app.tools.shell_wrappers import WRAPPERS, after_options, found_by_xargs

_SYSTEM_PLACES = frozenset(
    {"/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"}
)
_VERSION = re.compile(r"[-.0-9]+\Z")
_ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")
_SHELL_FLAGS = re.compile(r"-[efux]*c[efux]*")
# More than anybody writes; each is judged with a shorter rest of the same arguments.
_MAX_WRAPPED = 12


class CommandJudge:
    """Holds the lists; tells `notes` what a command assigns, evaluates and runs."""

    def __init__(self, refusals: ShellRefusals, notes: Notes) -> None:
        self._refusals = refusals
        self._notes = notes

    def objection(self, argv: list[Value], wrapped: int = 0) -> str | None:
        """The sentence that refuses this command, or None."""
        if not argv:
            return None
        name = argv[0].text
        if name is None or not name.isascii() or name[:1] in ("-", "") or wrapped > _MAX_WRAPPED:
            return UNKNOWN_NAME
        place, _, base = name.rpartition("/")
        if "/" in name and posixpath.normpath(place) not in _SYSTEM_PLACES:
            return OUTSIDE_PLACE
        return self._listed(base) or self._by_rule(base, argv[1:], wrapped)

    def _listed(self, name: str) -> str | None:
        for one in _spellings(name):
            if one in self._refusals.names:
                return not_allowed(one)
        return None

    def _by_rule(self, name: str, arguments: list[Value], wrapped: int) -> str | None:
        if not self._refusals.shells.isdisjoint(_spellings(name)):
            return self._shell(arguments)
        if name in WRAPPERS:
            return self._wrapped(name, arguments, wrapped)
        if name == "find":
            return self._find(arguments, wrapped)
        found = BUILTINS[name](arguments, self._notes) if name in BUILTINS else None
        if found is None and name in FILTERS:
            found = FILTERS[name](arguments)
        return found or self._flags(name, arguments)

    def _flags(self, name: str, arguments: list[Value]) -> str | None:
        flags = before_operands(arguments)
        if name == "tar" and flags and flags[0].shape[:1] not in ("-", UNKNOWN):
            flags = [Value(f"-{flags[0].shape}", flags[0].is_split), *flags[1:]]
        if any(rule.matches(flags) for rule in self._refusals.flag_rules.get(name, ())):
            return flags_not_allowed(name)
        if name in self._refusals.strict and any(
            one.text is None and one.may_be_flag() for one in flags
        ):
            return UNKNOWN_ARGUMENT
        return None

    def _shell(self, arguments: list[Value]) -> str | None:
        flags = arguments[0].text if len(arguments) > 1 else None
        program = arguments[1] if len(arguments) > 1 else Value("")
        if flags is None or not _SHELL_FLAGS.fullmatch(flags) or program.shape[:1] in ("-", "+"):
            return SHELL_INPUT
        return UNREAD_TEXT if program.text is None else self._notes.runs(program.text)

    def _wrapped(self, name: str, arguments: list[Value], wrapped: int) -> str | None:
        if name == "command" and arguments and arguments[0].shape in ("-v", "-V"):
            return None
        wrapper = WRAPPERS[name]
        read = after_options(arguments, wrapper)
        if read is None:
            return UNKNOWN_ARGUMENT
        at, options = read
        at += wrapper.operands
        if any(one.is_split for one in arguments[:at]):
            return UNKNOWN_ARGUMENT
        inner = arguments[at:]
        if name == "xargs":
            inner = found_by_xargs(options, inner)
        elif name == "env":
            return self._environment(inner, wrapped)
        return self.objection(inner, wrapped + 1)

    def _environment(self, words: list[Value], wrapped: int) -> str | None:
        for at, word in enumerate(words):
            if at == 0 and word.shape == "-":
                continue
            found = _ASSIGNED.match(word.shape)
            if word.is_split or (found is None and "=" in word.shape):
                return UNKNOWN_ARGUMENT
            if found is None:
                return self.objection(words[at:], wrapped + 1)
            if self._refusals.refuses_variable(found[1]):
                return VARIABLE
        return None

    def _find(self, arguments: list[Value], wrapped: int) -> str | None:
        reading = read_find(arguments)
        if reading is None:
            return UNKNOWN_ARGUMENT
        if reading.deletes_everything:
            return DELETES
        found = (self.objection(command, wrapped + 1) for command in reading.commands)
        return next((one for one in found if one is not None), None)


def _spellings(name: str) -> Iterator[str]:
    """The name, without its version, and its first part: `python3.12` is `python`, too."""
    yield name
    yield _VERSION.sub("", name)
    first = name.partition(".")[0]
    if first:
        yield first
        yield _VERSION.sub("", first)
