"""The only way from the HTTP library to a socket: looks up once, wants all public, dials one.

Between the check and the dialling no name is looked up again, so an answer that changes has nothing
to change. The name stays where it belongs: in the Host field and in the TLS handshake.

Threat: Exfiltration via web/shell tools
"""

import ssl
from collections.abc import Iterable, Sequence

import httpcore2

from app.egress.faults import Fault, refused
from app.egress.name_resolver import NameResolver
from app.egress.public_address import Address, Network, address_of, is_public

_CONNECT_SECONDS = 5.0
_MAX_TRIES = 16  # of the addresses of one host: a name is no list of places to knock at
# Small, so that what a host cuts into the smallest pieces is taken apart in turns with other work.
_READ_BYTES = 8 * 1024


class PublicBackend(httpcore2.AsyncNetworkBackend):
    """Connects to public addresses only. EgressError for all else, before any packet is sent."""

    def __init__(
        self,
        *,
        resolver: NameResolver,
        denied: Sequence[Network],
        dial: httpcore2.AsyncNetworkBackend,
        max_wire_bytes: int,
    ) -> None:
        self._resolver = resolver
        self._denied = tuple(denied)
        self._dial = dial
        self._max_wire_bytes = max_wire_bytes

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to the first address that answers, when every address is public."""
        for address in (await self.public_addresses(host))[:_MAX_TRIES]:
            try:
                stream = await self._dial.connect_tcp(
                    address.compressed,
                    port,
                    timeout=_CONNECT_SECONDS if timeout is None else timeout,
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
            return MeteredStream(stream, self._max_wire_bytes)
        raise refused(Fault.UNREACHABLE)

    async def connect_unix_socket(
        self,
        path: str,  # noqa: ARG002 - as below
        timeout: float | None = None,  # noqa: ARG002, ASYNC109 - the library's signature
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,  # noqa: ARG002 - as above
    ) -> httpcore2.AsyncNetworkStream:
        """Never: a path is no public address."""
        raise refused(Fault.PRIVATE)

    async def sleep(self, seconds: float) -> None:
        """Of the library, between retries; there are none here."""
        await self._dial.sleep(seconds)

    async def public_addresses(self, host: str) -> Sequence[Address]:
        """All addresses of the host. EgressError: one that is not public spoils them all."""
        literal = address_of(host)
        found = await self._resolver.addresses(host) if literal is None else (literal,)
        if not found:
            raise refused(Fault.UNKNOWN)
        if not all(is_public(address, self._denied) for address in found):
            raise refused(Fault.PRIVATE)
        return tuple(found)


class LocalBackend(httpcore2.AsyncNetworkBackend):
    """Connects to addresses of this machine and to nothing else; a name is no address.

    For development only: who reaches this pool has been told so by a policy with local ports.
    """

    def __init__(self, *, dial: httpcore2.AsyncNetworkBackend, max_wire_bytes: int) -> None:
        self._dial = dial
        self._max_wire_bytes = max_wire_bytes

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to an address of this machine. EgressError for all else."""
        address = address_of(host)
        if address is None or not address.is_loopback:
            raise refused(Fault.PRIVATE)
        try:
            stream = await self._dial.connect_tcp(
                address.compressed, port, timeout, local_address, socket_options
            )
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
            raise refused(Fault.UNREACHABLE) from None
        return MeteredStream(stream, self._max_wire_bytes)

    async def sleep(self, seconds: float) -> None:
        """Of the library, between retries; there are none here."""
        await self._dial.sleep(seconds)


class MeteredStream(httpcore2.AsyncNetworkStream):
    """A connection that ends with an EgressError once it has given so many bytes.

    What counts are the bytes as they come, so that heads, trailers, chunk extensions and interim
    answers without end are bounded as a body is.
    """

    def __init__(self, stream: httpcore2.AsyncNetworkStream, max_bytes: int) -> None:
        self._stream = stream
        self._left = max_bytes

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - the library's signature
        """As the stream below, until the limit."""
        data = await self._stream.read(min(max_bytes, _READ_BYTES), timeout)
        self._left -= len(data)
        if self._left < 0:
            raise refused(Fault.TOO_MUCH)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the library's signature
        """As the stream below."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """As the stream below."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's signature
    ) -> httpcore2.AsyncNetworkStream:
        """As the stream below, with what is read inside counted from the beginning."""
        inner = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        return MeteredStream(inner, self._left)

    def get_extra_info(self, info: str) -> object:
        """As the stream below."""
        return self._stream.get_extra_info(info)
