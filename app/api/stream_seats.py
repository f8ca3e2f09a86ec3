"""Counts open event streams, so that one tenant's readers leave room for everybody else's.

Threat: Unauthorised API access
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.domain.errors import OverloadedError
from app.domain.run import TenantId
from app.telemetry import meters

RETRY_AFTER_SECONDS = 5


class StreamSeats:
    """So many streams of a tenant at once, so many of all."""

    def __init__(self, *, per_tenant: int, in_all: int) -> None:
        self._per_tenant = per_tenant
        self._in_all = in_all
        self._taken: Counter[TenantId] = Counter()

    def check(self, tenant_id: TenantId) -> None:
        """OverloadedError when there is no seat for one more."""
        if self._taken[tenant_id] >= self._per_tenant or self._taken.total() >= self._in_all:
            raise OverloadedError(RETRY_AFTER_SECONDS)

    @contextmanager
    def taken(self, tenant_id: TenantId) -> Iterator[None]:
        """A seat for as long as this lasts."""
        self._taken[tenant_id] += 1
        meters.STREAMS.inc()
        try:
            yield
        finally:
            meters.STREAMS.dec()
            self._taken[tenant_id] -= 1
            if not self._taken[tenant_id]:
                del self._taken[tenant_id]


class SeatedStream(StreamingResponse):
    """A stream that keeps its seat until the last byte is sent or the reader has gone."""

    def seated(self, seats: StreamSeats, tenant_id: TenantId) -> "SeatedStream":
        """The same answer, with whose seat it takes."""
        self._seats, self._tenant_id = seats, tenant_id
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. The seat is given back however this ends."""
        with self._seats.taken(self._tenant_id):
            await super().__call__(scope, receive, send)
