"""Liveness, readiness and version: the only open routes, and free of secrets."""

from collections.abc import Awaitable, Callable
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

import app
from app.api.problems import by_status, problem_response, problems, request_id_of

router = APIRouter(tags=["system"])
OPEN: dict[str, list[str]] = {"security": []}

Readiness = Callable[[], Awaitable[str | None]]


class HealthView(BaseModel):
    """The process answers."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["ok"]


class VersionView(BaseModel):
    """Which MeshFlow this is."""

    model_config = ConfigDict(extra="forbid")

    version: str
    ledger_format: Literal["ledger/v1"]


@router.get("/healthz", openapi_extra=OPEN)
async def health() -> HealthView:
    """The event loop answers; touches nothing else."""
    return HealthView(status="ok")


def _unready() -> dict[int | str, dict[str, object]]:
    return {503: problems()[503]}


@router.get("/readyz", response_model=HealthView, openapi_extra=OPEN, responses=_unready())
async def ready(request: Request) -> Response:
    """The database answers and is at the schema revision that this code knows."""
    readiness: Readiness = request.app.state.readiness
    reason = await readiness()
    if reason is None:
        view = HealthView(status="ok")
        return Response(content=view.model_dump_json(), media_type="application/json")
    return problem_response(by_status(503), reason, request_id_of(request))


@router.get("/version", openapi_extra=OPEN)
async def version() -> VersionView:
    """The version of this server and of its ledger format."""
    return VersionView(version=app.__version__, ledger_format="ledger/v1")
