"""Reads a call of find: the commands it would start, and what it would delete.

Threat: Privilege escalation via tool calls
"""

import re
from dataclasses import dataclass

from app.tools.shell_values import UNKNOWN, Value
from app.tools.shell_wrappers import replaced

# Tests and actions that take one argument, and those that take none.
_TAKING = re.compile(
    r"-(?:D|amin|anewer|atime|cmin|cnewer|context|ctime|files0-from|fls|fprint0?|fstype|gid|group"
    r"|i?lname|i?name|inum|i?path|i?regex|i?wholename|links|maxdepth|mindepth|mmin|mtime|newer.*"
    r"|perm|printf|regextype|samefile|size|type|uid|used|user|xtype)"
)
_BEFORE = re.compile(r"-(?:[HLP]|O[0-3])")
_ALONE = re.compile(
    r"[!(),]|-(?:[HLPado]|O[0-3]|and|or|not|daystart|delete|depth|empty|executable|false|follow"
    r"|ignore_readdir_race|ls|mount|nogroup|noignore_readdir_race|noleaf|nouser|nowarn|print0?|prune"
    r"|quit|readable|true|warn|writable|xdev)"
)
_RUNNING = re.compile(r"-(?:exec|ok)(?:dir)?")
_CHOOSING = re.compile(r"-(?:empty|mmin|mtime|newer.*|i?name|i?path|i?regex|size|i?wholename)")


@dataclass(slots=True)
class FindReading:
    """What a call of find would start, and what it would delete."""

    commands: list[list[Value]]
    deletes_everything: bool = False


def read_find(arguments: list[Value]) -> FindReading | None:
    """None when an argument that may be an action is not known."""
    start = 0
    while start < len(arguments) and _BEFORE.fullmatch(arguments[start].shape):
        start += 1
    at = start
    while at < len(arguments) and not _begins_expression(arguments[at]):
        at += 1
    paths = arguments[start:at]
    follows = arguments[at].text if at < len(arguments) else "-print"
    may_act = any(path.may_be_flag() for path in paths)
    if any(path.is_split for path in paths):
        return None
    if may_act and (not paths[-1].may_be_flag() or follows is None):
        return None  # what looks like a path may be an action, and what follows its command
    return _read_expression(arguments, at, paths)


def _read_expression(arguments: list[Value], at: int, paths: list[Value]) -> FindReading | None:
    reading, is_chosen = FindReading([]), False
    while at < len(arguments):
        word = arguments[at].text
        at += 1
        if word is None:
            return None
        is_chosen = is_chosen or _CHOOSING.fullmatch(word) is not None
        if _RUNNING.fullmatch(word):
            end = _end_of_command(arguments, at)
            place = "./" if word.endswith("dir") else _common_place(paths)
            inner = arguments[at:end]
            reading.commands.append([replaced(one, "{}", place + UNKNOWN) for one in inner])
            at = end + 1
        elif _TAKING.fullmatch(word):
            at = _behind_one(arguments, at)
        elif word == "-fprintf":
            at = _behind_one(arguments, _behind_one(arguments, at))
        elif not _ALONE.fullmatch(word):
            return None
        elif word == "-delete":
            reading.deletes_everything = reading.deletes_everything or not is_chosen
    return reading


def _begins_expression(value: Value) -> bool:
    return value.shape[:1] in ("-", "(", "!")


def _behind_one(arguments: list[Value], at: int) -> int:
    """Behind one argument; one that may be several words hides where the next begins."""
    is_one = at < len(arguments) and not arguments[at].is_split
    return at + 1 if is_one else at


def _end_of_command(arguments: list[Value], at: int) -> int:
    for place in range(at, len(arguments)):
        is_plus = arguments[place].text == "+" and arguments[place - 1].text == "{}"
        if arguments[place].text == ";" or is_plus:
            return place
    return len(arguments)


def _common_place(paths: list[Value]) -> str:
    """What the names that find gives begin with, as far as it matters: never with a dash, or so."""
    if any(path.shape[:1] in (UNKNOWN, "") for path in paths):
        return ""
    return "./" if len(paths) != 1 else paths[0].shape.partition(UNKNOWN)[0]
