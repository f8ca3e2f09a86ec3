"""What an operator says of outgoing requests: allowed hosts, ports, methods, networks, patterns.

Threat: Exfiltration via web/shell tools
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from app.domain.errors import ConfigurationError
from app.egress.public_address import Network, network_of
from app.egress.tool_credentials import ToolCredential, checked_bindings, tool_credentials
from app.egress.url_policy import READING, SENDING, HostRules, UrlPolicy, host_rules

if TYPE_CHECKING:  # every command reads settings, and few need what compiles patterns
    from app.egress.url_blocklist import UrlBlocklist

NAMES = (
    "FETCH_HOSTS",
    "FETCH_PORTS",
    "FETCH_METHODS",
    "EGRESS_DENIED_NETWORKS",
    "WEBHOOK_HOSTS",
    "WEBHOOK_LOOPBACK_PORTS",
    "URL_BLOCKLIST_FILE",
)
SECRET_NAME = "TOOL_CREDENTIALS"  # noqa: S105 - the name of a setting
_MAX_BLOCKLIST_BYTES = 1 << 20

_Value = TypeVar("_Value")
_Item = TypeVar("_Item")


class Hidden(Protocol):
    """A secret that shows itself only when it is asked to."""

    def reveal(self) -> str:
        """The value itself."""


class NameReader(Protocol):
    """Whoever reads names of the environment, without our prefix, and notes what they came to."""

    def plain(
        self, name: str, parse: Callable[[str], _Value | None], default: _Value, rule: str
    ) -> _Value:
        """The parsed value or the default. ConfigurationError when it does not parse."""

    def optional_path(self, name: str) -> Path | None:
        """A path, or None when it is not set."""

    def secret(self, full: str, check: Callable[[str], str | None]) -> Hidden | None:
        """A secret by its whole name, or from the file that its twin names."""


class Listed(tuple[_Item, ...]):
    """Items of a comma-separated setting, which are shown as one was written."""

    __slots__ = ()

    def __str__(self) -> str:
        return ", ".join(map(str, self)) or "(none)"


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSettings:
    """As read. `hosts` None: nothing may be fetched, and the web tool is not there."""

    hosts: HostRules | None
    ports: Listed[int]
    methods: Listed[str]
    denied: Listed[Network]
    webhook_hosts: HostRules | None  # None: any that is public
    webhook_loopback_ports: Listed[int]
    blocklist_file: Path | None
    bindings: Hidden | None

    @classmethod
    def read(cls, names: NameReader, *, dev: bool) -> "EgressSettings":
        """From the environment; ConfigurationError names the first bad one."""
        none: Listed[int] = Listed(())
        local = names.plain("WEBHOOK_LOOPBACK_PORTS", _ports, none, "ports, separated by commas")
        if local and not dev:
            raise ConfigurationError("MESHFLOW_WEBHOOK_LOOPBACK_PORTS is for --dev alone")
        return cls(
            webhook_loopback_ports=local,
            hosts=names.plain(
                "FETCH_HOSTS",
                host_rules,
                None,
                "hosts, separated by commas: names in ASCII of two labels or more, *. and such a"
                " name for all below it, or public addresses",
            ),
            ports=names.plain("FETCH_PORTS", _ports, Listed(()), "ports, separated by commas"),
            methods=names.plain(
                "FETCH_METHODS",
                _methods,
                Listed(sorted(READING)),
                f"some of {', '.join(sorted(READING | SENDING))}, separated by commas",
            ),
            denied=names.plain(
                "EGRESS_DENIED_NETWORKS",
                _networks,
                Listed(()),
                "networks like 10.0.0.0/8, separated by commas, without host bits",
            ),
            webhook_hosts=names.plain(
                "WEBHOOK_HOSTS", host_rules, None, "hosts as in MESHFLOW_FETCH_HOSTS"
            ),
            blocklist_file=names.optional_path("URL_BLOCKLIST_FILE"),
            bindings=names.secret(f"MESHFLOW_{SECRET_NAME}", checked_bindings),
        )

    def credentials(self) -> tuple[ToolCredential, ...]:
        """The credentials that are bound to tools. Whoever asks keeps them out of every text."""
        return () if self.bindings is None else tool_credentials(self.bindings.reveal()) or ()

    def secret_values(self) -> list[str]:
        """What of the credentials may stand in no log and no record."""
        return [form for one in self.credentials() for form in one.secrets()]

    def fetch_policy(self) -> UrlPolicy | None:
        """What the web tool may ask for, or None. ConfigurationError for a bad blocklist."""
        added = [] if self.blocklist_file is None else [_own_blocklist(self.blocklist_file)]
        patterns = shipped_blocklist(added)
        if self.hosts is None:
            return None
        return UrlPolicy(
            hosts=self.hosts,
            blocklist=patterns,
            ports=frozenset(self.ports),
            methods=frozenset(self.methods),
        )

    def webhook_policy(self) -> UrlPolicy:
        """Where webhooks may be sent: over https, to the operator's list or to any public host.

        No patterns are held against it: a tenant chose the URL and not a model, and a body of ids
        and signatures that looks like something by chance must not be kept back.
        """
        from app.egress.url_blocklist import UrlBlocklist  # noqa: PLC0415 - see above

        return UrlPolicy(
            hosts=HostRules(any_host=True) if self.webhook_hosts is None else self.webhook_hosts,
            blocklist=UrlBlocklist(),
            ports=frozenset(self.ports),
            methods=frozenset({"POST"}),
            schemes=frozenset({"https"}),
            local_ports=frozenset(self.webhook_loopback_ports),
        )


def shipped_blocklist(added: Sequence[bytes] = ()) -> "UrlBlocklist":
    """The patterns that are shipped, and after them those of these documents."""
    from app.egress.url_blocklist import blocklist  # noqa: PLC0415 - see above

    shipped = resources.files("app.egress").joinpath("url_blocklist.toml").read_bytes()
    return blocklist([shipped, *added])


def _own_blocklist(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            read = file.read(_MAX_BLOCKLIST_BYTES + 1)
    except (OSError, ValueError):
        raise ConfigurationError("MESHFLOW_URL_BLOCKLIST_FILE cannot be read") from None
    if len(read) > _MAX_BLOCKLIST_BYTES:
        raise ConfigurationError("the file of MESHFLOW_URL_BLOCKLIST_FILE is too large")
    return read


def _each(raw: str, parse: Callable[[str], _Item | None], most: int = 1000) -> Listed[_Item] | None:
    items = [parse(part) for part in map(str.strip, raw.split(",")) if part]
    known = [item for item in items if item is not None]
    return Listed(known) if 0 < len(known) == len(items) <= most else None


def _ports(raw: str) -> Listed[int] | None:
    def port(part: str) -> int | None:
        fits = re.fullmatch(r"[0-9]{1,5}", part) is not None and 0 < int(part) < 1 << 16
        return int(part) if fits else None

    return _each(raw, port)


def _methods(raw: str) -> Listed[str] | None:
    known = READING | SENDING
    return _each(raw, lambda part: part.upper() if part.upper() in known else None)


def _networks(raw: str) -> Listed[Network] | None:
    return _each(raw, network_of)
