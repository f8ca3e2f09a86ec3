"""A process's one way to Postgres, which can be cut: between two appends, or in one of them.

What happens to the message that is on its way is the test's choice, so a crash in the middle of a
flush comes out the same each time: it is lost, it is carried out and nobody hears of that, or it
lies about in the network and arrives much later.
"""

import asyncio
import shutil
import tempfile
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

PATIENCE_SECONDS = 30
_READY = b"Z\x00\x00\x00\x05"  # ReadyForQuery, but for its last byte
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Fate(StrEnum):
    """What becomes of the message in which the line is cut."""

    LOST = "lost"
    CARRIED_OUT = "carried out"
    LATE = "late"


class Lifeline:
    """Forwards bytes both ways until it is cut; the server never learns that its client is gone."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._port = self._parts.port or 5432
        self._directory = Path(tempfile.mkdtemp(prefix="mf-"))  # a socket's path must be short
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._armed: tuple[bytes, Fate] | None = None
        self._late: tuple[Streams, bytes] | None = None
        self._settled = asyncio.Event()
        self._cut = asyncio.Event()

    @property
    def url(self) -> str:
        """The database through this line."""
        login = self._parts.netloc.rpartition("@")[0]
        query = f"host={quote(str(self._directory))}"
        return urlunsplit(self._parts._replace(netloc=f"{login}@", query=query))

    @property
    def has_late(self) -> bool:
        """Whether a message still lies about."""
        return self._late is not None

    async def open(self) -> None:
        """Listen."""
        path = f"{self._directory}/.s.PGSQL.{self._port}"
        self._server = await asyncio.start_unix_server(self._accept, path=path)

    async def close(self) -> None:
        """Let go of everything."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        shutil.rmtree(self._directory)

    def cut(self) -> None:
        """From now on the process reaches nothing."""
        self._cut.set()
        for writer in self._clients:
            writer.transport.abort()

    def cut_at(self, marker: bytes, fate: Fate) -> None:
        """Cut it in the message that holds these bytes."""
        self._armed = (marker, fate)

    async def settled(self) -> None:
        """Wait until the message in which the line was cut has met its fate."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._settled.wait()

    async def deliver(self) -> None:
        """Let the late message arrive, and wait until the server has done with it."""
        assert self._late is not None
        (reader, writer), data = self._late
        self._late = None
        await _carried_out(reader, writer, data)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut.is_set():
            writer.transport.abort()
            return
        server = await self._connected()
        back = asyncio.create_task(_pump(server[0], writer))
        self._clients.add(writer)
        try:
            with suppress(ConnectionError):
                while data := await reader.read(1 << 20):
                    if self._armed is not None and self._armed[0] in data:
                        await self._end(server, back, data)
                    server[1].write(data)
                    await server[1].drain()
            if self._cut.is_set():
                await asyncio.Event().wait()  # the server's side stays as it is
        finally:
            self._clients.discard(writer)
            back.cancel()
            server[1].transport.abort()

    async def _end(self, server: Streams, back: "asyncio.Task[None]", data: bytes) -> None:
        assert self._armed is not None
        fate, self._armed = self._armed[1], None
        self.cut()
        back.cancel()
        await asyncio.wait([back])
        if fate is Fate.CARRIED_OUT:
            await _carried_out(*server, data)
        elif fate is Fate.LATE:
            self._late = server, data
        self._settled.set()
        await asyncio.Event().wait()

    async def _connected(self) -> Streams:
        directory = parse_qs(self._parts.query).get("host")
        if directory is None:
            return await asyncio.open_connection(self._parts.hostname, self._port)
        return await asyncio.open_unix_connection(f"{directory[0]}/.s.PGSQL.{self._port}")


async def _carried_out(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes
) -> None:
    writer.write(data)
    await writer.drain()
    said = b""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while said[-6:-1] != _READY:
            more = await reader.read(1 << 20)
            assert more, "the server hung up"
            said += more


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 20):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()
