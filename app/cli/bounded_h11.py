"""h11's protocol with the limit that it lacks: for how long a request may come in.

Where httptools is not installed, this serves. Nobody has shown a key yet when it holds.

Threat: Unauthorised API access
"""

import asyncio
from typing import cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# From the connection, or the first byte after an answer, to the end of the request.
REQUEST_SECONDS = 60.0
_INCOMPLETE = (h11.IDLE, h11.SEND_BODY)


class BoundedH11(H11Protocol):
    """Hangs up on a request that does not end in time."""

    request_seconds = REQUEST_SECONDS
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
        """The time of a request begins with its first byte and is not given anew by the next."""
        super().data_received(data)
        if self.conn.their_state not in _INCOMPLETE:
            self._disarm()
        else:
            self._arm()

    def on_response_complete(self) -> None:
        """The next request may have begun while this one was answered."""
        super().on_response_complete()
        begun, _ = self.conn.trailing_data
        if begun and self.conn.their_state in _INCOMPLETE:
            self._arm()

    def _arm(self) -> None:
        if self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self.request_seconds, self.transport.close)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
