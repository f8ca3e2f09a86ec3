"""What an operator says of running the service: leaving, streams, logs, metrics and traces."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

NAMES = (
    "DRAIN_SECONDS",
    "MAX_STREAMS",
    "MAX_STREAMS_PER_TENANT",
    "LOG_FORMAT",
    "ACCESS_LOG",
    "METRICS_HOST",
    "METRICS_PORT",
    "OTLP_ENDPOINT",
)
DRAIN_SECONDS_BEHIND_PROXY = 15
_MOST_DRAIN_SECONDS = 300
_HIGHEST_PORT = 65_535

_Value = TypeVar("_Value")


class NameReader(Protocol):
    """Whoever reads names of the environment, without our prefix, and notes what they came to."""

    def plain(
        self, name: str, parse: Callable[[str], _Value | None], default: _Value, rule: str
    ) -> _Value:
        """The parsed value or the default. ConfigurationError when it does not parse."""

    def number(self, name: str, default: int, *, low: int, high: int) -> int:
        """A whole number within bounds."""

    def base_url(self, name: str) -> str | None:
        """An http(s) URL without credentials and query, or None."""

    def choice(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        """One of a few words."""

    def host(self, name: str, default: str) -> str:
        """A host name or an address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationsSettings:
    """As read.

    `drain_seconds` None: as long as a load balancer needs, where one is in front. `metrics_port`
    None: nothing listens; 0: a port that the system chooses. `otlp_endpoint` None: no spans.
    """

    drain_seconds: int | None
    max_streams: int
    max_streams_per_tenant: int
    log_format: str
    access_log: bool
    metrics_host: str
    metrics_port: int | None
    otlp_endpoint: str | None

    @classmethod
    def read(cls, names: NameReader, *, dev: bool) -> "OperationsSettings":
        """From the environment; ConfigurationError names the first bad one."""
        return cls(
            drain_seconds=_optional(names, "DRAIN_SECONDS", _MOST_DRAIN_SECONDS),
            max_streams=names.number("MAX_STREAMS", 10_000, low=1, high=1_000_000),
            max_streams_per_tenant=names.number(
                "MAX_STREAMS_PER_TENANT", 2_500, low=1, high=1_000_000
            ),
            log_format=names.choice("LOG_FORMAT", ("json", "text"), "text" if dev else "json"),
            access_log=names.choice("ACCESS_LOG", ("on", "off"), "off") == "on",
            metrics_host=names.host("METRICS_HOST", "127.0.0.1"),
            metrics_port=_optional(names, "METRICS_PORT", _HIGHEST_PORT),
            otlp_endpoint=names.base_url("OTLP_ENDPOINT"),
        )

    def drain(self, *, behind_proxy: bool) -> float:
        """For how long a process that leaves still accepts."""
        if self.drain_seconds is not None:
            return float(self.drain_seconds)
        return float(DRAIN_SECONDS_BEHIND_PROXY if behind_proxy else 0)


def _optional(names: NameReader, name: str, high: int) -> int | None:
    def parse(raw: str) -> int | None:
        is_number = raw.isascii() and raw.isdecimal() and len(raw) <= len(str(high))
        return int(raw) if is_number and int(raw) <= high else None

    return names.plain(name, parse, None, f"a whole number from 0 to {high}")
