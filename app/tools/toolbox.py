"""Runs an authorized call: the one way from a decision of the gate to a tool.

Whatever a tool does, what comes back is a bounded text without control characters and without
anything of the host; a tool that fails is a result, never an exception.

Threat: Privilege escalation via tool calls
"""

import asyncio
import logging
import unicodedata
from collections.abc import KeysView, Mapping
from typing import Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from app.domain.errors import ToolError
from app.domain.run import Json, JsonObject
from app.domain.step import EFFECTFUL, ToolResult, ToolSpec
from app.domain.verdict import AuthorizedCall, Point, Verdict
from app.sandbox.workspace import Workspace
from app.tools.tool_contract import require_contract

_log = logging.getLogger(__name__)

TRUNCATED = "\n[truncated]"
_KEPT_CONTROLS = "\n\t"
_MAX_COMPLAINTS = 5
_MAX_COMPLAINT_CHARS = 120


class Tool(Protocol):
    """What an agent may be given. One file here and one line on the roster make one."""

    @property
    def spec(self) -> ToolSpec:
        """What the tool declares; the gate decides on it."""

    async def run(self, arguments: JsonObject, workspace: Workspace) -> str:
        """Do the work and say what came of it; ToolError, with a text for the model, when not.

        Must not block the event loop, or its time limit cannot end it.
        """


class ClosedArguments(BaseModel):
    """Base of every tool's arguments: exact types, no unknown names."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


_Arguments = TypeVar("_Arguments", bound=ClosedArguments)


def parse_arguments(model: type[_Arguments], arguments: JsonObject) -> _Arguments:
    """The arguments as the tool's own type, or ToolError naming the fields, never the values."""
    try:
        return model.model_validate(arguments)
    except ValidationError as wrong:
        complaints = [
            f"{'.'.join(str(step) for step in found['loc'])}: {found['msg']}"[:_MAX_COMPLAINT_CHARS]
            for found in wrong.errors(
                include_url=False, include_context=False, include_input=False
            )[:_MAX_COMPLAINTS]
        ]
    raise ToolError("the arguments are not acceptable: " + "; ".join(complaints))


def closed_schema(model: type[ClosedArguments]) -> JsonObject:
    """The JSON schema of a tool's arguments, made from the type so that the two cannot differ."""
    described = model.model_json_schema()
    properties: JsonObject = {}
    for name, facts in described["properties"].items():
        properties[name] = {word: value for word, value in facts.items() if word != "title"}
    required: list[Json] = list(described.get("required", []))
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _presentable(text: str, limit_bytes: int) -> str:
    """Without control characters but newline and tab, and at most `limit_bytes` of UTF-8."""
    kept = "".join(
        letter
        for letter in text
        if letter in _KEPT_CONTROLS or unicodedata.category(letter) not in ("Cc", "Cs")
    )
    encoded = kept.encode()
    if len(encoded) <= limit_bytes:
        return kept
    room = max(limit_bytes - len(TRUNCATED), 0)
    return (encoded[:room].decode(errors="ignore") + TRUNCATED)[:limit_bytes]


class Toolbox:
    """The tools of this deployment by name. ConfigurationError for one that breaks the contract."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        for name, tool in tools.items():
            require_contract(name, tool.spec)
        self._tools = dict(tools)
        self._specs = tuple(tool.spec for tool in tools.values())

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """What every tool declares, in the order of the roster."""
        return self._specs

    @property
    def names(self) -> KeysView[str]:
        """Of every tool."""
        return self._tools.keys()

    async def run(self, authorized: AuthorizedCall, workspace: Workspace) -> ToolResult:
        """Run exactly the authorized call; never raises but for cancellation.

        A call whose proof does not fit the tool is refused without running it. After a timeout the
        result says so; a thread the tool had started may still end its work.
        """
        call, spec = authorized.call, authorized.spec
        tool = self._tools.get(call.name)
        failed = True
        if tool is None or tool.spec != spec or not _allows(authorized):
            text = "this tool is not available"
        else:
            text, failed = await self._attempt(tool, call.arguments, workspace)
        return ToolResult(
            call_id=call.call_id,
            name=call.name,
            content=_presentable(text, spec.result_limit_bytes),
            is_error=failed,
            engine=spec.engine,
        )

    @staticmethod
    async def _attempt(tool: Tool, arguments: JsonObject, workspace: Workspace) -> tuple[str, bool]:
        """What the tool said, or why it failed, and whether it did."""
        spec = tool.spec
        limit = asyncio.timeout(spec.timeout_seconds)
        try:
            async with limit:
                return await tool.run(arguments, workspace), False
        except ToolError as told:
            return str(told), True
        except Exception as unexpected:  # noqa: BLE001 - any failure of a tool is a result; a fault here must not end the run
            if isinstance(unexpected, TimeoutError) and limit.expired():
                unknown = " and may still take effect" if spec.effect in EFFECTFUL else ""
                return f"the tool did not finish in {spec.timeout_seconds:g} s{unknown}", True
            # The class alone: the text and the traceback may hold arguments or host paths.
            _log.error("tool %s failed: %s", spec.name, type(unexpected).__name__)
            return "the tool failed", True


def _allows(authorized: AuthorizedCall) -> bool:
    """Whether the proof says what its type promises: allowed, at this point."""
    decision = authorized.decision
    passes = decision.enforced in (Verdict.ALLOW, Verdict.REDACT)
    return passes and decision.point is Point.TOOL_CALL
