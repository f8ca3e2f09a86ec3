"""Lets a server leave: readiness turns false at once, and event streams end in a whole event.

Without it an open stream keeps a process alive until it is killed. From the moment it is unready a
connection is closed with its answer, so that none is cut while a request is on its way.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import by_status, problem_response
from app.api.stream_place import PLACE, StreamPlace
from app.telemetry import meters

_EVENT_STREAM = b"text/event-stream"


class StreamDrain:
    """Wraps the application. Other requests pass untouched and are waited for."""

    def __init__(self, app: ASGIApp, claim_no_more: Callable[[], None] | None = None) -> None:
        self._app = app
        self._claim_no_more = claim_no_more
        self._unready = False
        self._leaving = asyncio.Event()

    def turn_unready(self) -> None:
        """From now on /readyz answers 503, so that load balancers look elsewhere."""
        self._unready = True
        meters.DRAINING.set(1)

    def end_streams(self) -> None:
        """Every event stream, open or still to come, ends with the event `reconnect`.

        Runs that nobody drives are left to other processes from here on.
        """
        self.turn_unready()
        if self._claim_no_more is not None:
            self._claim_no_more()
        self._leaving.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._unready:
            send = _hanging_up(send)
        if self._unready and scope["path"] == "/readyz":
            kind = by_status(HTTPStatus.SERVICE_UNAVAILABLE.value)
            await problem_response(kind, "this process is leaving", "")(scope, receive, send)
        elif scope["path"].endswith("/events"):
            scope[PLACE] = place = StreamPlace()
            await _OneStream(receive, send, self._leaving, place).handle(self._app, scope)
        else:
            await self._app(scope, receive, send)


def _hanging_up(send: Send) -> Send:
    async def tell(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), (b"connection", b"close")]
            message = {**message, "headers": headers}
        await send(message)

    return tell


def _last_word(place: StreamPlace) -> bytes:
    """The event that tells a reader where to go on, at another process."""
    told = "" if place.last_seq < 0 else f"id: {place.last_seq}\n"
    return f'{told}event: reconnect\ndata: {{"after_seq":{place.last_seq}}}\n\n'.encode()


class _OneStream:
    """One response that may be an event stream, and may be asked to end."""

    def __init__(
        self, receive: Receive, send: Send, leaving: asyncio.Event, place: StreamPlace
    ) -> None:
        self._receive = receive
        self._send = send
        self._leaving = leaving
        self._place = place
        self._open = False

    async def handle(self, app: ASGIApp, scope: Scope) -> None:
        await app(scope, self._listen, self._tell)
        if self._open:
            await self._send({"type": "http.response.body", "body": _last_word(self._place)})

    async def _tell(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = dict(message.get("headers", ()))
            self._open = headers.get(b"content-type", b"").startswith(_EVENT_STREAM)
        elif not message.get("more_body", False):
            self._open = False
        await self._send(message)

    async def _listen(self) -> Message:
        """What the client does; once the server leaves, an open stream hears a disconnect."""
        heard = asyncio.ensure_future(self._receive())
        leaving = asyncio.ensure_future(self._leaving.wait())
        try:
            await asyncio.wait({heard, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if heard.done() or not self._open:
                message = await heard
                if message["type"] == "http.disconnect":
                    self._open = False  # there is nobody to say the last word to
                return message
            return {"type": "http.disconnect"}
        finally:
            heard.cancel()
            leaving.cancel()
