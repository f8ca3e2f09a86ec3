"""Reads a shell command before it runs and refuses what is plainly not for it: the first layer.

It is no boundary and is not meant as one. It refuses early, cheaply and with a reason, so that
the attempt is told and recorded. It judges what the words of a command become, not their spelling,
and refuses what it cannot read or resolve where a rule depends on it.

Threat: Privilege escalation via tool calls
Threat: Exfiltration via web/shell tools
"""

from app.domain.errors import UnreadableShellError
from app.tools.shell_refusals import (
    FILE_NAME,
    UNREADABLE,
    ShellRefusals,
    load_shell_refusals,
)
from app.tools.shell_walk import first_objection

__all__ = ["FILE_NAME", "ShellRefusals", "load_shell_refusals", "refused"]


def refused(command: str, refusals: ShellRefusals) -> str | None:
    """Why this command is not run; None when nothing is known against it.

    One sentence of a closed set (`ShellRefusals.sentences`): nothing of the command is in it.
    """
    try:
        return first_objection(command, refusals)
    except (UnreadableShellError, RecursionError):
        return UNREADABLE
