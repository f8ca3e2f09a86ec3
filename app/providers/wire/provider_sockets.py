"""The connections to providers: the HTTP library's own, asked and written to with less ado.

Before and after every request the library asks each idle connection whether its end came, and it
writes the head and the body of a request one after the other. Here the question is one call of the
kernel, and what is written leaves when an answer is first waited for.

It imports the HTTP client, so only sessions import it, late.
"""

import select
import ssl
from collections.abc import Iterable
from contextlib import suppress

import httpcore2
import httpx2

_MOST_UNSENT_BYTES = 64 * 1024


class ProviderTransport(httpx2.AsyncHTTPTransport):
    """The library's transport over `ProviderStream`s. Environment and certificates as it has them.

    A client that is given a transport takes no proxy from the environment.
    """

    def __init__(self, limits: httpx2.Limits) -> None:
        trusted = httpx2.create_ssl_context()
        super().__init__(verify=trusted, limits=limits)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=trusted,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=ProviderBackend(httpcore2.AnyIOBackend()),
        )


class ProviderBackend(httpcore2.AsyncNetworkBackend):
    """Connects as the backend below does."""

    def __init__(self, dial: httpcore2.AsyncNetworkBackend) -> None:
        self._dial = dial

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection. httpcore2's ConnectError or ConnectTimeout."""
        stream = await self._dial.connect_tcp(host, port, timeout, local_address, socket_options)
        return ProviderStream(stream)

    async def sleep(self, seconds: float) -> None:
        """Of the library, between retries; there are none here."""
        await self._dial.sleep(seconds)


class ProviderStream(httpcore2.AsyncNetworkStream):
    """One connection. What is written is sent by the read after it, or when it is much."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self._socket = stream.get_extra_info("socket")
        self._unsent = bytearray()
        self._probe: select.poll | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - the library's signature
        """What comes, after all that was written is on its way."""
        if self._unsent:
            # Who refuses a request may answer and hang up in the middle of it: the answer counts.
            with suppress(httpcore2.WriteError):
                await self._send(timeout)
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the library's signature
        """Keep it for the next read; a long body leaves piece by piece."""
        self._unsent += buffer
        if len(self._unsent) > _MOST_UNSENT_BYTES:
            await self._send(timeout)

    async def aclose(self) -> None:
        """As the stream below. What no answer was waited for is not sent."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's signature
    ) -> httpcore2.AsyncNetworkStream:
        """As the stream below."""
        inner = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        return ProviderStream(inner)

    def get_extra_info(self, info: str) -> object:
        """As the stream below."""
        return self._is_readable() if info == "is_readable" else self._stream.get_extra_info(info)

    def _is_readable(self) -> bool:
        """Whether bytes or the end came, of which an idle connection should have neither."""
        number = self._socket.fileno()
        if number < 0:
            return True
        if self._probe is None:
            self._probe = select.poll()
            self._probe.register(number, select.POLLIN)
        return bool(self._probe.poll(0))

    async def _send(self, timeout: float | None) -> None:  # noqa: ASYNC109 - as above
        unsent, self._unsent = bytes(self._unsent), bytearray()
        await self._stream.write(unsent, timeout)
