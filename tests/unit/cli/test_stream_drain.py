"""Leaving, seen from one request: streams end in a whole event, everything else is finished."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Scope

from app.api.stream_place import PLACE
from app.cli.stream_drain import StreamDrain


async def endless_stream(request: Request) -> StreamingResponse:
    async def events() -> AsyncIterator[bytes]:
        yield b"id: 1\n\n"
        request.scope[PLACE].last_seq = 1
        await asyncio.Event().wait()

    return StreamingResponse(events(), media_type="text/event-stream")


async def silent_stream(_: Request) -> StreamingResponse:
    async def events() -> AsyncIterator[bytes]:
        yield b": still here\n\n"
        await asyncio.Event().wait()

    return StreamingResponse(events(), media_type="text/event-stream")


async def one_text(_: Request) -> PlainTextResponse:
    return PlainTextResponse("here")


def drained() -> StreamDrain:
    routes = [
        Route("/v1/runs/1/events", endless_stream),
        Route("/v1/runs/2/events", silent_stream),
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
    assert caller.body == b'id: 1\n\nid: 1\nevent: reconnect\ndata: {"after_seq":1}\n\n'
    assert not caller.sent[-1].get("more_body", False)


@pytest.mark.anyio
async def test_a_stream_that_gave_nothing_says_so() -> None:
    app, caller = drained(), Caller("/v1/runs/2/events")
    asked = asyncio.ensure_future(caller.ask(app))
    await caller.heard.wait()
    app.end_streams()
    assert await asked == 200
    assert caller.body == b': still here\n\nevent: reconnect\ndata: {"after_seq":-1}\n\n'


@pytest.mark.anyio
async def test_runs_of_others_are_claimed_until_the_streams_end() -> None:
    told: list[str] = []
    app = StreamDrain(Starlette(), lambda: told.append("claims no more"))
    app.turn_unready()
    assert told == []
    app.end_streams()
    assert told == ["claims no more"]


@pytest.mark.anyio
async def test_a_connection_is_given_up_with_its_answer_once_the_server_is_unready() -> None:
    app, before, after = drained(), Caller("/healthz"), Caller("/healthz")
    await before.ask(app)
    app.turn_unready()
    await after.ask(app)
    closing = (b"connection", b"close")
    assert closing not in before.sent[0]["headers"]
    assert closing in after.sent[0]["headers"]


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
