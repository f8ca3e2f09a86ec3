"""Which addresses are public, against the registries and against examples written by hand."""

import ipaddress
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.egress.public_address import Network, address_of, is_public, network_of

PUBLIC = (
    *("1.1.1.1", "8.8.8.8", "93.184.216.34", "9.255.255.255", "11.0.0.0", "100.63.255.255"),
    *("100.128.0.0", "126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0"),
    *("172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.167.255.255"),
    *("192.169.0.0", "198.17.255.255", "198.20.0.0", "203.0.114.0", "223.255.255.255"),
    *("2606:4700:4700::1111", "2a00:1450:4001:830::200e", "2003::1", "2620:4f:8001::1"),
)
PRIVATE = (
    *("0.0.0.0", "0.1.2.3", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255"),  # noqa: S104 - an example
    *("127.0.0.1", "127.255.255.255", "169.254.0.0", "169.254.169.254", "169.254.170.2"),
    *("169.254.170.23", "172.16.0.0", "172.31.255.255", "192.0.0.0", "192.0.0.9", "192.0.0.192"),
    *("192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.0", "192.175.48.1"),
    *("198.18.0.0", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "233.252.0.1"),
    *("240.0.0.0", "255.255.255.255", "100.100.100.200", "168.63.129.16"),
    *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8"),
    *("64:ff9b::8.8.8.8", "64:ff9b:1::8.8.8.8", "100::1", "100:0:0:1::1", "2001::1", "2001:1::1"),
    *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:20::1", "2001:db8::1", "2001:1ff:ffff::1"),
    *("2002:808:808::1", "2620:4f:8000::1", "3ffe::1", "3fff::1", "3fff:fff::1", "5f00::1"),
    *("4000::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "fe80::1", "fec0::1", "feff::1"),
    *("ff02::1", "ff0e::1", "2a00:1450::5efe:8.8.8.8", "2a00:1450::200:5efe:8.8.8.8"),
)


@pytest.mark.parametrize("text", PUBLIC)
def test_an_ordinary_address_is_public(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", PRIVATE)
def test_a_special_address_is_not(text: str) -> None:
    assert not is_public(ip_address(text))


@given(st.integers(0, 2**32 - 1))
def test_no_form_that_holds_an_ipv4_address_is_public(number: int) -> None:
    forms = (
        number,  # compatible
        0xFFFF << 32 | number,  # mapped
        0xFFFF << 48 | number,  # translated
        int(IPv6Address("64:ff9b::")) | number,
        int(IPv6Address("64:ff9b:1::")) | number,
        int(IPv6Address("2002::")) | number << 80,  # 6to4
        int(IPv6Address("2001::")) | number << 64,  # Teredo, the server
        int(IPv6Address("2001::")) | number ^ 0xFFFFFFFF,  # Teredo, the client
        int(IPv6Address("2a00:1450::5efe:0:0")) | number,  # ISATAP
    )
    assert not [form for form in forms if is_public(IPv6Address(form))]


@given(st.integers(0, 2**128 - 1))
def test_nothing_outside_global_unicast_is_public(number: int) -> None:
    address = IPv6Address(number)
    assert address in IPv6Network("2000::/3") or not is_public(address)


def test_nothing_that_this_python_knows_as_special_is_public() -> None:
    """Edges and middles of every network it has: a registry that grows is noticed here."""
    known = [
        network
        for constants in (ipaddress._IPv4Constants, ipaddress._IPv6Constants)  # type: ignore[attr-defined]
        for value in vars(constants).values()
        for network in (value if isinstance(value, list) else [value])
        if isinstance(network, IPv4Network | IPv6Network)
    ]
    assert len(known) > 30
    wrong = []
    for network in known:
        first, last = int(network.network_address), int(network.broadcast_address)
        for number in {first - 1, first, (first + last) // 2, last, last + 1}:
            if 0 <= number < 1 << network.max_prefixlen:
                address = type(network.network_address)(number)
                special = address.is_multicast or address.is_reserved or not address.is_global
                wrong += [address] if special and is_public(address) else []
    assert wrong == []


def test_the_operators_networks_are_private_too() -> None:
    denied: list[Network] = [ip_network("93.184.0.0/16"), ip_network("2606:4700::/32")]
    assert not is_public(IPv4Address("93.184.216.34"), denied)
    assert not is_public(IPv6Address("2606:4700:4700::1111"), denied)
    assert is_public(IPv4Address("93.185.0.1"), denied)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("fe80::1%25eth0", "fe80::1"),
        ("0127.0.0.1", None),
        ("127.1", None),
        ("2130706433", None),
        ("localhost", None),
        ("", None),
        ("[::1]", None),
    ],
)
def test_an_address_is_read_strictly_and_without_its_zone(text: str, read: str | None) -> None:
    found = address_of(text)
    assert (None if found is None else str(found)) == read


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "cluster", "", "10.0.0.0/8/8"])
def test_a_text_that_is_no_network_is_none(text: str) -> None:
    assert network_of(text) is None
