"""Stop all runs of the key's tenant, or of one of its agents, at once."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.auth import CallerDep, require
from app.api.dependencies import ServicesDep
from app.api.entry_views import View
from app.api.idempotency_header import IDEMPOTENCY_KEY, Done, once
from app.api.problems import problems
from app.api.run_routes import as_json
from app.domain.idempotency import Outcome
from app.domain.run import Scope

router = APIRouter(tags=["stops"])


class StopCreate(BaseModel):
    """Which runs are to stop: those of one agent, or all."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"agent": "assistant"}})

    agent: Annotated[str, Field(pattern=r"^[a-z0-9_.-]{1,64}$")] | None = None


class StopView(View):
    """How many runs were told to stop, and the seq of the stop in the tenant's administration."""

    agent: str | None
    runs: int
    seq: int


@router.post(
    "/stops",
    status_code=202,
    response_model=StopView,
    responses=problems(400, 403, 409, 413, 415, 422),
    openapi_extra={"parameters": [IDEMPOTENCY_KEY]},
)
async def create(
    request: Request, body: StopCreate, caller: CallerDep, services: ServicesDep
) -> Response:
    """Tell every run that is under way to stop. Recorded; each run's ledger says who asked."""
    require(caller, Scope.OPERATE)

    async def do() -> Done:
        stopped = await services.stops.stop(caller, body.agent)
        view = StopView(agent=body.agent, runs=stopped.runs, seq=stopped.seq)
        told = f"{stopped.runs}.{stopped.seq}"
        return as_json(view, 202), Outcome(status=202, told=told)

    async def again(first: Outcome) -> Response:
        runs, _, seq = (first.told or "").partition(".")
        return as_json(StopView(agent=body.agent, runs=int(runs), seq=int(seq)), first.status)

    return await once(request, caller, services, do, again)
