"""Judges the builtins of a shell that run text, assign variables, or change how commands are read.

Threat: Privilege escalation via tool calls
"""

import re
from collections.abc import Callable, Mapping
from typing import Protocol

from app.tools.shell_refusals import OPTION, UNKNOWN_ARGUMENT, UNREAD_TEXT
from app.tools.shell_values import UNKNOWN, Value

_TARGET = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[[0-9]+\])?")
_DECLARED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[[0-9]+\])?(\+?=|\Z)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DECLARE_LETTERS = frozenset("aAfFgilprtux")
_SET_LETTERS = frozenset("aCefhuvx")
_SET_NAMES = frozenset({"allexport", "errexit", "noclobber", "noglob", "nounset", "pipefail"})
_SHOPT = re.compile(
    r"dotglob|failglob|globstar|inherit_errexit|lastpipe|nocaseglob|nocasematch|nullglob|-[qsup]+"
)


class Notes(Protocol):
    """Where a rule tells what a command does besides what it is refused for."""

    def assigned(self, name: str | None) -> str | None:
        """A variable is assigned; None when nobody knows which. A sentence when it may not be."""

    def evaluates(self) -> None:
        """Something is evaluated as arithmetic or as the name of a variable."""

    def runs(self, text: str) -> str | None:
        """Text is run as commands of its own. The sentence it is refused with, if it is."""


Builtin = Callable[[list[Value], Notes], str | None]


def _eval(arguments: list[Value], notes: Notes) -> str | None:
    texts = [one.text for one in arguments]
    if None in texts:
        return UNREAD_TEXT
    words = [text for text in texts if text is not None]
    return notes.runs(" ".join(words[1:] if words[:1] == ["--"] else words))


def _trap(arguments: list[Value], notes: Notes) -> str | None:
    words = arguments[1:] if arguments and arguments[0].text == "--" else arguments
    if not words or words[0].text in ("-", "-l", "-p"):
        return None
    return UNREAD_TEXT if words[0].text is None else notes.runs(words[0].text)


def _set(arguments: list[Value], _notes: Notes) -> str | None:
    words = iter(arguments)
    for word in words:
        shape = word.shape
        if word.text in ("--", "-"):
            return None
        if word.is_split or shape[:1] == UNKNOWN:
            return OPTION
        if shape[:1] not in ("-", "+") or len(shape) == 1:
            return None
        letters = [letter for letter in shape[1:] if letter not in _SET_LETTERS]
        if letters == ["o"]:
            named = next(words, None)
            if named is not None and named.text not in _SET_NAMES:
                return OPTION
        elif letters:
            return OPTION
    return None


def _shopt(arguments: list[Value], _notes: Notes) -> str | None:
    for word in arguments:
        if not _SHOPT.fullmatch(word.text or ""):
            return OPTION
    return None


def _declare(arguments: list[Value], notes: Notes) -> str | None:
    for word in arguments:
        shape = word.shape
        if shape[:1] in ("-", "+") and not word.is_split and UNKNOWN not in shape:
            if set(shape[1:]) - _DECLARE_LETTERS and shape != "--":
                return OPTION
            if {"a", "A", "i"} & set(shape):
                notes.evaluates()
            continue
        found = _DECLARED.match(shape)
        if found is not None and shape[found.end() :][:1] in ("(", UNKNOWN):
            notes.evaluates()  # a quoted list is read as one, and its words are expanded
        if found is None or (word.is_split and not found[2]):
            return UNKNOWN_ARGUMENT
        refusal = notes.assigned(found[1])
        if refusal is not None:
            return refusal
    return None


def _export(arguments: list[Value], notes: Notes) -> str | None:
    """As declare, but a name alone is left as it is."""
    named = [one for one in arguments if not _NAME.fullmatch(one.shape) or one.is_split]
    return _declare(named, notes)


def _targets(words: list[Value], notes: Notes) -> str | None:
    for word in words:
        found = _TARGET.fullmatch(word.text or "")
        if found is None:
            return UNKNOWN_ARGUMENT
        refusal = notes.assigned(found[1])
        if refusal is not None:
            return refusal
    return None


def _with_options(taking: str, naming: str = "") -> Builtin:
    """A builtin whose operands are variables; `naming` letters take the name of one, too."""

    def judged(arguments: list[Value], notes: Notes) -> str | None:
        at, names = 0, list[Value]()
        while at < len(arguments):
            shape = arguments[at].shape
            if shape == "--" or shape[:1] != "-":
                break
            if UNKNOWN in shape or arguments[at].is_split:
                return UNKNOWN_ARGUMENT
            at += 1
            place = next((at for at, one in enumerate(shape) if one in taking + naming), None)
            if place is None:
                continue
            attached = [Value(shape[place + 1 :])] if shape[place + 1 :] else arguments[at : at + 1]
            at += not shape[place + 1 :]
            if not attached or attached[0].is_split:
                return UNKNOWN_ARGUMENT
            names += attached if shape[place] in naming else []
        at += at < len(arguments) and arguments[at].shape == "--"
        return _targets([*names, *arguments[at:]], notes)

    return judged


def _printf(arguments: list[Value], notes: Notes) -> str | None:
    first = arguments[0] if arguments else Value("")
    if first.shape[:2] == "-v":
        attached = (
            [Value(first.shape[2:], first.is_split)] if first.shape != "-v" else arguments[1:2]
        )
        return _targets(attached, notes)
    if first.text is None and first.may_be_flag():
        notes.evaluates()
        return notes.assigned(None)
    return None


def _getopts(arguments: list[Value], notes: Notes) -> str | None:
    return _targets(arguments[1:2], notes)


def _let(arguments: list[Value], notes: Notes) -> str | None:
    notes.evaluates()
    for word in arguments:
        for name in _NAME.findall(word.shape):
            notes.assigned(name)
    return notes.assigned(None) if any(word.text is None for word in arguments) else None


def _unset(arguments: list[Value], notes: Notes) -> str | None:
    return _targets([one for one in arguments if one.text not in ("-f", "-v", "--")], notes)


def _wait(arguments: list[Value], notes: Notes) -> str | None:
    if any(one.text is None and one.may_be_flag() for one in arguments):
        return notes.assigned(None)
    flags = [
        at for at, one in enumerate(arguments) if one.shape.startswith("-") and "p" in one.shape
    ]
    return _targets(arguments[flags[0] + 1 :][:1], notes) if flags else None


def _test(arguments: list[Value], notes: Notes) -> str | None:
    if any(one.shape in ("-v", "-R") for one in arguments):
        notes.evaluates()
    return None


BUILTINS: Mapping[str, Builtin] = {
    "[": _test,
    "declare": _declare,
    "eval": _eval,
    "export": _export,
    "getopts": _getopts,
    "let": _let,
    "local": _declare,
    "mapfile": _with_options("dnOsuc"),
    "printf": _printf,
    "read": _with_options("dinNptu", "a"),
    "readarray": _with_options("dnOsuc"),
    "readonly": _declare,
    "set": _set,
    "shopt": _shopt,
    "test": _test,
    "trap": _trap,
    "typeset": _declare,
    "unset": _unset,
    "wait": _wait,
}
