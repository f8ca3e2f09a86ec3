"""How a zygote is started: which engine it serves and as whom, as one argument of its command."""

import json
from dataclasses import asdict, dataclass

from app.domain.sandbox_mode import SandboxMode
from app.sandbox.execution import EngineName
from app.sandbox.sandbox_profile import SandboxProfile, WorkerAccount


@dataclass(frozen=True, slots=True, kw_only=True)
class ZygoteConfiguration:
    """Nothing in it is secret: it stands in the process list."""

    engine: EngineName
    profile: SandboxProfile
    account: WorkerAccount | None
    libraries: tuple[str, ...] = ()  # directories an engine outside the standard library is in
    interpreter: str = ""  # the program that workers of `monty` turn into
    has_files: bool = True  # whether programs see the workspace; never without Landlock

    def encode(self) -> str:
        """The argument."""
        return json.dumps(
            {
                "engine": self.engine,
                "mode": self.profile.mode,
                "readable": self.profile.readable,
                "devices": self.profile.devices,
                "executable": self.profile.executable,
                "account": None if self.account is None else asdict(self.account),
                "libraries": self.libraries,
                "interpreter": self.interpreter,
                "has_files": self.has_files,
            }
        )

    @classmethod
    def decode(cls, text: str) -> "ZygoteConfiguration":
        """What `encode` made."""
        held = json.loads(text)
        account = held["account"]
        return cls(
            engine=EngineName(held["engine"]),
            profile=SandboxProfile(
                mode=SandboxMode(held["mode"]),
                readable=tuple(held["readable"]),
                devices=tuple(held["devices"]),
                executable=tuple(held["executable"]),
            ),
            account=None if account is None else WorkerAccount(**account),
            libraries=tuple(held["libraries"]),
            interpreter=held["interpreter"],
            has_files=held["has_files"],
        )
