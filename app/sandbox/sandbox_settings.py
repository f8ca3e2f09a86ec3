"""What an operator says of the sandbox: how tools are confined, and which interpreter is used.

Threat: Privilege escalation via tool calls
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from app.domain.sandbox_mode import SandboxMode, exact_mode
from app.sandbox.execution import EngineName
from app.sandbox.python_engine import PYTHON_ENGINES

NAMES = ("SANDBOX", "PYTHON_ENGINE")
_Value = TypeVar("_Value")


class NameReader(Protocol):
    """Whoever reads names of the environment, without our prefix, and notes what they came to."""

    def plain(
        self, name: str, parse: Callable[[str], _Value | None], default: _Value, rule: str
    ) -> _Value:
        """The parsed value or the default. ConfigurationError when it does not parse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """As read. `python_engine` None: the machine decides."""

    mode: SandboxMode
    python_engine: EngineName | None

    @classmethod
    def read(cls, names: NameReader) -> "SandboxSettings":
        """From the environment; ConfigurationError names the first bad one."""
        return cls(
            mode=names.plain(
                "SANDBOX", exact_mode, SandboxMode.STRICT, "exactly strict or off-unsafe"
            ),
            python_engine=names.plain("PYTHON_ENGINE", _engine, None, "exactly native or monty"),
        )


def _engine(word: str) -> EngineName | None:
    return next((engine for engine in PYTHON_ENGINES if engine.value == word), None)
