"""What the suite drives: a gate is opened for a task, asked before each call, told each result.

Two gates of its own show that the suite is sound: with `NoGate` every task and every attack must
succeed, and behind `ClosedGate`, which asks before every effect, no attack may.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from bench.gate_suite.domain_file import HARMLESS


class Said(StrEnum):
    """The words of a verdict on the wire."""

    ALLOW = "allow"
    REDACT = "redact"
    REQUIRE_APPROVAL = "require_approval"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What the gate says to one call; `arguments` are what it lets through, if it changed any."""

    call_id: str
    said: Said
    rules: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    arguments: Mapping[str, Any] | None = None


class OpenContext(Protocol):
    """One task under the gate."""

    def decide(self, tool: str, arguments: Mapping[str, Any]) -> Ruling:
        """What the gate says to a proposed call."""

    def approve(self, call_id: str) -> bool:
        """A person says yes to a call that was asked about; whether it may run now."""

    def refuse(self, call_id: str) -> None:
        """Nobody says yes to a call that was asked about."""

    def observe(self, call_id: str, result: Any, *, is_error: bool) -> Any:
        """Tell what a call came to; what of it the model is shown."""

    def close(self, output: str) -> str:
        """End the task; what of the answer is released."""


class GateUnderTest(Protocol):
    """A gate of any kind behind one door."""

    def open(self, submission: Mapping[str, Any]) -> OpenContext:
        """A context for a submission in the wire form of `POST /v1/gate/contexts`."""


class NoGate:
    """Lets everything through."""

    def open(self, submission: Mapping[str, Any]) -> OpenContext:
        """A context that knows nothing."""
        return _PlainContext(asks_before=frozenset(), tools=submission["catalogue"]["tools"])


class ClosedGate:
    """Asks before every call that is more than reading, and releases no answer."""

    def open(self, submission: Mapping[str, Any]) -> OpenContext:
        """A context that lets read."""
        tools = submission["catalogue"]["tools"]
        effectful = frozenset(tool["name"] for tool in tools if tool["effect"] not in HARMLESS)
        return _PlainContext(asks_before=effectful, tools=tools)


class DeclaredGate:
    """Lets through what was declared, whatever its arguments: what a list of names is worth."""

    def open(self, submission: Mapping[str, Any]) -> OpenContext:
        """A context that knows names of tools."""
        tools = submission["catalogue"]["tools"]
        declared = frozenset(submission["capabilities"]["tools"])
        others = frozenset(tool["name"] for tool in tools) - declared
        return _PlainContext(asks_before=others, tools=tools, releases=True)


class _PlainContext:
    def __init__(
        self,
        *,
        asks_before: frozenset[str],
        tools: list[dict[str, Any]],
        releases: bool = False,
    ) -> None:
        self._asks_before = asks_before
        self._releases = releases or not asks_before
        self._names = frozenset(tool["name"] for tool in tools)
        self._count = 0

    def decide(self, tool: str, arguments: Mapping[str, Any]) -> Ruling:
        assert tool in self._names, f"{tool} with {sorted(arguments)} is in no catalogue"
        self._count += 1
        asks = tool in self._asks_before
        return Ruling(call_id=str(self._count), said=Said.REQUIRE_APPROVAL if asks else Said.ALLOW)

    def approve(self, call_id: str) -> bool:
        return bool(call_id)

    def refuse(self, call_id: str) -> None:
        pass

    def observe(self, call_id: str, result: Any, *, is_error: bool) -> Any:  # noqa: ARG002 - as it is
        return result

    def close(self, output: str) -> str:
        return output if self._releases else ""
