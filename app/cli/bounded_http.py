"""httptools' protocol with the two limits that it lacks: how much head, and for how long.

Nobody has shown a key yet when these hold. h11 bounds the head by itself.

Threat: Unauthorised API access
"""

import asyncio
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# What h11 allows: request line and headers, or trailers, beside what is read at once.
MOST_HEAD_BYTES = 64 * 1024
# From the first byte, or the connection, to the end of the request; the body has at most 1 GiB.
REQUEST_SECONDS = 60.0


class BoundedHttpTools(HttpToolsProtocol):
    """Refuses a head, or trailers, without end; hangs up on a request that does not end in time."""

    request_seconds = REQUEST_SECONDS
    _unread = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer that says nothing is waited for no longer than one that speaks slowly."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what came since the parser last got anywhere; the parser keeps all of that."""
        self._unread += len(data)
        super().data_received(data)
        if self._unread > MOST_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("Invalid HTTP request received.")

    def on_message_begin(self) -> None:
        """A request begins."""
        self._arm()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head was small enough."""
        self._unread = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body; its size is for the application to bound."""
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole. From here on it is the answer that takes time."""
        self._unread = 0
        self._disarm()
        super().on_message_complete()

    def _arm(self) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(self.request_seconds, self._hang_up)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _hang_up(self) -> None:
        self.transport.close()
