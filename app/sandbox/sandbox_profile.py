"""What a confined worker may reach and use, as one frozen object; the defaults are the strict ones.

Threat: Privilege escalation via tool calls
"""

from dataclasses import dataclass, field, replace

from app.domain.sandbox_mode import SandboxMode
from app.sandbox.execution import EngineName, ExecLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxProfile:
    """How a worker is confined. Paths are read-only for it; its workspace comes with each call."""

    mode: SandboxMode = SandboxMode.STRICT
    readable: tuple[str, ...] = ("/usr/share/zoneinfo",)
    devices: tuple[str, ...] = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
    executable: tuple[str, ...] = ()  # programs of the `exec` engine; empty: nothing is executed
    limits: ExecLimits = field(default_factory=ExecLimits)

    def for_engine(self, engine: EngineName) -> "SandboxProfile":
        """The same, and nothing is executed but by the engine that is for it."""
        return self if engine is EngineName.EXEC else replace(self, executable=())


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerAccount:
    """As whom workers run when the server is root: an account without power."""

    uid: int
    gid: int
