"""The event stream of a run: a tail of its verified ledger, resumable by seq."""

import asyncio
import functools
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from app.api.auth import CallerDep, require, still_holds
from app.api.dependencies import ApiServices, ServicesDep
from app.api.entry_views import entry_of
from app.api.problems import problems
from app.api.run_routes import RunIdPath, found_run_id
from app.api.stream_place import PLACE, StreamPlace
from app.api.stream_seats import SeatedStream
from app.audit.run_dossier import Tail
from app.domain.errors import InvalidSubmissionError, MeshFlowError
from app.domain.run import TERMINAL, RunId, Scope, TenantId
from app.ledger.chain import VerifiedRecord

router = APIRouter(tags=["runs"])

HEARTBEAT_SECONDS = 15.0
KEY_SECONDS = 3.0  # a key that is in force no more ends an idle stream after so long
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
    place = request.scope.get(PLACE, StreamPlace())
    place.last_seq = start
    stream = _Stream(services, (caller.tenant_id, found), place, follow=follow)
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
    """One reader. Holds no connection and no transaction between looks, and nothing it has told."""

    def __init__(
        self,
        services: ApiServices,
        run: tuple[TenantId, RunId],
        place: StreamPlace,
        *,
        follow: bool,
    ) -> None:
        self._services = services
        self._run = run
        self._place = place
        self._follow = follow
        self._heard_at = self._asked_at = self._ends_at = 0.0

    async def events(self, first: Tail, still_allowed: Callable[[], bool]) -> AsyncIterator[bytes]:
        now = asyncio.get_running_loop().time()
        self._heard_at, self._asked_at, self._ends_at = now, now, now + MAX_STREAM_SECONDS
        start, waiting = self._place.last_seq, deque(first.records)
        bookmark, is_over = first.bookmark, first.run.status in TERMINAL
        del first
        seen = bookmark.head.next_seq - 1
        with self._services.watch.follow(self._run, seen, self._is_due) as follower:
            while still_allowed():
                while waiting:
                    record = waiting.popleft()
                    if record.seq > start:
                        yield _event(record)
                        self._was_given(record)
                if not self._follow or is_over:
                    return
                while not await follower.wait():
                    if not still_allowed() or self._is_at_end():
                        return
                    if self._is_silent():
                        yield b": still here\n\n"
                try:
                    tail = await self._services.ledger.tail(*self._run, bookmark)
                except MeshFlowError:
                    # The reader reconnects with its last id; a stream cannot carry a status.
                    return
                waiting = deque(tail.records)
                bookmark, is_over = tail.bookmark, tail.run.status in TERMINAL
                del tail
                follower.seen = bookmark.head.next_seq - 1

    def _is_due(self, now: float) -> bool:
        """Whether an idle reader has to be looked after: its key, its silence, its longest time."""
        is_due = now - self._asked_at >= KEY_SECONDS
        return is_due or now - self._heard_at >= HEARTBEAT_SECONDS or now > self._ends_at

    def _is_at_end(self) -> bool:
        self._asked_at = asyncio.get_running_loop().time()
        return self._asked_at > self._ends_at

    def _is_silent(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._heard_at < HEARTBEAT_SECONDS:
            return False
        self._heard_at = now
        return True

    def _was_given(self, record: VerifiedRecord) -> None:
        """Only what was sent counts: the reader will be told to go on after it."""
        self._place.last_seq = record.seq
        self._heard_at = asyncio.get_running_loop().time()


def _event(record: VerifiedRecord) -> bytes:
    data = entry_of(record).model_dump_json()
    return f"id: {record.seq}\nevent: {record.kind}\ndata: {data}\n\n".encode()
