"""What a confined worker may reach and use, as one frozen object; the defaults are the strict ones.

Threat: Privilege escalation via tool calls
"""

from dataclasses import dataclass, field, replace
from typing import assert_never

from app.domain.sandbox_mode import SandboxMode
from app.sandbox.execution import EngineName, ExecLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxProfile:
    """How a worker is confined. Paths are read-only for it; its workspace comes with each call."""

    mode: SandboxMode = SandboxMode.STRICT
    readable: tuple[str, ...] = ("/usr/share/zoneinfo",)
    devices: tuple[str, ...] = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
    executable: tuple[str, ...] = ()  # programs of the `exec` engine; empty: nothing is executed
    sees_links: bool = True
    limits: ExecLimits = field(default_factory=ExecLimits)

    def for_engine(self, engine: EngineName) -> "SandboxProfile":
        """The same, narrowed to what this engine needs."""
        match engine:
            case EngineName.NATIVE | EngineName.MONTY:
                return replace(self, executable=())
            case EngineName.VIRTUAL_SHELL:
                # Its library asks for the real name of its place, which the worker may not reach.
                return replace(self, executable=(), sees_links=False)
            case EngineName.EXEC:
                return self
            case _:
                assert_never(engine)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerAccount:
    """As whom workers run when the server is root: an account without power."""

    uid: int
    gid: int
