"""Says whether an address belongs to the public internet: what does not surely, does not.

The special registries of IANA (RFC 6890 and what came after), every form that hides an IPv4 address
in an IPv6 one, the metadata services of the large clouds, and the operator's own networks. Pure.

Threat: Exfiltration via web/shell tools
"""

from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

# Written out, though the standard library knows most of them: what it calls global has changed
# between patch releases of Python.
_NOT_PUBLIC_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network, RFC 791; 0.0.0.0 reaches this host
            "10.0.0.0/8",  # private, RFC 1918
            "100.64.0.0/10",  # carrier-grade NAT, RFC 6598
            "127.0.0.0/8",  # loopback, RFC 1122
            "169.254.0.0/16",  # link-local, RFC 3927
            "172.16.0.0/12",  # private, RFC 1918
            "192.0.0.0/24",  # protocol assignments, RFC 6890
            "192.0.2.0/24",  # documentation, RFC 5737
            "192.31.196.0/24",  # AS112, RFC 7535
            "192.52.193.0/24",  # AMT relays, RFC 7450
            "192.88.99.0/24",  # 6to4 relays, RFC 7526
            "192.168.0.0/16",  # private, RFC 1918
            "192.175.48.0/24",  # AS112, RFC 7534
            "198.18.0.0/15",  # benchmarks, RFC 2544
            "198.51.100.0/24",  # documentation, RFC 5737
            "203.0.113.0/24",  # documentation, RFC 5737
            "224.0.0.0/4",  # multicast, RFC 5771
            "240.0.0.0/4",  # reserved, RFC 1112; with the broadcast address
        ),
    )
)
# The only part of IPv6 that is handed out for the internet (RFC 4291 and IANA's registry). All that
# is outside it is refused by that alone: loopback, mapped, compatible, NAT64, discard, site-local,
# unique local, link-local, multicast, segment routing.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments, RFC 2928; Teredo, RFC 4380, holds an IPv4 address
            "2001:db8::/32",  # documentation, RFC 3849
            "2002::/16",  # 6to4, RFC 3056; holds an IPv4 address
            "2620:4f:8000::/48",  # AS112, RFC 7534
            "3ffe::/16",  # the 6bone, given back, RFC 3701
            "3fff::/20",  # documentation, RFC 9637
        ),
    )
)
# ISATAP (RFC 5214, 6.1) puts an IPv4 address behind one of these in the low half of any prefix.
_ISATAP = (0x00005EFE, 0x02005EFE)
# Metadata and platform services. Most stand in a network above already; listed all the same.
_METADATA = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
        ),
    )
)


def address_of(text: str) -> Address | None:
    """The address that a text is, in the strict notation; None for any other text.

    A zone (RFC 4007) is taken off: it chooses an interface, and must not choose another verdict.
    """
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None


def network_of(text: str) -> Network | None:
    """The network that a text is, None for any other text. Host bits may not be set."""
    try:
        return ip_network(text)
    except ValueError:
        return None


def is_public(address: Address, denied: Sequence[Network] = ()) -> bool:
    """Whether a request may be sent there. `denied` are networks of the operator's own."""
    if address in _METADATA or any(address in network for network in denied):
        return False
    match address:
        case IPv4Address():
            return not any(address in network for network in _NOT_PUBLIC_4)
        case IPv6Address():
            return _is_public_6(address)


def _is_public_6(address: IPv6Address) -> bool:
    if address not in _GLOBAL_UNICAST or any(address in network for network in _NOT_PUBLIC_6):
        return False
    return (int(address) >> 32) & 0xFFFF_FFFF not in _ISATAP
