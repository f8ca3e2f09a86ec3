"""The words between whoever wants hostile code run and the worker that runs it confined.

A request carries descriptors and bytes, never a host path; a result carries codes and what the
program itself said, never a text of the host.

Threat: Privilege escalation via tool calls
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias

_MIB = 1024 * 1024


class EngineName(StrEnum):
    """Which interpreter runs the program; part of a tool's description and of its record."""

    NATIVE = "native"
    MONTY = "monty"
    VIRTUAL_SHELL = "virtual"
    EXEC = "exec"


class ExecStatus(StrEnum):
    """How a call ended. Everything but OK is told to the model as an error."""

    OK = "ok"  # the program ended with 0
    ERROR = "error"  # the program ended with another code
    TIMEOUT = "timeout"  # its time or its processor time was up
    KILLED = "killed"  # it died of a signal, or was ended for going over a limit
    REFUSED = "refused"  # nothing ran: a first-layer check said no
    UNAVAILABLE = "unavailable"  # nothing ran: it could not be confined, or the worker was lost


class EndedBy(StrEnum):
    """What refused or ended a call that did not simply finish."""

    FIRST_LAYER = "first_layer"
    CONFINEMENT = "confinement"
    WORKER = "worker"
    DEADLINE = "deadline"
    CPU_LIMIT = "cpu_limit"
    OUTPUT_LIMIT = "output_limit"
    WORKSPACE_QUOTA = "workspace_quota"
    SIGNAL = "signal"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceText:
    """A program as text, in the engine's own language."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Argv:
    """A program as resolved words; no shell ever reads them."""

    words: tuple[str, ...]


Program: TypeAlias = SourceText | Argv


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecLimits:
    """What one call may use. A request may lower the defaults; the profile caps what is asked."""

    wall_seconds: float = 10.0
    cpu_seconds: int = 5
    memory_bytes: int = 512 * _MIB
    file_bytes: int = 16 * _MIB
    descriptors: int = 64
    stdout_bytes: int = _MIB
    stderr_bytes: int = 64 * 1024
    workspace_bytes: int = 64 * _MIB
    workspace_entries: int = 2_000


class LentWorkspace(Protocol):
    """The workspace that a call was lent a descriptor of."""

    def renew(self, flooded: int) -> Callable[[], None] | None:
        """Put an empty directory in the place of `flooded` and give what takes that one apart.

        None when there is nothing left to do. Blocking; ToolError when it cannot be done.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """One call. `workspace_fd` is only borrowed: it must stay open until the call has ended.

    `tenant_hex` and `run_hex` are random ids: they choose the worker and never reach the program.
    `workspace` is what the descriptor is of; without it a flooded one is emptied in place.
    """

    engine: EngineName
    program: Program
    tenant_hex: str
    run_hex: str
    workspace_fd: int
    stdin: bytes = b""
    limits: ExecLimits = ExecLimits()
    workspace: LentWorkspace | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """What a call came to. The bytes are the program's own and hostile."""

    status: ExecStatus
    exit_code: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    peak_memory_bytes: int = 0
    ended_by: EndedBy | None = None
    reason: str = ""  # one fixed sentence for the operator and the model; never of the program


class Runner(Protocol):
    """Runs programs confined. The one implementation is ToolRunner; tools depend on this."""

    async def run(self, request: ExecRequest) -> ExecResult:
        """Run to an end within the limits; never raises for what the program does.

        OverloadedError when too much is waiting: nothing was run. Cancelling kills the program.
        """

    def unavailable(self, engine: EngineName) -> str | None:
        """Why this engine cannot run here, as one sentence, or None when it can."""


# For tests and tools that only need the call.
Run: TypeAlias = Callable[[ExecRequest], Awaitable[ExecResult]]
