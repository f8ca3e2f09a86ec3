"""Credentials that an operator binds to one tool and one host; only the egress client adds them.

A model cannot name, see or move one: it is added after the gate's decision, goes over TLS alone, to
the host that it is bound to, and not behind a redirect to another.

Threat: Exfiltration via web/shell tools
"""

import base64
import binascii
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from app.egress.faults import Fault
from app.egress.url_policy import SafeUrl, read_host

COVER = "[credential]"
MIN_VALUE_CHARS = 12  # shorter ones could not be covered without covering ordinary words
_LINE = re.compile(
    r"(?P<tool>[a-z0-9_.-]{1,64})[ \t]+(?P<host>[^\s:]+|\[[^\s\]]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"[ \t]+(?P<header>[A-Za-z0-9-]{1,64}):[ \t]*(?P<value>[\x21-\x7e][\x20-\x7e]{0,4095})"
)
# Fields that say how the message is to be read, or where it goes, are not the operator's to set.
_FRAMING = frozenset(
    {
        "host",
        "connection",
        "content-length",
        "content-type",
        "transfer-encoding",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "accept-encoding",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCredential:
    """A header field for one tool and one origin. The value is in no repr and no comparison."""

    tool: str
    host: str
    port: int
    header: str
    value: str = field(repr=False, compare=False)

    def __repr__(self) -> str:
        return f"ToolCredential(tool={self.tool!r}, host={self.host!r}, value=(hidden))"

    def fits(self, url: SafeUrl) -> bool:
        """Whether it may be sent there: over TLS, to the very host and port."""
        return url.origin == ("https", self.host, self.port)

    def secrets(self) -> tuple[str, str]:
        """The value, and the part of it behind the scheme."""
        return self.value, self.value.rpartition(" ")[2]

    def forms(self) -> Iterator[str]:
        """How the value may come back in an answer that repeats a request."""
        plain = list(self.secrets())
        word = plain[1]
        try:
            user, _, password = base64.b64decode(word, validate=True).decode().partition(":")
            plain += [f"{user}:{password}", password]
        except (binascii.Error, ValueError):
            pass
        for text in plain:
            if len(text) >= MIN_VALUE_CHARS:
                yield from (text, quote(text, safe=""), json.dumps(text)[1:-1])
                yield base64.b64encode(text.encode()).decode().rstrip("=")


def covered(text: str, credentials: Sequence[ToolCredential]) -> str:
    """The text without any of the values: a host that echoes a request hands none to a model."""
    forms = {form for credential in credentials for form in credential.forms()}
    if not forms:
        return text
    longest_first = sorted(forms, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest_first)), COVER, text, flags=re.IGNORECASE)


def tool_credentials(text: str) -> tuple[ToolCredential, ...] | None:
    """One binding a line, `tool host header: value`; None when a line is none. # begins a comment.

    `text` is a secret: nothing here says which line it was.
    """
    found: list[ToolCredential] = []
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        host = Fault.URL if match is None else read_host(match["host"])
        if match is None or isinstance(host, Fault) or match["header"].lower() in _FRAMING:
            return None
        port, value = int(match["port"] or 443), match["value"]
        if len(value.rpartition(" ")[2]) < MIN_VALUE_CHARS or not 0 < port < 1 << 16:
            return None
        found.append(
            ToolCredential(
                tool=match["tool"], host=host[0], port=port, header=match["header"], value=value
            )
        )
    places = {(one.tool, one.host, one.port, one.header.lower()) for one in found}
    return tuple(found) if found and len(places) == len(found) else None


def checked_bindings(text: str) -> str | None:
    """The text when it is whole, for a reader of settings."""
    return None if tool_credentials(text) is None else text
