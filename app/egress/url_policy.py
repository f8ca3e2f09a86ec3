"""Reads a URL in one strict way, or refuses it: what is judged here is what is dialled later.

Nothing is repaired. Whatever two readers of URLs have ever read differently (userinfo, backslashes,
odd numerals, percent signs and other letters in the host, control characters) is refused, and the
request is made of the parts that were read, so no second reader comes after this one. Pure.

Threat: Exfiltration via web/shell tools
"""

import re
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin

from app.egress.faults import Fault
from app.egress.public_address import Address, is_public

if TYPE_CHECKING:  # every command reads settings, and few need what compiles patterns
    from app.egress.url_blocklist import UrlBlocklist

MAX_URL_CHARS = 4096
MAX_BODY_BYTES = 64 * 1024
DEFAULT_PORTS = {"http": 80, "https": 443}
READING = frozenset({"GET", "HEAD"})
SENDING = frozenset({"POST", "PUT", "PATCH", "DELETE"})

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
# RFC 3986, appendix B, with the authority that http wants; the fragment never leaves a client.
_SHAPE = re.compile(r"//(?P<authority>[^/?#]*)(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?:#.*)?")
# What no URL may hold anywhere: controls, spaces, and what some readers take for a slash.
_NEVER = re.compile(r"[\x00-\x20\x7f\\]")
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(?P<port>[0-9]{1,5}))?")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# A last label that a resolver or a browser may take for a number (WHATWG URL, "ends in a number").
_NUMERAL = re.compile(r"[0-9]+|0x[0-9a-f]*")
_MAX_HOST_CHARS = 253
_SAFE_IN_TARGET = "%!$&'()*+,;=:@/?-._~[]"


@dataclass(frozen=True, slots=True, kw_only=True)
class SafeUrl:
    """A URL in parts. `host` is lower case, without brackets and without a dot at its end.

    `address` is the host when that is an address. Made by `read_url`, which read these parts.
    """

    scheme: str
    host: str
    port: int
    target: str
    address: Address | None

    @property
    def authority(self) -> str:
        """The value of the Host field (RFC 9110, 7.2): without the scheme's own port."""
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port (RFC 6454): what a credential stays with."""
        return self.scheme, self.host, self.port

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRules:
    """Which hosts may be asked at all. Decided before anything is looked up: a lookup tells too.

    `exact` are names or addresses; `below` are names whose subdomains, not themselves, are allowed.
    """

    exact: frozenset[str] = frozenset()
    below: frozenset[str] = frozenset()
    any_host: bool = False

    def allows(self, url: SafeUrl) -> bool:
        """Whether the host is listed. An address is never below a name."""
        if self.any_host or url.host in self.exact:
            return True
        return url.address is None and any(url.host.endswith(f".{base}") for base in self.below)

    def __str__(self) -> str:
        return ", ".join((*sorted(self.exact), *(f"*.{base}" for base in sorted(self.below))))


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlPolicy:
    """What a caller of the egress client may ask for; without `hosts` nothing."""

    hosts: HostRules
    blocklist: "UrlBlocklist"
    ports: frozenset[int] = frozenset()  # beside 80 and 443
    methods: frozenset[str] = READING
    schemes: frozenset[str] = field(default=frozenset(DEFAULT_PORTS))
    local_ports: frozenset[int] = frozenset()  # of this machine, for development

    def is_local(self, url: SafeUrl) -> bool:
        """Whether it is an address of this machine, written as one, at a port that is allowed."""
        is_loopback = url.address is not None and url.address.is_loopback
        return is_loopback and url.port in self.local_ports

    def judge(self, text: str, method: str = "GET", body: bytes | None = None) -> SafeUrl | Fault:
        """The URL in parts when a request may be made, else the first reason why not."""
        url = read_url(text)
        if isinstance(url, Fault):
            return url
        is_local = self.is_local(url)
        if url.scheme not in self.schemes and not is_local:
            return Fault.SCHEME
        known = is_local or url.port in self.ports or url.port in DEFAULT_PORTS.values()
        if not known:
            return Fault.PORT
        if not self.hosts.allows(url):
            return Fault.HOST
        if method not in self.methods:
            return Fault.METHOD
        if body is not None and (method in READING or len(body) > MAX_BODY_BYTES):
            return Fault.BODY
        if self.blocklist.finds(text, str(url), body):
            return Fault.BLOCKED
        return url


def read_url(text: str) -> SafeUrl | Fault:
    """The one reading of a URL (RFC 3986, narrowed), or why it has none."""
    if len(text) > MAX_URL_CHARS or _NEVER.search(text) or not text.isprintable():
        return Fault.URL
    scheme = _SCHEME.match(text)
    if scheme is not None and scheme[1].lower() not in DEFAULT_PORTS:
        return Fault.SCHEME
    shape = None if scheme is None else _SHAPE.fullmatch(text, scheme.end())
    if scheme is None or shape is None:
        return Fault.URL
    if "@" in shape["authority"]:
        return Fault.USERINFO
    authority = _AUTHORITY.fullmatch(shape["authority"])
    if authority is None:
        return Fault.URL
    host = read_host(authority["host"])
    if isinstance(host, Fault):
        return host
    name = scheme[1].lower()
    port = int(authority["port"] or DEFAULT_PORTS[name])
    target = (shape["path"] or "/") + (shape["query"] or "")
    if not 0 < port < 1 << 16:
        return Fault.PORT
    return SafeUrl(
        scheme=name,
        host=host[0],
        port=port,
        target=quote(target, safe=_SAFE_IN_TARGET),
        address=host[1],
    )


def read_host(text: str) -> tuple[str, Address | None] | Fault:
    """A host in its one form, and the address that it is, if any."""
    if text.startswith("["):
        try:
            six = IPv6Address(text[1:-1])
        except AddressValueError:
            return Fault.NUMERAL
        return six.compressed, six
    host = text.lower().removesuffix(".")
    labels = host.split(".")
    # The text and not the host: the Kelvin sign is a plain k in lower case.
    if not text.isascii() or len(host) > _MAX_HOST_CHARS or not all(map(_LABEL.fullmatch, labels)):
        return Fault.URL
    if _NUMERAL.fullmatch(labels[-1]):
        try:
            four = IPv4Address(host)
        except AddressValueError:
            return Fault.NUMERAL
        return str(four), four
    # A name of one label is looked up in search lists: it means what the cluster says it means.
    return (host, None) if len(labels) > 1 else Fault.URL


def followed(url: SafeUrl, location: bytes) -> str | None:
    """Where a redirect leads, as text that has to be judged again; None when it cannot be read."""
    try:
        text = location.decode("ascii")
    except UnicodeDecodeError:
        return None
    if not text or len(text) > MAX_URL_CHARS or _NEVER.search(text):
        return None
    try:
        return urljoin(str(url), text)
    except ValueError:
        return None


def host_rules(text: str) -> HostRules | None:
    """Rules from a comma-separated list, None when an item is neither a host nor `*.` and one."""
    exact: set[str] = set()
    below: set[str] = set()
    for item in filter(None, (part.strip() for part in text.split(","))):
        base = item.removeprefix("*.")
        bracketed = f"[{base}]" if ":" in base and not base.startswith("[") else base
        host = read_host(bracketed) if re.fullmatch(r"\S+", bracketed) else Fault.URL
        if isinstance(host, Fault) or (host[1] and (base != item or not is_public(host[1]))):
            return None  # an address that can never be asked is a mistake to be told at once
        (exact if base == item else below).add(host[0])
    return HostRules(exact=frozenset(exact), below=frozenset(below)) if exact or below else None
