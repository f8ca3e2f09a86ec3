"""What an operator says of driving runs: where, how many at a time, and of one tenant how many."""

from dataclasses import dataclass
from typing import Protocol

NAMES = ("SERVE_WORKERS", "MAX_DEPLOYMENT_RUNS", "MAX_TENANT_RUNS")
_MOST = 1_000_000


class NumberReader(Protocol):
    """Whoever reads names of the environment, without our prefix, and notes what they came to."""

    def number(self, name: str, default: int, *, low: int, high: int) -> int:
        """A whole number within bounds. ConfigurationError when it is none."""

    def choice(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        """One of a few words. ConfigurationError when it is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchSettings:
    """As read. 0 is no bound."""

    serve_workers: bool  # whether `serve` drives runs, or leaves them to `worker`
    most_everywhere: int
    most_of_tenant: int

    @classmethod
    def read(cls, names: NumberReader) -> "DispatchSettings":
        """From the environment; ConfigurationError names the first bad one."""
        return cls(
            serve_workers=names.choice("SERVE_WORKERS", ("on", "off"), "on") == "on",
            most_everywhere=names.number("MAX_DEPLOYMENT_RUNS", 0, low=0, high=_MOST),
            most_of_tenant=names.number("MAX_TENANT_RUNS", 0, low=0, high=_MOST),
        )
