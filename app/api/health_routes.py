"""Liveness, readiness and version: the only open routes, and free of secrets."""

from collections.abc import Awaitable, Callable
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

import app
from app.api.problems import by_status, problem_response, problems, request_id_of
from app.domain.sandbox_mode import SandboxMode

router = APIRouter(tags=["system"])
OPEN: dict[str, list[str]] = {"security": []}

Readiness = Callable[[], Awaitable[str | None]]


class HealthView(BaseModel):
    """The process answers. `sandbox` says how programs of tools are confined."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["ok"]
    sandbox: Literal["strict", "off-unsafe"]


class VersionView(BaseModel):
    """Which MeshFlow this is."""

    model_config = ConfigDict(extra="forbid")

    version: str
    ledger_format: Literal["ledger/v1"]


def _well(request: Request) -> HealthView:
    mode: SandboxMode = request.app.state.sandbox
    return HealthView(status="ok", sandbox=mode.value)


@router.get("/healthz", openapi_extra=OPEN)
async def health(request: Request) -> HealthView:
    """The event loop answers; touches nothing else."""
    return _well(request)


def _unready() -> dict[int | str, dict[str, object]]:
    return {503: problems()[503]}


@router.get("/readyz", response_model=HealthView, openapi_extra=OPEN, responses=_unready())
async def ready(request: Request) -> Response:
    """The database answers and is at the schema revision that this code knows."""
    readiness: Readiness = request.app.state.readiness
    reason = await readiness()
    if reason is None:
        body = _well(request).model_dump_json()
        return Response(content=body, media_type="application/json")
    return problem_response(by_status(503), reason, request_id_of(request))


@router.get("/version", openapi_extra=OPEN)
async def version() -> VersionView:
    """The version of this server and of its ledger format."""
    return VersionView(version=app.__version__, ledger_format="ledger/v1")
