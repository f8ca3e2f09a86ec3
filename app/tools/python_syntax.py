"""Parses Python for all tools, one text at a time.

Threat: Privilege escalation via tool calls
"""

import ast
import threading

# Python 3.11 counts the depth of all threads that parse in one place: two at once fail by chance.
_PARSING = threading.Lock()


def parse_program(text: str) -> ast.Module:
    """The tree. SyntaxError, ValueError, MemoryError or RecursionError when there is none."""
    with _PARSING:
        return ast.parse(text)


def parse_expression(text: str) -> ast.Expression:
    """The tree of one expression; errors as `parse_program`."""
    with _PARSING:
        return ast.parse(text, mode="eval")
