"""What outsiders need to check the ledger themselves: proofs, checkpoints, keys and exports."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from starlette.responses import PlainTextResponse

from app.api.auth import CallerDep, require
from app.api.dependencies import ServicesDep
from app.api.ledger_views import (
    ConsistencyProofView,
    InclusionProofView,
    KeyList,
    consistency_view,
    inclusion_view,
    key_list,
)
from app.api.problems import problems
from app.api.run_routes import RunIdPath, as_json, found_run_id
from app.domain.run import Scope, public_run_id

router = APIRouter(tags=["ledger"])

TAR = "application/x-tar"
_LARGEST = 2**53
Number = Annotated[int, Query(ge=0, le=_LARGEST)]
_TEXT = {"content": {"text/plain": {"schema": {"type": "string"}}}}


class TarResponse(Response):
    """An export bundle."""

    media_type = TAR


@router.get(
    "/runs/{run_id}/proof",
    response_class=PlainTextResponse,
    responses={
        200: {"description": "A C2SP tlog-proof; its entry is the record's leaf data", **_TEXT},
        **problems(403, 404, 409, 422),
    },
)
async def proof(
    run_id: RunIdPath, caller: CallerDep, services: ServicesDep, seq: Number
) -> Response:
    """That a record stands in the tenant's log. 409 `not-sequenced` until a checkpoint has it."""
    require(caller, Scope.RUN, Scope.AUDIT)
    text = await services.proofs.record_proof(caller.tenant_id, found_run_id(run_id), seq)
    return PlainTextResponse(text)


@router.get(
    "/runs/{run_id}/bundle",
    response_class=TarResponse,
    responses={
        200: {
            "description": "A bundle for `meshflow verify-bundle`: the run, its proofs and keys",
            "content": {TAR: {"schema": {"type": "string", "format": "binary"}}},
        },
        **problems(403, 404, 409, 422),
    },
)
async def bundle(
    run_id: RunIdPath,
    caller: CallerDep,
    services: ServicesDep,
    fields: Literal["all", "none"] = "all",
) -> Response:
    """Export a run so that a stranger can verify it offline; what does not verify is not exported.

    409 `not-sequenced` until a checkpoint covers each erasure of the run, which explains its gaps.
    `fields=none` leaves the contents out: then the bundle proves when and in which order, not what.
    Of a deleted run the bundle has what remains: that these records were, and were lawfully erased.
    """
    require(caller, Scope.AUDIT)
    found = found_run_id(run_id)
    data = await services.exports.bundle(caller.tenant_id, found, with_fields=fields == "all")
    name = f'attachment; filename="{public_run_id(found)}.tar"'
    return TarResponse(data, headers={"Content-Disposition": name})


@router.get(
    "/ledger/checkpoint",
    response_class=PlainTextResponse,
    responses={
        200: {"description": "A C2SP tlog-checkpoint", **_TEXT},
        **problems(403, 409),
    },
)
async def checkpoint(caller: CallerDep, services: ServicesDep) -> Response:
    """The newest signed checkpoint of the tenant's log."""
    require(caller, Scope.AUDIT)
    return PlainTextResponse(await services.proofs.checkpoint(caller.tenant_id))


@router.get(
    "/ledger/proofs/inclusion",
    response_model=InclusionProofView,
    responses=problems(403, 409, 422),
)
async def prove_inclusion(
    caller: CallerDep, services: ServicesDep, index: Number, size: Number
) -> Response:
    """The RFC 6962 path of a leaf in the tenant's log as it was at a size."""
    require(caller, Scope.AUDIT)
    found = await services.proofs.inclusion(caller.tenant_id, index, size)
    return as_json(inclusion_view(found))


@router.get(
    "/ledger/proofs/consistency",
    response_model=ConsistencyProofView,
    responses=problems(403, 409, 422),
)
async def prove_consistency(
    caller: CallerDep,
    services: ServicesDep,
    old_size: Annotated[int, Query(alias="from", ge=0, le=_LARGEST)],
    new_size: Annotated[int, Query(alias="to", ge=0, le=_LARGEST)],
) -> Response:
    """That the tenant's log at one size is the beginning of the same log at a larger one."""
    require(caller, Scope.AUDIT)
    found = await services.proofs.consistency(caller.tenant_id, old_size, new_size)
    return as_json(consistency_view(found))


@router.get("/ledger/keys", response_model=KeyList, responses=problems(403, 409))
async def list_keys(caller: CallerDep, services: ServicesDep) -> Response:
    """The deployment's public keys and at which indexes of the tenant's log each counts."""
    require(caller, Scope.AUDIT)
    return as_json(key_list(await services.keys.of_log(caller.tenant_id)))


@router.get(
    "/ledger/policy",
    response_class=PlainTextResponse,
    responses={
        200: {"description": "A C2SP tlog-policy with MeshFlow's own lines", **_TEXT},
        **problems(403),
    },
)
async def policy(caller: CallerDep, services: ServicesDep) -> Response:
    """A policy for `meshflow verify-bundle`; to be compared with keys from another source."""
    require(caller, Scope.AUDIT)
    return PlainTextResponse(await services.keys.policy())
