"""Leaving, seen from one request: streams end in a whole event, everything else is finished."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Scope

from app.cli.stream_drain import StreamDrain


async def endless_stream(_: Request) -> StreamingResponse:
    async def events() -> AsyncIterator[bytes]:
        yield b"id: 1\n\n"
        await asyncio.Event().wait()

    return StreamingResponse(events(), media_type="text/event-stream")


async def one_text(_: Request) -> PlainTextResponse:
    return PlainTextResponse("here")


def drained() -> StreamDrain:
    routes = [
        Route("/v1/runs/1/events", endless_stream),
        Route("/v1/short/events", one_text),
        Route("/readyz", one_text),
        Route("/healthz", one_text),
    ]
    return StreamDrain(Starlette(routes=routes))


class Caller:
    """One request, what it was sent, and whether it has gone away."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.sent: list[Message] = []
        self.heard = asyncio.Event()
        self.gone = asyncio.Event()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    async def ask(self, app: StreamDrain) -> int:
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": b"",
            "headers": [],
        }
        async with asyncio.timeout(10):
            await app(scope, self._receive, self._send)
        return int(self.sent[0]["status"])

    async def _receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)
        if message.get("body"):
            self.heard.set()


@pytest.mark.anyio
async def test_an_open_stream_ends_with_reconnect_when_the_server_leaves() -> None:
    app, caller = drained(), Caller("/v1/runs/1/events")
    asked = asyncio.ensure_future(caller.ask(app))
    await caller.heard.wait()
    app.end_streams()
    assert await asked == 200
    assert caller.body == b"id: 1\n\nevent: reconnect\ndata: {}\n\n"
    assert not caller.sent[-1].get("more_body", False)


@pytest.mark.anyio
async def test_a_reader_that_went_away_is_sent_nothing_more() -> None:
    app, caller = drained(), Caller("/v1/runs/1/events")
    asked = asyncio.ensure_future(caller.ask(app))
    await caller.heard.wait()
    caller.gone.set()
    await asked
    assert caller.body == b"id: 1\n\n"


@pytest.mark.anyio
async def test_readiness_turns_false_and_nothing_else_does() -> None:
    app = drained()
    assert await Caller("/readyz").ask(app) == 200
    app.turn_unready()
    assert await Caller("/readyz").ask(app) == 503
    assert await Caller("/healthz").ask(app) == 200
    app.end_streams()
    assert await Caller("/v1/short/events").ask(app) == 200
