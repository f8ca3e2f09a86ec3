"""Start, list, read, cancel and verify runs: parse, call one use case, shape the answer."""

import asyncio
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from app.api.answers_again import receipt_again, refusal_of
from app.api.auth import CallerDep, require
from app.api.dependencies import ApiServices, ServicesDep, services_of
from app.api.direct_route import direct
from app.api.entity_tags import is_known, run_tag
from app.api.entry_views import EntryPage, entry_of
from app.api.idempotency_header import IDEMPOTENCY_KEY, Done, claim_of, once, replayed
from app.api.problems import problem_of, problems
from app.api.receipt_views import receipt_view
from app.api.run_list_filter import WantedRuns
from app.api.run_requests import RunCreate
from app.api.run_views import (
    RunPage,
    RunView,
    StartedRunView,
    VerificationView,
    broken_verification,
    ended_view,
    received_view,
    remains_verification,
    started_view,
    summary_of,
    valid_verification,
    view_of,
)
from app.api.submissions import submission_of
from app.domain.errors import (
    InvalidSubmissionError,
    KeyTakenError,
    LedgerBrokenError,
    NotFoundError,
)
from app.domain.idempotency import KeyClaim, Outcome
from app.domain.run import (
    TERMINAL,
    Caller,
    RunFilter,
    RunId,
    Scope,
    parse_run_id,
    public_run_id,
)
from app.runs.notifier import RunEnd
from app.runs.service import StartedRun

router = APIRouter(tags=["runs"])

MAX_WAIT_SECONDS = 30
LOOK_SECONDS = 0.5
# RFC 7240 §2: preferences are told apart by commas outside of quotes; a name is in any case, its
# value a token or quoted, parameters are ignored, and of two of one name the first counts.
_PREFERENCE = re.compile(r"""(?:[^,"]|"(?:[^"\\]|\\.)*")+""", re.ASCII)
_WAIT = re.compile(
    r"""[ \t]*wait[ \t]*=[ \t]*("?)(\d{1,4})\1[ \t]*(?:;.*)?""", re.ASCII | re.IGNORECASE
)
_MOST_PREFER_CHARACTERS = 256
# Described here and read by hand: as a parameter it costs more than the admission by the gate.
_PREFER = {
    "name": "prefer",
    "in": "header",
    "required": False,
    "description": "`wait=N`, at most 30 seconds",
    "schema": {
        "anyOf": [{"type": "string"}, {"type": "null"}],
        "title": "Prefer",
        "description": "`wait=N`, at most 30 seconds",
    },
}
_IF_NONE_MATCH = {
    "name": "if-none-match",
    "in": "header",
    "required": False,
    "description": "Entity tags that the caller knows",
    "schema": {"anyOf": [{"type": "string"}, {"type": "null"}], "title": "If-None-Match"},
}
RunIdPath = str
Limit = Annotated[int, Query(ge=1, le=200)]


def found_run_id(text: str) -> RunId:
    """The run id in a path; what cannot be one does not exist. NotFoundError."""
    run_id = parse_run_id(text)
    if run_id is None:
        raise NotFoundError("no such run")
    return run_id


def as_json(view: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A view as a response, serialised once."""
    return Response(
        content=view.model_dump_json(by_alias=True),
        status_code=status,
        media_type="application/json",
        headers=headers,
    )


async def create(request: Request, body: RunCreate, caller: CallerDep) -> Response:
    """Admit a task and start a run. Durable before the answer; 403 is itself a recorded run.

    `receipt` is signed by the process that recorded it: with it a caller can show later, to
    anybody, that this task was accepted, whatever the server then says.
    """
    services = services_of(request.app)
    require(caller, Scope.RUN)
    claim = await claim_of(request, caller, services)
    if claim is None:
        started = await services.runs.start(caller, submission_of(body, caller, services))
    else:
        found = await _begun_once(body, caller, services, claim)
        if isinstance(found, Outcome):
            return replayed(await _again(request, caller, services, found))
        started = found
    run_id = started.run.run_id
    receipt = receipt_view(started.receipt, services.certificate())
    headers = {"Location": f"/v1/runs/{public_run_id(run_id)}", "Retry-After": "1"}
    seconds = _wait_seconds(request.headers.getlist("prefer"))
    if not seconds:
        return as_json(
            started_view(started.run, started.task, started.entries, receipt), 202, headers
        )
    headers["Preference-Applied"] = f"wait={seconds}"
    end = await _ended_within(services, caller, run_id, seconds)
    if end is not None:
        return as_json(ended_view(started.run, started.task, end, receipt), 200, headers)
    dossier = await services.ledger.read_run(caller.tenant_id, run_id, with_output=True)
    view = received_view(view_of(dossier), receipt)
    return as_json(view, 200 if view.status in TERMINAL else 202, headers)


router.add_api_route(
    "/runs",
    create,
    methods=["POST"],
    route_class_override=direct(RunCreate, create),
    status_code=202,
    response_model=StartedRunView,
    responses={
        200: {"model": StartedRunView, "description": "Finished within `Prefer: wait`"},
        **problems(400, 403, 409, 413, 415, 422),
    },
    openapi_extra={"parameters": [_PREFER, IDEMPOTENCY_KEY]},
)


async def _begun_once(
    body: RunCreate, caller: Caller, services: ApiServices, claim: KeyClaim
) -> StartedRun | Outcome:
    """A run that began with this key, now or before."""
    desk, tenant_id = services.idempotency, caller.tenant_id
    async with desk.alone(claim):
        known = await desk.known(tenant_id, claim) if desk.has_seen(claim) else None
        if known is not None:
            return known
        try:
            return await services.runs.start(caller, submission_of(body, caller, services), claim)
        except KeyTakenError:
            known = await desk.known(tenant_id, claim)
            if known is None:
                raise
            return known


async def _again(
    request: Request, caller: Caller, services: ApiServices, first: Outcome
) -> Response:
    """What the first request is answered with now: the run as it is, or that it was refused."""
    if first.run_id is None:
        raise NotFoundError("no such run")
    run_id, seconds = first.run_id, _wait_seconds(request.headers.getlist("prefer"))
    headers = {"Location": f"/v1/runs/{public_run_id(run_id)}", "Retry-After": "1"}
    if seconds and first.status != HTTPStatus.FORBIDDEN:
        headers["Preference-Applied"] = f"wait={seconds}"
        await _ended_within(services, caller, run_id, seconds)
    dossier = await services.ledger.read_run(caller.tenant_id, run_id, with_output=True)
    if first.status == HTTPStatus.FORBIDDEN:
        return problem_of(request, refusal_of(dossier), services.certificate())
    receipt = receipt_view(receipt_again(dossier), services.certificate())
    view = received_view(view_of(dossier), receipt)
    is_over = bool(seconds) and view.status in TERMINAL
    return as_json(view, HTTPStatus.OK if is_over else first.status, headers)


@router.get("/runs", response_model=RunPage, responses=problems(403, 409, 422))
async def list(  # noqa: A001 - the operation is runs_list
    caller: CallerDep,
    services: ServicesDep,
    wanted: WantedRuns,
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """Runs of the key's tenant, newest first, without content.

    `metadata.<key>=<value>` narrows the list to runs whose metadata says that, up to four times:
    text, numbers and words as the query says them, keys of up to 64 and values of up to 256
    characters. A cursor goes with the filters that it came with, and is good for a day at least.

    Unverified summaries: a list reads the rows of runs and not their ledgers. Reading one run, its
    entries, its events or its verification holds its row against its ledger.
    """
    require(caller, Scope.RUN, Scope.AUDIT)
    tenant_id, cursors = caller.tenant_id, services.cursors
    place = _place(wanted)
    before = None
    if cursor is not None:
        before = _position(cursors.open(tenant_id, place, cursor))
    rows = await services.ledger.page(tenant_id, before=before, wanted=wanted, limit=limit + 1)
    shown = rows[:limit]
    more = len(rows) > limit
    page = RunPage(
        data=[summary_of(row) for row in shown],
        has_more=more,
        next_cursor=cursors.seal(tenant_id, place, shown[-1].run_id.bytes) if more else None,
    )
    return as_json(page)


@router.get(
    "/runs/{run_id}",
    response_model=RunView,
    responses={
        304: {"description": "As the entity tag in `If-None-Match` says; verified all the same"},
        **problems(403, 404, 409),
    },
    openapi_extra={"parameters": [_IF_NONE_MATCH]},
)
async def get(
    request: Request, run_id: RunIdPath, caller: CallerDep, services: ServicesDep
) -> Response:
    """A run, from its verified ledger. 409 without content when the ledger is broken.

    `ETag` stands for all that is shown; asked with it in `If-None-Match`, the answer is 304.

    Records under a signed checkpoint are held against the log and its signature; the signatures of
    their writers are looked at again by the run's verification and by exports, not by every read.
    """
    require(caller, Scope.RUN, Scope.AUDIT)
    dossier = await services.ledger.read_run(
        caller.tenant_id, found_run_id(run_id), with_output=Scope.RUN in caller.scopes
    )
    response = as_json(view_of(dossier))
    tag = run_tag(dossier.digest_key, bytes(response.body))
    if is_known(request.headers.get("if-none-match"), tag):
        response = Response(status_code=304)
    response.headers["ETag"] = tag
    return response


@router.post(
    "/runs/{run_id}/cancel",
    status_code=202,
    response_model=RunView,
    responses={
        200: {"model": RunView, "description": "The run is over already"},
        **problems(400, 403, 404, 409, 422),
    },
    openapi_extra={"parameters": [IDEMPOTENCY_KEY]},
)
async def cancel(
    request: Request, run_id: RunIdPath, caller: CallerDep, services: ServicesDep
) -> Response:
    """Ask a run to stop as soon as possible. Recorded; repeating it changes nothing."""
    require(caller, Scope.RUN, Scope.OPERATE)
    found = found_run_id(run_id)

    async def as_it_is(first: Outcome) -> Response:
        dossier = await services.ledger.read_run(
            caller.tenant_id, found, with_output=Scope.RUN in caller.scopes
        )
        return as_json(view_of(dossier), first.status)

    async def do() -> Done:
        row = await services.ledger.row(caller.tenant_id, found)
        asked = await services.runs.cancel(caller, found, row.status)
        outcome = Outcome(status=202 if asked else 200, run_id=found)
        return await as_it_is(outcome), outcome

    return await once(request, caller, services, do, as_it_is)


@router.get(
    "/runs/{run_id}/entries", response_model=EntryPage, responses=problems(403, 404, 409, 422)
)
async def list_entries(
    run_id: RunIdPath,
    caller: CallerDep,
    services: ServicesDep,
    after_seq: Annotated[int, Query(ge=-1, le=2**53)] = -1,
    limit: Limit = 50,
) -> Response:
    """Ledger entries in chain order: the polling twin of the event stream.

    Their texts are scrubbed, the output too; the output in full is not among them, nor looked at.
    """
    require(caller, Scope.RUN, Scope.AUDIT)
    dossier = await services.ledger.read_run(caller.tenant_id, found_run_id(run_id))
    records = dossier.chain.records[after_seq + 1 : after_seq + 1 + limit]
    more = after_seq + 1 + limit < len(dossier.chain.records)
    page = EntryPage(
        data=[entry_of(record) for record in records],
        has_more=more,
        next_cursor=str(records[-1].seq) if more and records else None,
    )
    return as_json(page)


@router.get(
    "/runs/{run_id}/verification", response_model=VerificationView, responses=problems(403, 404)
)
async def verify(run_id: RunIdPath, caller: CallerDep, services: ServicesDep) -> Response:
    """Verify the run's chain now: the verdict, the first break, and what it cannot show."""
    require(caller, Scope.RUN, Scope.AUDIT)
    found = found_run_id(run_id)
    try:
        dossier = await services.ledger.read_run(
            caller.tenant_id, found, with_output=True, anew=True
        )
    except LedgerBrokenError as error:
        return as_json(broken_verification(found, error.found))
    except NotFoundError:
        return as_json(await _remains(services, caller, found))
    return as_json(valid_verification(dossier))


async def _remains(services: ApiServices, caller: Caller, run_id: RunId) -> VerificationView:
    """What is left of a deleted run. NotFoundError when it never was."""
    try:
        return remains_verification(await services.ledger.remains(caller.tenant_id, run_id))
    except LedgerBrokenError as error:
        return broken_verification(run_id, error.found)


def _place(wanted: RunFilter) -> bytes:
    """What a cursor of the list of runs is for: the list, and all that narrows it."""
    narrowed = (wanted.status, wanted.agent, wanted.created_after, wanted.created_before)
    told = ("" if item is None else str(item) for item in narrowed)
    return "\0".join(("runs", *told, *(label.hex() for label in wanted.labels))).encode()


def _position(position: bytes | None) -> RunId:
    if position is None:
        raise InvalidSubmissionError("/query/cursor", "not a cursor of this list and its filters")
    return RunId(UUID(bytes=position))


def _wait_seconds(prefer: Sequence[str]) -> int:
    if not prefer:
        return 0
    for preference in _PREFERENCE.findall(",".join(prefer)[:_MOST_PREFER_CHARACTERS]):
        found = _WAIT.fullmatch(preference)
        if found is not None:
            return min(int(found.group(2)), MAX_WAIT_SECONDS)
    return 0


async def _ended_within(
    services: ApiServices, caller: Caller, run_id: RunId, seconds: int
) -> RunEnd | None:
    """Return when the run is over, or when the time is; holds nothing while it waits.

    How it ended if this process drove it: then nothing has to be read. Another process rings no
    bell here, so the run's row is looked at now and then.
    """
    loop = asyncio.get_running_loop()
    until, look_at = loop.time() + seconds, loop.time() + LOOK_SECONDS
    while (now := loop.time()) < until:
        end = await services.bell.wait(run_id, max(0.0, min(until, look_at) - now))
        if end is not None:
            return end
        if loop.time() >= look_at:
            look_at += LOOK_SECONDS
            if (await services.ledger.row(caller.tenant_id, run_id)).status in TERMINAL:
                return None
    return None
