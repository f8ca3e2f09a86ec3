"""List, read and decide approvals: parse, call one use case, shape the answer.

Threat: Privilege escalation via tool calls
"""

import asyncio
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from app.api.approval_views import (
    ApprovalDecision,
    ApprovalPage,
    ApprovalSummary,
    ApprovalView,
    approval_summary,
    approval_tag,
    approval_view,
)
from app.api.auth import CallerDep, require
from app.api.dependencies import ApiServices, ServicesDep
from app.api.idempotency_header import IDEMPOTENCY_KEY, Done, once
from app.api.problems import problems
from app.api.run_requests import MomentIn
from app.api.run_routes import as_json, found_run_id
from app.domain.approval import (
    ApprovalFilter,
    ApprovalId,
    ApprovalRow,
    ApprovalState,
    parse_approval_id,
)
from app.domain.errors import (
    InvalidSubmissionError,
    LedgerBrokenError,
    NotFoundError,
)
from app.domain.idempotency import Outcome
from app.domain.run import Caller, Scope
from app.runs.approval_desk import ApprovalCard, DecisionWish

router = APIRouter(tags=["approvals"])

MOST_IN_A_LIST = 50  # the ledger of each one's run is read


@router.get("/approvals", response_model=ApprovalPage, responses=problems(403, 422))
async def list(  # noqa: A001 - the operation is approvals_list
    caller: CallerDep,
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=MOST_IN_A_LIST)] = 20,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
    status: ApprovalState | None = None,
    agent: Annotated[str | None, Query(pattern=r"^[a-z0-9_.-]{1,64}$")] = None,
    run_id: Annotated[str | None, Query(pattern=r"^run_[0-9a-f]{32}$")] = None,
    expires_before: MomentIn | None = None,
) -> Response:
    """Approvals of the key's tenant, newest first, their arguments scrubbed.

    `status=pending` is the inbox. A cursor goes with the filters that it came with.
    """
    require(caller, Scope.APPROVE, Scope.AUDIT)
    wanted = ApprovalFilter(
        state=status,
        agent=agent,
        run_id=None if run_id is None else found_run_id(run_id),
        expires_before=expires_before,
    )
    tenant_id, cursors, place = caller.tenant_id, services.cursors, _place(wanted)
    before = None
    if cursor is not None:
        position = cursors.open(tenant_id, place, cursor)
        if position is None:
            raise InvalidSubmissionError("/query/cursor", "not a cursor of this list")
        before = ApprovalId(UUID(bytes=position))
    rows = await services.approvals.page(caller, before=before, wanted=wanted, limit=limit + 1)
    shown, more = rows[:limit], len(rows) > limit
    page = ApprovalPage(
        data=await asyncio.gather(*(_shown(services, caller, row) for row in shown)),
        has_more=more,
        next_cursor=cursors.seal(tenant_id, place, shown[-1].approval_id.bytes) if more else None,
    )
    return as_json(page)


async def _shown(services: ApiServices, caller: Caller, row: ApprovalRow) -> ApprovalSummary:
    """One row with what its run's ledger says; alone where that does not verify or is gone."""
    try:
        card = await services.approvals.card(caller, row.approval_id)
    except (LedgerBrokenError, NotFoundError):
        return approval_summary(row, None)
    return approval_summary(card.row, card)


@router.get(
    "/approvals/{approval_id}",
    response_model=ApprovalView,
    responses=problems(403, 404, 409),
)
async def get(approval_id: str, caller: CallerDep, services: ServicesDep) -> Response:
    """What exactly would be done. With the scope `approve` in clear while it waits, and recorded.

    `digest` is what a decision has to name; `ETag` stands for it and the state.
    """
    require(caller, Scope.APPROVE, Scope.AUDIT)
    found = _approval_id(approval_id)
    reads = services.approvals
    in_clear = Scope.APPROVE in caller.scopes
    card = await (reads.card_in_clear if in_clear else reads.card)(caller, found)
    return _answer(card)


@router.post(
    "/approvals/{approval_id}/decision",
    response_model=ApprovalView,
    responses=problems(400, 403, 404, 409, 412, 413, 415, 422),
    openapi_extra={"parameters": [IDEMPOTENCY_KEY]},
)
async def decide(
    request: Request,
    approval_id: str,
    body: ApprovalDecision,
    caller: CallerDep,
    services: ServicesDep,
) -> Response:
    """Approve or deny, once. The run goes on: an approved action is done exactly once.

    403 for the key that submitted the run; 409 when it was decided, or its time is over; 412 when
    `digest` is not that of the action. All of it is recorded.
    """
    require(caller, Scope.APPROVE)
    found = _approval_id(approval_id)
    wish = DecisionWish(
        granted=body.decision == "approve",
        digest=bytes.fromhex(body.digest),
        comment=body.comment,
    )

    async def do() -> Done:
        card = await services.approvals.decide(caller, found, wish)
        return _answer(card), Outcome(status=200, run_id=card.row.run_id)

    async def again(_: Outcome) -> Response:
        return _answer(await services.approvals.card(caller, found))

    return await once(request, caller, services, do, again)


def _answer(card: ApprovalCard) -> Response:
    headers = {"ETag": approval_tag(card), "Cache-Control": "no-store"}
    return as_json(approval_view(card), headers=headers)


def _approval_id(text: str) -> ApprovalId:
    found = parse_approval_id(text)
    if found is None:
        raise NotFoundError("no such approval")
    return found


def _place(wanted: ApprovalFilter) -> bytes:
    """What a cursor of the list is for: the list, and all that narrows it."""
    narrowed = (wanted.state, wanted.agent, wanted.run_id, wanted.expires_before)
    told = ("approvals", *("" if item is None else str(item) for item in narrowed))
    return "\0".join(told).encode()
