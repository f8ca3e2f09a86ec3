"""Which addresses an answer may lead to, and where a plain text leads to others.

Nothing is declared by default. A host is declared by name, or with all below it as `*.example.org`.

Threat: Exfiltration via web/shell tools
"""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from app.privacy.linear_regex import compiled

# What programs make a link of without being asked: a scheme, two slashes, www, or a name under one
# of the common tops with something behind it.
_BARE: Final = compiled(
    r"(?i)(?:[a-z][a-z0-9+.\-]{1,31}:)?//[^\s<>\"`\x00-\x20]+"
    r"|\b(?:data|javascript|vbscript|file|blob|intent):[^\s<>\"`]+"
    r"|\bmailto:[^\s<>\"`]+"
    r"|\bwww\.[^\s<>\"`]+"
    r"|\b(?:[a-z0-9_\-]{1,63}\.)+(?:com|net|org|info|biz|io|dev|app|xyz|co|me|to|site|online|top|club|link|ly|gg|"
    r"uk|de|fr|eu|ru|cn|nl|ch|at|es|it|pl|br|in|jp|au|ca|us)(?::[0-9]{1,5})?[/?][^\s<>\"`]*"
)
_TRAILING: Final = ".,;:!?'\")]}*_"
_MAX_LINK: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredPlaces:
    """Hosts (lower case, `*.` for all below) and mail addresses that somebody could declare."""

    hosts: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()

    def allows_link(self, link: str) -> bool:
        """Whether a reader may be led there. Nowhere, and a place in the same text, are fine.

        So is a plain word: no reader makes a host of it, and code is full of what looks like that.
        """
        if not link or (link.startswith("#") and link.isprintable()):
            return True
        if link.isascii() and link.replace("_", "").isalnum():
            return True
        if link[:7].lower() == "mailto:":
            return link[7:].casefold() in self.addresses
        return self.allows_image(link)

    def allows_image(self, link: str) -> bool:
        """Whether something may be fetched from there without anybody asking for it."""
        host = host_of(link)
        if host is None:
            return False
        above = host.split(".")
        return host in self.hosts or any(
            "*." + ".".join(above[at:]) in self.hosts for at in range(1, len(above))
        )


def host_of(link: str) -> str | None:
    """The host that a web address leads every reader to, or None when readers may differ."""
    if len(link) > _MAX_LINK or any(c.isspace() or c == "\\" or not c.isprintable() for c in link):
        return None
    try:
        parts = urlsplit(link)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
        return None
    return host.rstrip(".").lower() if _is_name_or_address(host) else None


def _is_name_or_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.isascii() and all(c.isalnum() or c in "-._" for c in host)
    return True


def bare_links(text: str, places: DeclaredPlaces) -> Iterator[tuple[int, int]]:
    """Where a text without markup leads to undeclared places: start and end in characters."""
    if ":" not in text and "/" not in text and "www." not in text.lower() and "?" not in text:
        return
    raw = text.encode("utf-8", "surrogatepass")
    for found in _BARE.finditer(raw):
        link = raw[found.start() : found.end()].decode("utf-8", "surrogatepass")
        shown = link.rstrip(_TRAILING)
        if not _is_link(shown) or places.allows_link(_absolute(shown)):
            continue
        start = len(raw[: found.start()].decode("utf-8", "surrogatepass"))
        yield start, start + len(shown)


def _is_link(shown: str) -> bool:
    # "// a comment" and a path with a double slash lead nowhere.
    return not shown.startswith("//") or "." in shown[2:].split("/", 1)[0]


def _absolute(shown: str) -> str:
    if shown.startswith("//"):
        return "https:" + shown
    head = shown.split("/", 1)[0]
    return shown if ":" in head and not head.rpartition(":")[2].isdigit() else "https://" + shown
