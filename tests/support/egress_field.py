"""A small internet on loopback: names, a public side, an inside, and a wire between them.

Addresses are dialled through a map: the three that `stub_dns` calls public lead to the public
listener, on ports 80, 443 and 8080 alone; every other address and port leads to the inside one.
What counts as reached is what these listeners accepted, whatever a guard says of it.
"""

import asyncio
import gzip
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

import httpcore2

from app.egress.egress_client import EgressParts
from tests.support.stub_dns import OTHER, PUBLIC, SIX, StubDns, StubResolver

ALLOWED = "allowed.example"
CANARY = b"canary-of-the-inside-4e1f"
FLOOD_BYTES = 3 << 20
_PUBLIC_PLACES = frozenset(
    (str(address), port) for address in (PUBLIC, OTHER, SIX) for port in (80, 443, 8080)
)
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"

_ANSWERS = {
    "loop": b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /loop\r\n\r\n",
    "garbage": b"\x00\x01\x02 no HTTP at all\r\n\r\n",
    "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: raw\r\n\r\nraw",
    "picture": b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 4\r\n\r\n\x89PNG",
}


@dataclass(kw_only=True)
class Listener:
    """A loopback port, who was accepted there, and the heads of what they asked."""

    port: int = 0
    accepted: list[int] = field(default_factory=list)  # the ports of those who came
    heads: list[bytes] = field(default_factory=list)
    held: set[int] = field(default_factory=set)  # who is still being served
    sent: int = 0  # bytes of bodies
    seen: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def noted(self, port: int) -> None:
        """Write down that somebody was accepted."""
        async with self.seen:
            self.accepted.append(port)
            self.seen.notify_all()

    async def settle(self) -> None:
        """Return when all who connected before are written down: accepts come in their order."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        own = writer.get_extra_info("sockname")[1]
        async with self.seen:
            await self.seen.wait_for(lambda: own in self.accepted)
            self.accepted.remove(own)
        writer.close()
        await writer.wait_closed()

    def forget(self) -> None:
        """Begin anew."""
        self.accepted.clear()
        self.heads.clear()
        self.sent = 0


class _Counted(httpcore2.AsyncNetworkStream):
    def __init__(self, stream: httpcore2.AsyncNetworkStream, dial: "MappedDial") -> None:
        self._stream, self._dial = stream, dial

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - the library's signature
        data = await self._stream.read(max_bytes, timeout)
        self._dial.taken += len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the library's signature
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's signature
    ) -> httpcore2.AsyncNetworkStream:
        return await self._stream.start_tls(ssl_context, server_hostname, timeout)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


class MappedDial(httpcore2.AsyncNetworkBackend):
    """Dials loopback for every address, through the map. A name is never dialled."""

    def __init__(self, public: Listener, inside: Listener, secure: Listener) -> None:
        self._real = httpcore2.AnyIOBackend()
        self._public, self._inside, self._secure = public, inside, secure
        self.dialled: list[tuple[str, int]] = []
        self.taken = 0  # bytes that a client took off the wire

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        place = (str(ip_address(host)), port)
        self.dialled.append(place)
        outside = self._secure if port == 443 else self._public
        listener = outside if place in _PUBLIC_PLACES else self._inside
        stream = await self._real.connect_tcp(
            "127.0.0.1", listener.port, timeout, local_address, socket_options
        )
        return _Counted(stream, self)

    async def sleep(self, seconds: float) -> None:
        await self._real.sleep(seconds)


@dataclass(frozen=True, kw_only=True)
class Field:
    """All of it, running."""

    dns: StubDns
    resolver: StubResolver
    public: Listener
    secure: Listener
    inside: Listener
    dial: MappedDial
    trusted: ssl.SSLContext | None

    @property
    def parts(self) -> EgressParts:
        """What an egress client is given to live here."""
        return EgressParts(resolver=self.resolver, dial=self.dial, tls=self.trusted)

    async def settle(self) -> None:
        """All accepts and all queries so far are written down."""
        await self.inside.settle()
        await self.public.settle()
        await self.resolver._asked(b"\x06settle\x07invalid", 1)
        self.dns.asked[:] = [name for name in self.dns.asked if name != "settle.invalid"]

    def forget(self) -> None:
        """Begin anew."""
        self.dns.forget()
        self.dial.dialled.clear()
        self.dial.taken = 0
        for listener in (self.public, self.secure, self.inside):
            listener.forget()


@asynccontextmanager
async def egress_field(
    server_tls: ssl.SSLContext | None = None, trusted: ssl.SSLContext | None = None
) -> AsyncIterator[Field]:
    """The field until the block ends. Without TLS contexts nothing is served at port 443."""
    public, secure, inside = Listener(), Listener(), Listener()
    dns = StubDns()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: dns, local_addr=("127.0.0.1", 0)
    )
    servers = [
        await _serve(public, _answer_outside, None),
        await _serve(secure, _answer_outside, server_tls),
        await _serve(inside, _answer_inside, None),
    ]
    try:
        yield Field(
            dns=dns,
            resolver=StubResolver(transport.get_extra_info("sockname")[1]),
            public=public,
            secure=secure,
            inside=inside,
            dial=MappedDial(public, inside, secure),
            trusted=trusted or ssl.create_default_context(),
        )
    finally:
        transport.close()
        for server in servers:
            server.close()
            await server.wait_closed()


@contextmanager
def field_beside(server_tls: ssl.SSLContext, trusted: ssl.SSLContext) -> Iterator[Field]:
    """The field on an event loop of its own in another thread, for servers that have theirs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    scene = egress_field(server_tls, trusted)
    try:
        yield asyncio.run_coroutine_threadsafe(scene.__aenter__(), loop).result(30)
        asyncio.run_coroutine_threadsafe(scene.__aexit__(None, None, None), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(120)
        loop.close()


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_Answer = Callable[[Listener, str, _Streams], Awaitable[None]]


async def _serve(listener: Listener, answer: _Answer, tls: ssl.SSLContext | None) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("peername")[1]
        listener.held.add(port)
        await listener.noted(port)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            listener.heads.append(head)
            path = head.split(b" ", 2)[1].decode("latin-1")
            await answer(listener, path, (reader, writer))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            listener.held.discard(port)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    listener.port = server.sockets[0].getsockname()[1]
    return server


async def _answer_inside(_: Listener, __: str, streams: _Streams) -> None:
    streams[1].write(_OK + b"Content-Length: %d\r\n\r\n" % len(CANARY) + CANARY)


async def _answer_outside(listener: Listener, path: str, streams: _Streams) -> None:
    writer = streams[1]
    what, _, rest = path.lstrip("/").partition("?")
    match what:
        case "to" | "to301" | "to303" | "to307" | "to308":
            status = what[2:] or "302"
            location = bytes.fromhex(rest)
            writer.write(
                f"HTTP/1.1 {status} Moved\r\nContent-Length: 0\r\nLocation: ".encode()
                + location
                + b"\r\n\r\n"
            )
        case "chain":
            left = int(rest)
            leads = f"/chain?{left - 1}" if left > 1 else "http://127.0.0.1/"
            writer.write(
                f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {leads}\r\n\r\n".encode()
            )
        case "flood" | "chunks" | "heads" | "hundreds" | "trailers" | "extensions":
            await _flood(listener, what, writer)
        case "gzip" | "deflate" | "br" | "zstd" | "stacked" | "unasked":
            _bomb(what, writer)
        case "drip" | "silent" | "slowhead":
            await _slow(what, *streams)
        case "stammer":
            said = listener.heads[-1].split(b"Authorization: Bearer ")[1].split(b"\r\n")[0]
            writer.write(_OK + b"\r\n" + said * (FLOOD_BYTES // len(said)))
        case "echo":
            body = listener.heads[-1]
            writer.write(_OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        case _:
            writer.write(_ANSWERS.get(what, _OK + b"Content-Length: 5\r\n\r\nhello"))


async def _flood(listener: Listener, what: str, writer: asyncio.StreamWriter) -> None:
    """Sends megabytes in the form that is asked for, until nobody listens."""
    beginnings = {
        "flood": _OK + b"\r\n",
        "heads": b"HTTP/1.1 200 OK\r\n",
        "hundreds": b"",
        "trailers": _OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    }
    pieces = {
        "flood": b"x" * 65536,
        "chunks": b"8000\r\n" + b"x" * 32768 + b"\r\n",
        "heads": b"X-More: " + b"x" * 4000 + b"\r\n",
        "hundreds": b"HTTP/1.1 100 Continue\r\nX-More: " + b"x" * 4000 + b"\r\n\r\n",
        "trailers": b"X-More: " + b"x" * 4000 + b"\r\n",
        "extensions": b"1;" + b"x" * 40_000 + b"\r\nx\r\n",
    }
    writer.write(beginnings.get(what, _OK + b"Transfer-Encoding: chunked\r\n\r\n"))
    piece = pieces[what]
    while listener.sent < FLOOD_BYTES:
        writer.write(piece)
        await writer.drain()
        listener.sent += len(piece)


def _bomb(what: str, writer: asyncio.StreamWriter) -> None:
    bomb = gzip.compress(b"\0" * (8 << 20), mtime=0)
    coding = {"stacked": "gzip, gzip", "unasked": "x-gzip"}.get(what, what)
    if what == "stacked":
        bomb = gzip.compress(bomb, mtime=0)
    head = f"Content-Encoding: {coding}\r\nContent-Length: {len(bomb)}\r\n\r\n"
    writer.write(_OK + head.encode() + bomb)


async def _slow(what: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte now and then, or none, until the other side hangs up."""
    if what == "drip":
        writer.write(_OK + b"Content-Length: 100000\r\n\r\n")
    while not reader.at_eof() and reader.exception() is None:
        if what != "silent":
            writer.write(b"x" if what == "drip" else b"H")
            await writer.drain()
        await asyncio.sleep(0.02)
