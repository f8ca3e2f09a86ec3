"""A DNS server of our own on a loopback UDP port, and the client that really asks it.

Names spell their answers: `ip-7f000001` is 127.0.0.1, `ip6-` and 32 hex digits an AAAA, `mix-` a
public address and that one, `turn-` a public address at the first lookup and that one afterwards,
`flip-` the other way round. `www`, `other` and `six` are public. Every other name does not exist.
"""

import asyncio
import re
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import cast

from app.egress.faults import Fault, refused
from app.egress.public_address import Address

PUBLIC = IPv4Address("93.184.216.34")
OTHER = IPv4Address("93.184.216.35")
SIX = IPv6Address("2606:4700:4700::1111")
_A, _AAAA = 1, 28
_FIXED: dict[str, Address] = {"www": PUBLIC, "other": OTHER, "six": SIX}
_SPELT = re.compile(r"(ip|mix|turn|flip)-([0-9a-f]{8})|ip6-([0-9a-f]{32})")


class StubDns(asyncio.DatagramProtocol):
    """Answers, and remembers every name that it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._lookups: Counter[str] = Counter()
        self._transport: asyncio.DatagramTransport | None = None

    def forget(self) -> None:
        """Begin anew: names that change are at their first answer again."""
        self.asked.clear()
        self._lookups.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own is no subclass of the type that it documents.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        name, kind = question(data)
        self.asked.append(name)
        addresses = list(self._answers(name, kind))
        records = b"".join(
            struct.pack("!HHHIH", 0xC00C, kind, 1, 0, len(address.packed)) + address.packed
            for address in addresses
        )
        head = data[:2] + struct.pack("!HHHHH", 0x8180, 1, len(addresses), 0, 0)
        assert self._transport is not None
        self._transport.sendto(head + data[12:] + records, addr)

    def _answers(self, name: str, kind: int) -> Iterator[Address]:
        label = name.partition(".")[0]
        fixed, spelt = _FIXED.get(label), _SPELT.fullmatch(label)
        if fixed is not None:
            if (kind == _A) == (fixed.version == 4):
                yield fixed
        elif spelt is not None and spelt[3]:
            if kind == _AAAA:
                yield IPv6Address(int(spelt[3], 16))
        elif spelt is not None and kind == _A:
            inner = IPv4Address(int(spelt[2], 16))
            first = self._lookups[name] == 0
            self._lookups[name] += 1
            match spelt[1]:
                case "ip":
                    yield inner
                case "mix":
                    yield from (PUBLIC, inner)
                case "turn":
                    yield PUBLIC if first else inner
                case _:
                    yield inner if first else PUBLIC


def question(data: bytes) -> tuple[str, int]:
    """The name and type that a query asks for (RFC 1035, 4.1.2)."""
    labels, at = [], 12
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode("latin-1"))
        at += data[at] + 1
    return ".".join(labels).lower(), int.from_bytes(data[at + 1 : at + 3], "big")


class _Asking(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:  # noqa: ARG002 - asyncio's signature
        if not self.answer.done():
            self.answer.set_result(data)


class StubResolver:
    """A resolver whose every lookup is two real queries to the stub, for A and for AAAA."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def addresses(self, host: str) -> Sequence[Address]:
        try:
            name = b"".join(bytes([len(part)]) + part for part in host.encode("ascii").split(b"."))
        except (UnicodeEncodeError, ValueError):
            raise refused(Fault.UNKNOWN) from None
        found = [*await self._asked(name, _A), *await self._asked(name, _AAAA)]
        if not found:
            raise refused(Fault.UNKNOWN)
        return found

    def close(self) -> None:
        """Nothing is held."""

    async def _asked(self, name: bytes, kind: int) -> list[Address]:
        loop = asyncio.get_running_loop()
        transport, asking = await loop.create_datagram_endpoint(
            _Asking, remote_addr=("127.0.0.1", self._port)
        )
        try:
            transport.sendto(
                struct.pack("!HHHHHH", 1, 0x0100, 1, 0, 0, 0)
                + name
                + b"\0"
                + struct.pack("!HH", kind, 1)
            )
            answer = await asking.answer
        finally:
            transport.close()
        return list(_read_addresses(answer))


def _read_addresses(answer: bytes) -> Iterator[Address]:
    count = int.from_bytes(answer[6:8], "big")
    at = 12
    while answer[at]:
        at += answer[at] + 1
    at += 5
    for _ in range(count):
        size = int.from_bytes(answer[at + 10 : at + 12], "big")
        data = answer[at + 12 : at + 12 + size]
        yield IPv4Address(data) if size == 4 else IPv6Address(data)
        at += 12 + size
