"""Turns the text of a sum into a small syntax tree, or refuses it before a parser has seen it.

Threat: Privilege escalation via tool calls
"""

import ast
import re
from collections.abc import Set as AbstractSet

from app.domain.errors import ToolError
from app.tools.python_syntax import parse_expression

MAX_CHARS = 1000
MAX_BRACKETS = 40
MAX_DIGIT_RUN = 499
MAX_UNARY_RUN = 39
MAX_NODES = 300
MAX_DEPTH = 40

_TOKEN = re.compile(
    r"[ \t\r\n]+"
    r"|(?P<number>0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+"
    r"|(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9_]+)?)(?![A-Za-z0-9_.])"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<sign>[+\-~])"
    r"|(?P<other>\*\*|//|<<|>>|[*/%&|(),])",
    re.ASCII,
)
_DIGIT_RUN = re.compile(f"[0-9a-fA-F_]{{{MAX_DIGIT_RUN + 1},}}")


def parsed_arithmetic(text: str, *, names: AbstractSet[str]) -> ast.expr:
    """The tree of a text that holds only numbers, signs and these names. ToolError otherwise."""
    _require_tame_text(text, names)
    return _parse(text)


def _require_tame_text(text: str, names: AbstractSet[str]) -> None:
    """Refuse, before the parser sees it, what is not of our tokens or is built to exhaust it."""
    if len(text) > MAX_CHARS:
        raise ToolError(f"the expression is longer than {MAX_CHARS} characters")
    if _DIGIT_RUN.search(text):
        raise ToolError("a number is too long")
    at = depth = signs = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            hint = "; a power is written **" if text[at] == "^" else ""
            raise ToolError(f"the expression is not arithmetic at character {at + 1}{hint}")
        at = token.end()
        word = token.group()
        if word.isspace():
            continue
        if token["name"] and word not in names:
            raise ToolError(f"'{word[:32]}' is not known")
        signs = signs + 1 if token["sign"] else 0
        depth += (word == "(") - (word == ")")
        if depth > MAX_BRACKETS:
            raise ToolError("the expression has too many open brackets")
        if signs > MAX_UNARY_RUN:
            raise ToolError("the expression has too many signs in a row")


def _parse(text: str) -> ast.expr:
    """The syntax tree, within the limits on its size and depth."""
    try:
        tree = parse_expression(" ".join(text.split())).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ToolError("the expression is not well formed") from None
    nodes = 0
    level: list[ast.AST] = [tree]
    for _ in range(MAX_DEPTH):
        nodes += len(level)
        level = [
            child
            for node in level
            for child in ast.iter_child_nodes(node)
            if isinstance(child, ast.expr | ast.keyword)
        ]
        if not level or nodes > MAX_NODES:
            break
    if nodes > MAX_NODES:
        raise ToolError(f"the expression has more than {MAX_NODES} parts")
    if level:
        raise ToolError("the expression is nested too deeply; add many numbers with sum(a, b, ...)")
    return tree
