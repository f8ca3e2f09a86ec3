"""A receiver of webhooks on loopback that keeps what it was sent and answers as its path says.

`/ok`, `/status/503`, `/later/120` (503 with Retry-After), `/moved` (307 to the inside), `/unread`
(200, and a body that never comes), and those that never end well: `/silent`, `/drip` (a head a byte
at a time), `/heads` (10 MB of them).
"""

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus

from tests.support.egress_field import Field, egress_field
from tests.support.egress_tls import field_tls

_FLOOD_BYTES = 10 << 20
_INSIDE = b"http://127.0.0.1/"


@dataclass(frozen=True, kw_only=True)
class Received:
    """One request as it came."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(kw_only=True)
class Receiver:
    """What came, and how paths are answered that the test has its own mind about."""

    port: int = 0
    received: list[Received] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)  # by path, before what the path says
    held: int = 0  # who is being kept waiting
    most_held: int = 0
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def has(
        self, count: int, path: str | None = None, *, again: bool = False
    ) -> list[Received]:
        """What came there, once it is so many; what came twice counts once, unless `again`."""
        async with asyncio.timeout(60), self.news:
            await self.news.wait_for(lambda: len(self.at(path, again=again)) >= count)
        return self.at(path, again=again)

    def at(self, path: str | None, *, again: bool = False) -> list[Received]:
        """What came to a path so far, or to any."""
        found = [one for one in self.received if path is None or one.path == path]
        # The first of each id: an attempt may be repeated on a machine that is very busy.
        first = {one.headers["webhook-id"]: one for one in reversed(found)}
        return found if again else [one for one in found if one is first[one.headers["webhook-id"]]]


@asynccontextmanager
async def webhook_receiver(tls: ssl.SSLContext) -> AsyncIterator[Receiver]:
    """The receiver until the block ends."""
    receiver = Receiver()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await _answer(receiver, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


async def _answer(
    receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.split(": ", 1) for line in head[1:] if line)
    headers = {name.lower(): value for name, value in pairs}
    path = head[0].split(" ")[1]
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    async with receiver.news:
        receiver.received.append(Received(path=path, headers=headers, body=body))
        receiver.news.notify_all()
    what = path.partition("?")[0]
    if path in receiver.statuses:
        writer.write(_plain(receiver.statuses[path]))
    elif what.startswith("/status/"):
        writer.write(_plain(int(what.split("/")[2])))
    elif what.startswith("/later/"):
        writer.write(_plain(503, f"Retry-After: {what.split('/')[2]}\r\n".encode()))
    elif what.startswith("/moved"):
        writer.write(_plain(307, b"Location: " + _INSIDE + b"\r\n"))
    elif what.startswith("/unread"):  # a body that is never sent, and would not be understood
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Encoding: gzip\r\n\r\n")
        await _kept_waiting(receiver, what, reader, writer)
    elif what.startswith(("/silent", "/drip", "/heads")):
        await _kept_waiting(receiver, what, reader, writer)
    else:
        writer.write(_plain(200))
    await writer.drain()


async def _kept_waiting(
    receiver: Receiver, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    receiver.held += 1
    receiver.most_held = max(receiver.most_held, receiver.held)
    try:
        if path.startswith("/heads"):
            writer.write(b"HTTP/1.1 200 OK\r\n")
            for _ in range(_FLOOD_BYTES // 4096):
                writer.write(b"X-More: " + b"x" * 4086 + b"\r\n")
                await writer.drain()
        while not reader.at_eof() and reader.exception() is None:
            if path.startswith("/drip"):
                writer.write(b"H")
                await writer.drain()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await reader.read(1)
    finally:
        receiver.held -= 1


def _plain(status: int, more: bytes = b"") -> bytes:
    phrase = HTTPStatus(status).phrase
    head = f"HTTP/1.1 {status} {phrase}\r\nContent-Length: 0\r\n".encode()
    return head + more + b"\r\n"


@dataclass(frozen=True, kw_only=True)
class HookField:
    """The small internet and a receiver in it, on a loop of their own."""

    net: Field
    receiver: Receiver
    loop: asyncio.AbstractEventLoop

    def received(
        self, count: int, path: str | None = None, *, again: bool = False
    ) -> list[Received]:
        """What came there, once it is so many; what came twice counts once, unless `again`."""
        waiting = self.receiver.has(count, path, again=again)
        return asyncio.run_coroutine_threadsafe(waiting, self.loop).result(90)

    def settle(self) -> None:
        """All accepts and queries so far are written down."""
        asyncio.run_coroutine_threadsafe(self.net.settle(), self.loop).result(60)


@asynccontextmanager
async def _hook_field() -> AsyncIterator[HookField]:
    server_tls, trusted = field_tls()
    async with egress_field(server_tls, trusted) as net, webhook_receiver(server_tls) as receiver:
        net.secure.port = receiver.port
        yield HookField(net=net, receiver=receiver, loop=asyncio.get_running_loop())


@contextmanager
def hook_field_beside() -> Iterator[HookField]:
    """For servers that have a loop of their own, as `field_beside`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    made = _hook_field()
    try:
        yield asyncio.run_coroutine_threadsafe(made.__aenter__(), loop).result(30)
        asyncio.run_coroutine_threadsafe(made.__aexit__(None, None, None), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
