"""The event stream of a run: a tail of its verified ledger, resumable by seq."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from app.api.auth import CallerDep, require, still_holds
from app.api.dependencies import ApiServices, ServicesDep
from app.api.entry_views import entry_of
from app.api.problems import problems
from app.api.run_routes import RunIdPath, found_run_id
from app.api.stream_seats import SeatedStream
from app.audit.run_dossier import Tail
from app.domain.errors import InvalidSubmissionError, MeshFlowError
from app.domain.run import TERMINAL, RunId, Scope, TenantId
from app.ledger.chain import VerifiedRecord

router = APIRouter(tags=["runs"])

HEARTBEAT_SECONDS = 15.0
POLL_SECONDS = 1.0
MAX_STREAM_SECONDS = 15 * 60


@router.get(
    "/runs/{run_id}/events",
    response_class=SeatedStream,
    responses={
        200: {
            "description": "Server-sent events: `id` is the seq, `event` the kind, `data` the"
            " entry. Clients without streaming poll `/entries?after_seq=`.",
            "content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/RunEvent"}}},
        },
        **problems(403, 404, 409, 422, 503),
    },
)
async def stream_events(
    request: Request,
    run_id: RunIdPath,
    caller: CallerDep,
    services: ServicesDep,
    after_seq: Annotated[int, Query(ge=-1, le=2**53)] = -1,
    follow: Annotated[bool, Query(description="false: replay and close")] = True,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Events of a run from its ledger, then live until the run ends or the key is revoked."""
    require(caller, Scope.RUN, Scope.AUDIT)
    found = found_run_id(run_id)
    services.seats.check(caller.tenant_id)
    start = after_seq if last_event_id is None else _last_seq(last_event_id)
    # The first look happens before the answer: 404 and a broken ledger are answers, not streams.
    first = await services.ledger.tail(caller.tenant_id, found, None)
    stream = _Stream(services, caller.tenant_id, found, start=start, follow=follow)
    still_allowed = functools.partial(still_holds, request, caller)
    response = SeatedStream(
        stream.events(first, still_allowed),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )
    return response.seated(services.seats, caller.tenant_id)


def _last_seq(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 16:  # noqa: PLR2004 - 2^53 has 16 digits
        raise InvalidSubmissionError("/header/last-event-id", "not an id of this stream")
    return int(text)


class _Stream:
    """One reader. Holds no connection and no transaction between looks."""

    def __init__(
        self,
        services: ApiServices,
        tenant_id: TenantId,
        run_id: RunId,
        *,
        start: int,
        follow: bool,
    ) -> None:
        self._services = services
        self._tenant_id = tenant_id
        self._run_id = run_id
        self._start = start
        self._follow = follow

    async def events(self, tail: Tail, still_allowed: Callable[[], bool]) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        ends_at, heard_at = loop.time() + MAX_STREAM_SECONDS, loop.time()
        while still_allowed():
            for record in tail.records:
                if record.seq > self._start:
                    yield _event(record)
                    heard_at = loop.time()
            if not self._follow or tail.run.status in TERMINAL or loop.time() > ends_at:
                return
            waiting = asyncio.ensure_future(self._services.bell.wait(self._run_id, POLL_SECONDS))
            await asyncio.sleep(0)  # listen first, then look: a ring between the two is not lost
            try:
                newer = await self._look(tail)
                if not newer.records and newer.run.status not in TERMINAL:
                    await waiting
                    newer = await self._look(tail)
            except MeshFlowError:
                # The reader reconnects with its last id; a stream cannot carry a status any more.
                return
            finally:
                waiting.cancel()
            if loop.time() - heard_at >= HEARTBEAT_SECONDS:
                heard_at = loop.time()
                yield b": still here\n\n"
            tail = newer

    async def _look(self, tail: Tail) -> Tail:
        return await self._services.ledger.tail(self._tenant_id, self._run_id, tail.bookmark)


def _event(record: VerifiedRecord) -> bytes:
    data = entry_of(record).model_dump_json()
    return f"id: {record.seq}\nevent: {record.kind}\ndata: {data}\n\n".encode()
