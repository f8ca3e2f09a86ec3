"""The two ways to a socket: what each refuses before, and what it says when nobody answers."""

import socket
from collections.abc import Sequence
from ipaddress import ip_address

import httpcore2
import pytest

from app.domain.errors import EgressError
from app.egress.faults import SENTENCES, Fault
from app.egress.public_address import Address
from app.egress.public_backend import LocalBackend, PublicBackend


class _Resolver:
    """A resolver that has these addresses for every name."""

    def __init__(self, *found: str) -> None:
        self._found = [ip_address(text) for text in found]

    async def addresses(self, host: str) -> Sequence[Address]:
        del host
        return self._found

    def close(self) -> None:
        """Nothing is held."""


def _closed_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


class _Elsewhere(httpcore2.AnyIOBackend):
    """Dials a port of this machine where nobody listens, whatever it is told."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the same
        local_address: str | None = None,
        socket_options: object = None,
    ) -> httpcore2.AsyncNetworkStream:
        del host, port, local_address, socket_options
        return await super().connect_tcp("127.0.0.1", _closed_port(), timeout)


def _public(resolver: _Resolver) -> PublicBackend:
    return PublicBackend(resolver=resolver, denied=[], dial=_Elsewhere(), max_wire_bytes=1000)


async def test_a_name_without_any_address_is_not_known() -> None:
    with pytest.raises(EgressError, match=SENTENCES[Fault.UNKNOWN]):
        await _public(_Resolver()).public_addresses("www.example.com")


async def test_where_nobody_answers_at_any_address_it_says_so() -> None:
    backend = _public(_Resolver("93.184.216.34", "93.184.216.35"))
    with pytest.raises(EgressError, match=SENTENCES[Fault.UNREACHABLE]):
        await backend.connect_tcp("www.example.com", 443)


@pytest.mark.parametrize("host", ["93.184.216.34", "10.0.0.1", "localhost", "2606:4700::1"])
async def test_the_one_for_this_machine_goes_nowhere_else(host: str) -> None:
    backend = LocalBackend(dial=_Elsewhere(), max_wire_bytes=1000)
    with pytest.raises(EgressError, match=SENTENCES[Fault.PRIVATE]):
        await backend.connect_tcp(host, 80)


async def test_on_this_machine_too_nobody_may_answer() -> None:
    backend = LocalBackend(dial=_Elsewhere(), max_wire_bytes=1000)
    with pytest.raises(EgressError, match=SENTENCES[Fault.UNREACHABLE]):
        await backend.connect_tcp("127.0.0.1", 80)


async def test_neither_knows_a_path_as_an_address() -> None:
    for backend in (_public(_Resolver()), LocalBackend(dial=_Elsewhere(), max_wire_bytes=1)):
        with pytest.raises((EgressError, NotImplementedError)):
            await backend.connect_unix_socket("/run/somewhere")
