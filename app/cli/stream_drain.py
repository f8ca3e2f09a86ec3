"""Lets a server leave: readiness turns false at once, and event streams end in a whole event.

Without it an open stream keeps a process alive until it is killed.
"""

import asyncio
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import by_status, problem_response

_LAST_WORD = b"event: reconnect\ndata: {}\n\n"
_EVENT_STREAM = b"text/event-stream"


class StreamDrain:
    """Wraps the application. Other requests pass untouched and are waited for."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._unready = False
        self._leaving = asyncio.Event()

    def turn_unready(self) -> None:
        """From now on /readyz answers 503, so that load balancers look elsewhere."""
        self._unready = True

    def end_streams(self) -> None:
        """Every event stream, open or still to come, ends with the event `reconnect`."""
        self._unready = True
        self._leaving.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif self._unready and scope["path"] == "/readyz":
            kind = by_status(HTTPStatus.SERVICE_UNAVAILABLE.value)
            await problem_response(kind, "this process is leaving", "")(scope, receive, send)
        elif scope["path"].endswith("/events"):
            await _OneStream(receive, send, self._leaving).handle(self._app, scope)
        else:
            await self._app(scope, receive, send)


class _OneStream:
    """One response that may be an event stream, and may be asked to end."""

    def __init__(self, receive: Receive, send: Send, leaving: asyncio.Event) -> None:
        self._receive = receive
        self._send = send
        self._leaving = leaving
        self._open = False

    async def handle(self, app: ASGIApp, scope: Scope) -> None:
        await app(scope, self._listen, self._tell)
        if self._open:
            await self._send({"type": "http.response.body", "body": _LAST_WORD})

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
