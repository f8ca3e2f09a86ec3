"""The connections to providers on real sockets: in one piece, not past their end, by a proxy."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import httpcore2
import httpx2
import pytest

from app.providers.provider import ModelFailure
from app.providers.wire.model_http import model_client, status_failure, transport_failure
from app.providers.wire.provider_sockets import ProviderStream

pytestmark = pytest.mark.anyio

_LONG = 2 << 20
_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@asynccontextmanager
async def serving(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """The address of a server; it has let go of every connection when this ends."""
    served: set[asyncio.Task[None]] = set()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.add(task)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await serve(reader, writer)
            await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*served)


class _Counted(httpcore2.AsyncNetworkStream):
    """A connection that notes what it is given to send."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream, sent: list[bytes]) -> None:
        self._stream = stream
        self._sent = sent

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - the library's signature
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as above
        self._sent.append(buffer)
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


async def test_the_head_and_the_body_of_a_request_leave_in_one_piece() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(10)
        writer.write(b"ok")

    sent: list[bytes] = []
    async with serving(serve) as url:
        dialled = await httpcore2.AnyIOBackend().connect_tcp("127.0.0.1", int(url.split(":")[2]))
        stream = ProviderStream(_Counted(dialled, sent))
        for piece in (b"head ", b"", b"body!"):
            await stream.write(piece)
        assert await stream.read(2) == b"ok"
        await stream.aclose()
    assert sent == [b"head body!"]


async def test_a_long_body_arrives_whole() -> None:
    body = bytes(range(256)) * (_LONG // 256)
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        got.append(await reader.readexactly(len(body)))
        writer.write(_OK)

    async with serving(serve) as url, model_client(url) as client:
        assert (await client.post("/", content=body)).status_code == 200
    assert got == [body]


async def test_who_hangs_up_in_the_middle_of_a_request_is_heard_or_breaks_the_stream() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    async def body() -> AsyncIterator[bytes]:
        for _ in range(32):
            yield bytes(_LONG // 32)

    async with serving(serve) as url, model_client(url) as client:
        try:  # what is not read when it hangs up takes the answer along, or not
            found = status_failure((await client.post("/", content=body())).status_code)
        except httpx2.HTTPError as error:
            found = transport_failure(error)
    assert found in {ModelFailure.INVALID_REQUEST, ModelFailure.STREAM_BROKEN}


async def test_a_connection_whose_end_came_while_it_was_idle_is_not_asked_again() -> None:
    ended: asyncio.Queue[None] = asyncio.Queue()
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(_OK)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        ended.put_nowait(None)

    async with serving(serve) as url, model_client(url) as client:
        for _ in range(20):
            assert (await client.get("/")).text == "ok"
            await ended.get()
    assert count == 20


async def test_an_open_connection_is_asked_again() -> None:
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(_OK)

    async with serving(serve) as url, model_client(url) as client:
        for _ in range(5):
            assert (await client.get("/")).text == "ok"
    assert count == 1


async def test_a_proxy_of_the_environment_is_the_way_to_the_provider(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(_OK)

    async with serving(serve) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        async with model_client("http://provider.invalid") as client:
            assert (await client.get("/v1")).text == "ok"
    assert asked[0].startswith(b"GET http://provider.invalid/v1 HTTP/1.1")
