"""What the list of runs is narrowed by, as a query says it: states, agents, times and metadata."""

from typing import Annotated

from fastapi import Depends, Query, Request

from app.api.auth import CallerDep
from app.api.dependencies import ApiServices, ServicesDep
from app.api.run_requests import MomentIn
from app.domain.errors import InvalidSubmissionError
from app.domain.run import RunFilter, RunStatus, TenantId
from app.runs.run_labels import MOST_KEY_CHARACTERS, MOST_VALUE_CHARACTERS

_PREFIX = "metadata."
MOST_LABELS = 4


async def wanted_runs(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    status: RunStatus | None = None,
    agent: Annotated[str | None, Query(pattern=r"^[a-z0-9_.-]{1,64}$")] = None,
    created_after: MomentIn | None = None,
    created_before: MomentIn | None = None,
) -> RunFilter:
    """All that must hold for a run to be listed. InvalidSubmissionError."""
    return RunFilter(
        status=status,
        agent=agent,
        created_after=created_after,
        created_before=created_before,
        labels=_labels(request, caller.tenant_id, services),
    )


def _labels(request: Request, tenant_id: TenantId, services: ApiServices) -> tuple[bytes, ...]:
    """The digests of `metadata.<key>=<value>`, in an order that says nothing."""
    asked = {
        (name.removeprefix(_PREFIX), value)
        for name, value in request.query_params.multi_items()
        if name.startswith(_PREFIX)
    }
    if len(asked) > MOST_LABELS:
        raise InvalidSubmissionError("/query/metadata", f"at most {MOST_LABELS} of these")
    for key, value in asked:
        if not 0 < len(key) <= MOST_KEY_CHARACTERS or len(value) > MOST_VALUE_CHARACTERS:
            raise InvalidSubmissionError("/query/metadata", "no run is found by such a word")
    return tuple(sorted(services.labels.digest(tenant_id, key, value) for key, value in asked))


WantedRuns = Annotated[RunFilter, Depends(wanted_runs)]
