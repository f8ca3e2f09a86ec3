"""Judges the calls of filters that hold a program of their own: awk and sed.

Threat: Privilege escalation via tool calls
"""

import re
from collections.abc import Callable, Mapping

from app.tools.shell_programs import awk_starts_programs, sed_starts_programs
from app.tools.shell_refusals import STARTS_PROGRAM, UNKNOWN_ARGUMENT
from app.tools.shell_values import UNKNOWN, Value

Filter = Callable[[list[Value]], str | None]
# No script holds it: the next argument is the script.
_IN_NEXT = "\0\0"
_SED_LONG = re.compile(
    r"--(?:quiet|silent|regexp-extended|null-data|separate|unbuffered|posix|debug|sandbox"
    r"|zero-terminated|follow-symlinks|in-place|line-length)(?:=.*)?",
    re.DOTALL,
)


def _awk(arguments: list[Value]) -> str | None:
    at = 0
    while at < len(arguments):
        shape = arguments[at].shape
        if arguments[at].is_split or shape[:1] not in ("-", ""):
            break
        at += 1
        if shape == "--":
            break
        if shape in ("-F", "-v"):
            if at >= len(arguments) or arguments[at].is_split:
                return UNKNOWN_ARGUMENT
            at += 1
        elif not shape.startswith(("-F", "-v", "--field-separator=", "--assign=")):
            return STARTS_PROGRAM
    if at >= len(arguments):
        return None
    return _judged(arguments[at], awk_starts_programs)


def _sed(arguments: list[Value]) -> str | None:
    scripts: list[Value] = []
    operands: list[Value] = []
    words = iter(arguments)
    for word in words:
        shape = word.shape
        if shape == "--":
            operands += words
        elif shape[:1] != "-" or shape == "-":
            operands.append(word)
        else:
            script = _script_in(shape)
            if script is None:
                return STARTS_PROGRAM
            if script == _IN_NEXT:
                scripts.append(next(words, Value(UNKNOWN)))
            elif script:
                scripts.append(Value(script, word.is_split))
    whole = scripts or operands[:1]
    if any(one.is_split for one in whole):
        return STARTS_PROGRAM
    return _judged(Value("\n".join(one.shape for one in whole)), sed_starts_programs)


def _script_in(option: str) -> str | None:
    """The script that an option holds; empty when it holds none, None when it is not known."""
    if option.startswith("--expression="):
        return option.removeprefix("--expression=")
    if option.startswith("--"):
        return "" if _SED_LONG.fullmatch(option) else None
    for place, letter in enumerate(option[1:], start=2):
        if letter == "e":
            return option[place:] or _IN_NEXT
        if letter in "il":
            return ""
        if letter not in "nrEsuz":
            return None
    return ""


def _judged(program: Value, starts_programs: Callable[[str], bool]) -> str | None:
    if program.is_split or program.shape[:1] == UNKNOWN == program.shape:
        return STARTS_PROGRAM
    return STARTS_PROGRAM if starts_programs(program.shape) else None


FILTERS: Mapping[str, Filter] = {
    "awk": _awk,
    "gawk": _awk,
    "mawk": _awk,
    "nawk": _awk,
    "original-awk": _awk,
    "gsed": _sed,
    "sed": _sed,
}
