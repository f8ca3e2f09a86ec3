"""Tools of other distributions: found by entry point, loaded only when the operator named them.

Such a tool runs in the server with the server's rights: naming it is trusting its code. What it
declares is held to the same contract as a built-in one; a tool that cannot be loaded, or breaks
the contract, refuses to start.

Threat: Supply chain attacks
Threat: Privilege escalation via tool calls
"""

import inspect
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import TypeGuard

from app.domain.errors import ConfigurationError
from app.domain.step import ToolSpec
from app.tools.tool_contract import require_contract
from app.tools.toolbox import Tool

GROUP = "meshflow.tools"


def third_party_tools(
    names: Sequence[str], *, taken: Iterable[str], offered: Iterable[EntryPoint] | None = None
) -> tuple[Tool, ...]:
    """The named tools in that order; nothing that was not named is imported.

    `offered` are the entry points of the group, by default those of all installed distributions.
    ConfigurationError, with the tool's name, when one is missing, offered twice, has the name of a
    tool in `taken`, cannot be loaded, is no tool, or breaks the contract.
    """
    if not names:
        return ()
    found = tuple(entry_points(group=GROUP) if offered is None else offered)
    clashing = set(names) & set(taken)
    if clashing:
        raise ConfigurationError(f"the tool '{min(clashing)}' has the name of a built-in tool")
    if len(set(names)) != len(names):
        raise ConfigurationError("MESHFLOW_TOOLS names a tool twice")
    return tuple(_loaded(name, [entry for entry in found if entry.name == name]) for name in names)


def _loaded(name: str, offers: Sequence[EntryPoint]) -> Tool:
    if not offers:
        raise ConfigurationError(
            f"MESHFLOW_TOOLS names '{name}', but no installed distribution offers that tool"
        )
    if len(offers) > 1:
        raise ConfigurationError(f"the tool '{name}' is offered by more than one distribution")
    try:
        tool: object = offers[0].load()
        whole = _is_tool(tool)
    except Exception as broken:  # noqa: BLE001 - code of others may raise anything as it is imported
        # The class alone: the text may hold paths of this machine.
        kind = type(broken).__name__
        raise ConfigurationError(f"the tool '{name}' cannot be loaded: {kind}") from None
    if not whole or not _is_tool(tool):
        raise ConfigurationError(f"the tool '{name}' is no object with `spec` and async `run`")
    require_contract(name, tool.spec)
    return tool


def _is_tool(candidate: object) -> TypeGuard[Tool]:
    """An object, not a class, with a declaration and a coroutine function of two arguments."""
    run = getattr(candidate, "run", None)
    return (
        not isinstance(candidate, type)
        and isinstance(getattr(candidate, "spec", None), ToolSpec)
        and inspect.iscoroutinefunction(run)
        and len(inspect.signature(run).parameters) == 2  # noqa: PLR2004 - arguments and workspace
    )
