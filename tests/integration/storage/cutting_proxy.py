"""A Unix socket in front of Postgres that loses the answer to one append, as a network can."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class CuttingProxy:
    """Forwards bytes both ways; hangs up on the client once it has passed `marker` on."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self.port = self._parts.port or 5432
        self.marker: bytes | None = None
        self.cuts = 0

    async def _server(self) -> Streams:
        directory = parse_qs(self._parts.query).get("host")
        if directory is None:
            return await asyncio.open_connection(self._parts.hostname, self.port)
        return await asyncio.open_unix_connection(f"{directory[0]}/.s.PGSQL.{self.port}")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection. The server's side of a cut one stays open until the proxy ends."""
        server_reader, server_writer = await self._server()
        back = asyncio.create_task(_pump(server_reader, writer))
        try:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(1 << 20):
                    if self.marker is not None and self.marker in data:
                        self.marker = None
                        self.cuts += 1
                        back.cancel()
                        server_writer.write(data)
                        await server_writer.drain()
                        writer.transport.abort()
                        await asyncio.Event().wait()
                    server_writer.write(data)
                    await server_writer.drain()
        finally:
            back.cancel()
            server_writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 20):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


@asynccontextmanager
async def proxied(url: str, directory: Path) -> AsyncIterator[tuple[CuttingProxy, str]]:
    """The proxy, and the URL that goes through it."""
    proxy = CuttingProxy(url)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(proxy.serve(reader, writer)))

    server = await asyncio.start_unix_server(accept, path=f"{directory}/.s.PGSQL.{proxy.port}")
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    through = parts._replace(netloc=f"{login}@", query=f"host={quote(str(directory))}")
    try:
        yield proxy, urlunsplit(through)
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
