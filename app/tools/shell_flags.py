"""Matches the flags of a shell command in every spelling and order.

Threat: Privilege escalation via tool calls
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from app.tools.shell_values import UNKNOWN, Value

_FLAG = re.compile(r"-[A-Za-z0-9]|--?[A-Za-z0-9][A-Za-z0-9-]+")


@dataclass(frozen=True, slots=True)
class FlagRule:
    """A command, and groups of spellings: it is refused when a flag of each group is there."""

    command: str
    groups: tuple[tuple[str, ...], ...]

    def matches(self, arguments: Iterable[Value]) -> bool:
        """Whether they hold one flag of each group."""
        flags = list(arguments)
        return all(
            any(_is_spelled(flag, spelling) for flag in flags for spelling in group)
            for group in self.groups
        )


def flag_rule(text: str) -> FlagRule:
    """The rule that a line of the list says. ValueError for what says none."""
    command, *groups = text.split()
    spellings = tuple(tuple(group.split("/")) for group in groups)
    if not spellings or not all(_FLAG.fullmatch(one) for group in spellings for one in group):
        raise ValueError(text)
    return FlagRule(command, spellings)


def before_operands(arguments: list[Value]) -> list[Value]:
    """The arguments that can be flags: those before `--`."""
    for place, one in enumerate(arguments):
        if one.text == "--":
            return arguments[:place]
    return arguments


def _is_spelled(value: Value, spelling: str) -> bool:
    shape = value.shape
    if spelling.startswith("--"):
        begun = shape.partition("=")[0].partition(UNKNOWN)[0]
        return len(begun) > len("--") and spelling.startswith(begun)
    if len(spelling) > len("-x"):
        return shape == spelling
    return shape[:1] == "-" and shape[:2] != "--" and spelling[1] in shape
