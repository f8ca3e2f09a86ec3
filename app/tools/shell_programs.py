"""Tells whether a program for awk or sed starts other programs or talks to the network.

Threat: Privilege escalation via tool calls
"""

import re

_AWK_CALLS = re.compile(
    r"\bsystem[\s\\]*\(|@\s*[A-Za-z_][\w:]*\s*\(|@\s*(?:load|include|namespace)\b|/inet"
)
_AWK_PIECE = re.compile(
    r"(?P<string>\"(?:[^\"\\\n]|\\.)*\")|(?P<comment>#[^\n]*)|(?P<blank>[ \t\r\f\v]+|\\\n)"
    r"|(?P<pair>\|\|)|(?P<word>[A-Za-z0-9_.]+)|(?P<sign>.)",
    re.DOTALL,
)
_AWK_REGEX = re.compile(r"/(?:[^/\\\n\[]|\\.|\[\^?+\]?+[^\]\n]*+\])*+/")
# A slash behind one of these begins a pattern, behind one of the others it may; behind all else it
# divides. What reads otherwise when it is taken for the other matters only with one of these signs.
_BEFORE_REGEX = frozenset(
    ["", "||", *"(,{};!~&\n=?:*%^<>[", "print", "printf", "return", "case", "do", "else"]
)
_MAY_BE_BEFORE_REGEX = frozenset([*")+-$@", "in", "getline", "exit"])
_TELLING = frozenset('"#|')

# A delimiter in brackets ends a pattern for some and not for others: such a pattern is not read.
_SED_PATTERN = r"(?:(?!(?P=sign))[^\[\\\n]|\\.|\[\^?+\]?+(?:(?!(?P=sign))[^\]\n])*+\])*+(?P=sign)"
_SED_ADDRESS = re.compile(
    r"[ \t]*(?:[0-9\0]+(?:~[0-9\0]+)?|\$|(?:(?P<sign>/)|\\(?P<other>[^\n\\]))"
    + _SED_PATTERN.replace("(?P=sign)", "(?:(?P=sign)|(?P=other))")
    + r"[IM]*|[+~][0-9\0]+)",
    re.DOTALL,
)
_SED_BETWEEN = re.compile(r"[ \t]*,")
_SED_SPACE = re.compile(r"[ \t\n;}{]*")
_SED_NOT = re.compile(r"[ \t!]*")
_SED_SUBSTITUTED = re.compile(
    r"(?P<sign>[^\n\\])"
    + _SED_PATTERN
    + r"(?:(?!(?P=sign))[^\\]|\\.)*+(?P=sign)"
    + r"(?P<flags>[gpiImMe0-9]*)(?P<file>w[^\n]*)?",
    re.DOTALL,
)
_SED_LINE = re.compile(r"(?:[^\n\\]|\\.|\\\Z)*", re.DOTALL)
_SED_LABEL = re.compile(r"[^\n;}]*")
_SED_NUMBER = re.compile(r"[ \t]*[0-9\0]*")


def awk_starts_programs(program: str) -> bool:
    """Whether it calls, pipes to or reads from a command, or opens the network, in any spelling."""
    return _AWK_CALLS.search(program) is not None or _has_pipe(program)


def _has_pipe(program: str) -> bool:
    at, before = 0, ""
    while at < len(program):
        pattern = _AWK_REGEX.match(program, at)
        if pattern is not None and before in _MAY_BE_BEFORE_REGEX and _TELLING & set(pattern[0]):
            return True
        if pattern is not None and before in _BEFORE_REGEX:
            at, before = pattern.end(), "pattern"
            continue
        found = _AWK_PIECE.match(program, at)
        if found is None or found[0] == "|":
            return True
        at = found.end()
        if found.lastgroup not in ("comment", "blank"):
            before = found[0]
    return False


def sed_starts_programs(script: str) -> bool:
    """Whether it has the command `e` or the flag `e`; a script that cannot be read has."""
    at = _skip(_SED_SPACE, script, 0)
    while at < len(script):
        after = _after_command(script, _after_addresses(script, at))
        if after is None:
            return True
        at = _skip(_SED_SPACE, script, after)
    return False


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()


def _after_addresses(script: str, at: int) -> int:
    first = _skip(_SED_ADDRESS, script, at)
    if first != at:
        comma = _skip(_SED_BETWEEN, script, first)
        first = _skip(_SED_ADDRESS, script, comma) if comma != first else first
    return _skip(_SED_NOT, script, first)


def _after_command(script: str, at: int) -> int | None:
    """Where the command that stands here ends; None when it runs something or is not known."""
    match script[at : at + 1]:
        case "s" | "y":
            found = _SED_SUBSTITUTED.match(script, at + 1)
            return None if found is None or "e" in found["flags"] else found.end()
        case "a" | "i" | "c" | "r" | "R" | "w" | "W":
            return _skip(_SED_LINE, script, at + 1)
        case "#":
            end = script.find("\n", at)
            return len(script) if end < 0 else end
        case ":" | "b" | "t" | "T":
            return _skip(_SED_LABEL, script, at + 1)
        case "q" | "Q" | "l" | "L":
            return _skip(_SED_NUMBER, script, at + 1)
        case sign:
            return at + 1 if sign and sign in "{}dDgGhHnNpPx=zF" else None
