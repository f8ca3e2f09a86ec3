"""The ledger's numbers for Prometheus, behind a key: they tell how much is going on."""

from fastapi import APIRouter, Response

from app.api.auth import CallerDep, require
from app.api.dependencies import ServicesDep
from app.api.problems import problems
from app.domain.run import Scope

router = APIRouter(tags=["system"])
_MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_TEXT: dict[int | str, dict[str, object]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Metrics"}
}


@router.get("/metrics", response_class=Response, responses={**_TEXT, **problems(403, 503)})
async def metrics(caller: CallerDep, services: ServicesDep) -> Response:
    """Age of what no witness has seen, age of the sequencer's last word, leaves of the log."""
    require(caller, Scope.AUDIT)
    vitals = await services.vitals()
    found = {
        "meshflow_ledger_unwitnessed_age_seconds": (
            "Age of the oldest operator checkpoint that no quorum of witnesses has cosigned.",
            vitals.unwitnessed_age_seconds,
        ),
        "meshflow_ledger_unsequenced_age_seconds": (
            "Time since the sequencer last moved its watermark.",
            vitals.unsequenced_age_seconds,
        ),
        "meshflow_ledger_size": ("Leaves of the operator log.", vitals.size),
    }
    lines = [
        f"# HELP {name} {text}\n# TYPE {name} gauge\n{name} {_number(value)}\n"
        for name, (text, value) in found.items()
    ]
    return Response(content="".join(lines), media_type=_MEDIA_TYPE)


def _number(value: float) -> str:
    return "+Inf" if value == float("inf") else f"{value:g}" if value % 1 else f"{value:.0f}"
