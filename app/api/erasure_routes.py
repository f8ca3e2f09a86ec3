"""Ask for erasures, read receipts, set holds, compare runs. A tenant is not deleted over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.api.auth import CallerDep, require
from app.api.dependencies import ApiServices, ServicesDep
from app.api.erasure_views import (
    ErasureCreate,
    ErasureView,
    HoldCreate,
    HoldView,
    RunDiffView,
    diff_view,
    erasure_view,
)
from app.api.idempotency_header import IDEMPOTENCY_KEY, Done, once
from app.api.problems import problems
from app.api.run_routes import as_json, found_run_id
from app.audit.run_diff import diff_of
from app.domain.erasure import (
    ErasureAction,
    ErasureReceipt,
    parse_erasure_id,
    public_erasure_id,
)
from app.domain.errors import InvalidSubmissionError, NotFoundError
from app.domain.idempotency import Outcome
from app.domain.run import Caller, Scope, public_run_id

router = APIRouter(tags=["erasures"])
RELEASED = "released"


@router.post(
    "/erasures",
    status_code=202,
    response_model=ErasureView,
    responses=problems(400, 403, 404, 409, 413, 415, 422),
    openapi_extra={"parameters": [IDEMPOTENCY_KEY]},
)
async def create(
    request: Request, body: ErasureCreate, caller: CallerDep, services: ServicesDep
) -> Response:
    """Ask that content of a run, or the run, be erased. The request is durable; see the receipt."""
    require(caller, Scope.ERASE)

    async def do() -> Done:
        receipt = await _asked(body, caller, services)
        told = public_erasure_id(receipt.request.erasure_id)
        return _accepted(receipt), Outcome(status=202, told=told)

    async def again(first: Outcome) -> Response:
        erasure_id = parse_erasure_id(first.told or "")
        if erasure_id is None:
            raise NotFoundError("no such erasure")
        return _accepted(await services.erasures.receipt(caller.tenant_id, erasure_id))

    return await once(request, caller, services, do, again)


async def _asked(body: ErasureCreate, caller: Caller, services: ApiServices) -> ErasureReceipt:
    run_id, why = found_run_id(body.run_id), body.legal_basis
    who, ref = caller.actor, body.request_ref
    ledger, tenant = services.ledger, caller.tenant_id
    if ErasureAction(body.action) is ErasureAction.ANONYMIZE_RUN:
        return await ledger.anonymize_run(
            tenant, run_id, legal_basis=why, request_ref=ref, actor=who, fields=body.fields
        )
    if body.fields is not None:
        raise InvalidSubmissionError("/body/fields", "only anonymize_run takes names of fields")
    return await ledger.delete_run(tenant, run_id, legal_basis=why, request_ref=ref, actor=who)


def _accepted(receipt: ErasureReceipt) -> Response:
    place = f"/v1/erasures/{public_erasure_id(receipt.request.erasure_id)}"
    return as_json(erasure_view(receipt), 202, {"Location": place, "Retry-After": "1"})


@router.get("/erasures/{erasure_id}", response_model=ErasureView, responses=problems(403, 404))
async def get(erasure_id: str, caller: CallerDep, services: ServicesDep) -> Response:
    """A receipt: what was done, and until when old copies can still be opened."""
    require(caller, Scope.ERASE, Scope.AUDIT)
    found = parse_erasure_id(erasure_id)
    if found is None:
        raise NotFoundError("no such erasure")
    return as_json(erasure_view(await services.erasures.receipt(caller.tenant_id, found)))


@router.put(
    "/runs/{run_id}/hold",
    response_model=HoldView,
    responses=problems(400, 403, 404, 409, 413, 415, 422),
)
async def hold(run_id: str, body: HoldCreate, caller: CallerDep, services: ServicesDep) -> Response:
    """Forbid that anything of the run is erased. Recorded; repeating it changes nothing."""
    require(caller, Scope.ERASE)
    found = found_run_id(run_id)
    await services.ledger.row(caller.tenant_id, found)
    await services.erasures.set_hold(caller.tenant_id, found, body.reason, caller.actor)
    return as_json(HoldView(run_id=public_run_id(found), held=True))


@router.delete("/runs/{run_id}/hold", response_model=HoldView, responses=problems(403, 404, 409))
async def release(run_id: str, caller: CallerDep, services: ServicesDep) -> Response:
    """Allow again that the run is erased. Recorded; 404 when there is no hold."""
    require(caller, Scope.ERASE)
    found = found_run_id(run_id)
    await services.ledger.row(caller.tenant_id, found)
    await services.erasures.release_hold(caller.tenant_id, found, RELEASED, caller.actor)
    return as_json(HoldView(run_id=public_run_id(found), held=False))


@router.get(
    "/runs/{run_id}/diff", response_model=RunDiffView, responses=problems(403, 404, 409, 422)
)
async def diff(
    run_id: str,
    caller: CallerDep,
    services: ServicesDep,
    other: Annotated[str, Query(max_length=64, description="the run to compare with")],
) -> Response:
    """Two runs of the tenant compared step by step, from verified ledgers, without content."""
    require(caller, Scope.AUDIT)
    one, two = found_run_id(run_id), found_run_id(other)
    first = await services.ledger.replay(caller.tenant_id, one)
    second = await services.ledger.replay(caller.tenant_id, two)
    return as_json(diff_view(one, two, diff_of(first, second)))
