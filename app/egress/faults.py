"""Every reason why a request does not leave or its answer is not used, and the words for each.

The words are for whoever asked: they name no address, no other host and nothing of the network.

Threat: Exfiltration via web/shell tools
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from app.domain.errors import EgressError


class Fault(StrEnum):
    """Why not. `PRIVATE` and `UNKNOWN` read alike: names inside are not to be found by asking."""

    URL = "url"
    SCHEME = "scheme"
    USERINFO = "userinfo"
    NUMERAL = "numeral"
    PORT = "port"
    HOST = "host"
    BLOCKED = "blocked"
    METHOD = "method"
    BODY = "body"
    PRIVATE = "private"
    UNKNOWN = "unknown"
    UNREACHABLE = "unreachable"
    TLS = "tls"
    PROTOCOL = "protocol"
    ENCODING = "encoding"
    TOO_MUCH = "too_much"
    REDIRECTS = "redirects"
    DOWNGRADE = "downgrade"
    DEADLINE = "deadline"
    CLOSED = "closed"


_NO_ADDRESS = "no public address of this host is known"
SENTENCES: Mapping[Fault, str] = MappingProxyType(
    {
        Fault.URL: (
            "this is not a plain URL: http or https, a host in ASCII (xn-- for other letters),"
            " and no spaces, backslashes or control characters"
        ),
        Fault.SCHEME: "only http and https are allowed",
        Fault.USERINFO: "a URL may not carry a user name or a password",
        Fault.NUMERAL: "the host looks like a number but is not a plain address",
        Fault.PORT: "this port is not allowed",
        Fault.HOST: "this host is not on the list of allowed hosts",
        Fault.BLOCKED: "the URL or the body is on the blocklist",
        Fault.METHOD: "this method is not allowed",
        Fault.BODY: "the body is too long, or this method takes none",
        Fault.PRIVATE: _NO_ADDRESS,
        Fault.UNKNOWN: _NO_ADDRESS,
        Fault.UNREACHABLE: "the host does not answer",
        Fault.TLS: "no trusted TLS connection could be made",
        Fault.PROTOCOL: "the host does not speak HTTP as it should",
        Fault.ENCODING: "the host sends a compressed body, which was not asked for",
        Fault.TOO_MUCH: "the host sends more than is taken",
        Fault.REDIRECTS: "too many redirects",
        Fault.DOWNGRADE: "a redirect from https to http is not followed",
        Fault.DEADLINE: "the host took too long",
        Fault.CLOSED: "the service is stopping",
    }
)


def refused(fault: Fault) -> EgressError:
    """The error for a fault."""
    return EgressError(fault.value, SENTENCES[fault])
