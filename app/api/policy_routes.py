"""Policies of the key's tenant: versions, what is in force, and trying one before it is."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.api.auth import CallerDep, require
from app.api.dependencies import ApiServices, ServicesDep
from app.api.entity_tags import is_known, is_meant, version_tag
from app.api.idempotency_header import IDEMPOTENCY_KEY, Done, once
from app.api.policy_views import (
    ActivationCreate,
    ActivationList,
    ActivationView,
    DecisionExplanation,
    ExplanationView,
    PolicyCheckCreate,
    PolicyList,
    PolicyVersionPage,
    PolicyVersionView,
    SimulationCreate,
    SimulationView,
    activation_view,
    decision_explanation,
    explanation_view,
    policy_view,
    simulation_view,
    summary_view,
)
from app.api.problems import problems
from app.api.run_routes import Limit, RunIdPath, as_json, found_run_id
from app.audit.decision_history import Span
from app.bundles.policy_document import PolicyDocument
from app.domain.errors import InvalidSubmissionError, NotFoundError, PreconditionRequiredError
from app.domain.idempotency import Outcome
from app.domain.policy import (
    Activation,
    ActivationId,
    ActivationState,
    PolicyVersion,
    parse_activation_id,
    public_activation_id,
)
from app.domain.run import Caller, Scope, TenantId

router = APIRouter(tags=["policies"])
_PATH = "/policies/{policy_id}"
_LOOK_BACK = timedelta(days=7)
_IF_MATCH = {
    "name": "if-match",
    "in": "header",
    "required": False,
    "description": "The entity tag of the newest version as it was read; needed where there is one",
    "schema": {"type": "string", "title": "If-Match"},
}
_ONCE = {"parameters": [IDEMPOTENCY_KEY]}


def _activation_id(text: str) -> ActivationId:
    found = parse_activation_id(text)
    if found is None:
        raise NotFoundError("no such activation")
    return found


def _meant(request: Request) -> Callable[[int], bool]:
    """What If-Match says of the newest version; 0 is none yet."""
    named = request.headers.get("if-match")

    def is_newest(version: int) -> bool:
        if named is None:
            if version:
                raise PreconditionRequiredError
            return True
        return version > 0 and is_meant(named, version_tag(version))

    return is_newest


@router.get("/policies", response_model=PolicyList, responses=problems(403))
async def list(caller: CallerDep, services: ServicesDep) -> Response:  # noqa: A001 - the operation is policies_list
    """The newest version of each policy."""
    require(caller, Scope.POLICY, Scope.AUDIT)
    found = await services.policies.all_of(caller.tenant_id)
    shown = [summary_view(version) for version in found]
    return as_json(PolicyList(data=shown, has_more=False, next_cursor=None))


@router.get(_PATH, response_model=PolicyVersionView, responses=problems(403, 404))
async def get(
    request: Request, policy_id: str, caller: CallerDep, services: ServicesDep
) -> Response:
    """The newest version of a policy; its `ETag` is what the next one has to name."""
    require(caller, Scope.POLICY, Scope.AUDIT)
    found = await services.policies.newest(caller.tenant_id, policy_id)
    return await _shown(services, caller.tenant_id, found, request.headers.get("if-none-match"))


async def _shown(
    services: ApiServices, tenant_id: TenantId, found: PolicyVersion, known: str | None = None
) -> Response:
    tag = version_tag(found.version)
    # What is in force is part of the answer, and no part of the version that a change means.
    activations = await services.policies.activations(tenant_id, found.policy_id)
    active = (item for item in activations if item.state is ActivationState.ACTIVE)
    in_force = next((item.version for item in active), None)
    if is_known(known, tag) and in_force == found.version:
        return Response(status_code=304, headers={"ETag": tag})
    return as_json(policy_view(found, in_force), headers={"ETag": tag})


@router.put(
    _PATH,
    response_model=PolicyVersionView,
    responses={
        201: {"model": PolicyVersionView},
        **problems(400, 403, 404, 409, 412, 413, 415, 422, 428),
    },
    openapi_extra={"parameters": [_IF_MATCH]},
)
async def put(
    request: Request, policy_id: str, body: PolicyDocument, caller: CallerDep, services: ServicesDep
) -> Response:
    """The next version, once its golden cases hold. 200 when this very version is there already.

    It changes nothing before it is activated. 412 when another version is the newest than the one
    named, 428 when none is named and there is one.
    """
    require(caller, Scope.POLICY)
    desk = services.policies
    made, is_new = await desk.put(caller, policy_id, body, _meant(request))
    response = await _shown(services, caller.tenant_id, made)
    response.status_code = 201 if is_new else 200
    return response


@router.get(
    f"{_PATH}/versions", response_model=PolicyVersionPage, responses=problems(403, 404, 422)
)
async def list_versions(
    policy_id: str,
    caller: CallerDep,
    services: ServicesDep,
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(max_length=128)] = None,
) -> Response:
    """Every version with its author and digest, the newest first."""
    require(caller, Scope.POLICY, Scope.AUDIT)
    tenant_id, place, before = caller.tenant_id, b"policies\0" + policy_id.encode(), None
    if cursor is not None:
        position = services.cursors.open(tenant_id, place, cursor)
        if position is None:
            raise InvalidSubmissionError("/query/cursor", "not a cursor of this list")
        before = int.from_bytes(position, "big")
    found = await services.policies.versions(tenant_id, policy_id, before, limit + 1)
    more = len(found) > limit
    last = found[limit - 1].version.to_bytes(16, "big") if more else b""
    page = PolicyVersionPage(
        data=[summary_view(version) for version in found[:limit]],
        has_more=more,
        next_cursor=services.cursors.seal(tenant_id, place, last) if more else None,
    )
    return as_json(page)


@router.get(
    f"{_PATH}/versions/{{version}}",
    response_model=PolicyVersionView,
    responses=problems(403, 404, 422),
)
async def get_version(
    policy_id: str,
    version: int,
    caller: CallerDep,
    services: ServicesDep,
) -> Response:
    """One version of a policy, which never changes."""
    require(caller, Scope.POLICY, Scope.AUDIT)
    if not 0 < version < 2**53:
        raise NotFoundError("no such policy")
    found = await services.policies.version(caller.tenant_id, policy_id, version)
    return await _shown(services, caller.tenant_id, found)


@router.get(f"{_PATH}/activations", response_model=ActivationList, responses=problems(403, 404))
async def list_activations(policy_id: str, caller: CallerDep, services: ServicesDep) -> Response:
    """What was to be in force, by whose word, and what became of it."""
    require(caller, Scope.POLICY, Scope.AUDIT)
    found = await services.policies.activations(caller.tenant_id, policy_id)
    shown = [activation_view(activation) for activation in found]
    return as_json(ActivationList(data=shown, has_more=False, next_cursor=None))


@router.post(
    f"{_PATH}/activations",
    status_code=201,
    response_model=ActivationView,
    responses=problems(400, 403, 404, 409, 412, 413, 415, 422),
    openapi_extra=_ONCE,
)
async def activate(
    request: Request,
    policy_id: str,
    body: ActivationCreate,
    caller: CallerDep,
    services: ServicesDep,
) -> Response:
    """Bring a version into force for every run that begins a moment later; recorded.

    What lets more pass than what is in force stays `pending` until another key confirms it.
    """
    require(caller, Scope.POLICY)
    desk = services.policies

    async def do() -> Done:
        return _told(await desk.activate(caller, policy_id, body.version), 201)

    async def again(first: Outcome) -> Response:
        activation_id = _activation_id(first.told or "")
        found = await desk.activation(caller.tenant_id, policy_id, activation_id)
        return _told(found, 201)[0]

    return await once(request, caller, services, do, again)


@router.post(
    f"{_PATH}/activations/{{activation_id}}/confirm",
    response_model=ActivationView,
    responses=problems(400, 403, 404, 409, 412, 422),
    openapi_extra=_ONCE,
)
async def confirm(
    request: Request,
    policy_id: str,
    activation_id: str,
    caller: CallerDep,
    services: ServicesDep,
) -> Response:
    """Confirm what another key asked for. 403 `second-person` with the key that asked for it."""
    require(caller, Scope.POLICY)
    desk, which = services.policies, _activation_id(activation_id)

    async def do() -> Done:
        return _told(await desk.confirm(caller, policy_id, which), 200)

    async def again(_: Outcome) -> Response:
        return _told(await desk.activation(caller.tenant_id, policy_id, which), 200)[0]

    return await once(request, caller, services, do, again)


def _told(found: Activation, status: int) -> Done:
    told = public_activation_id(found.activation_id)
    return as_json(activation_view(found), status), Outcome(status=status, told=told)


@router.post(
    "/policies/simulate",
    response_model=SimulationView,
    responses=problems(400, 403, 409, 413, 415, 422),
    openapi_extra=_ONCE,
)
async def simulate(
    request: Request, body: SimulationCreate, caller: CallerDep, services: ServicesDep
) -> Response:
    """Ask a policy what was really asked since then, beside the one in force. Changes nothing.

    Both answer anew, from feature records of verified runs; no recorded verdict is read. The last
    seven days when no time is named, and at most 2000 runs.
    """
    require(caller, Scope.POLICY, Scope.AUDIT)
    until = body.until or datetime.now(UTC)
    since = body.since or until - _LOOK_BACK
    if since > until:
        raise InvalidSubmissionError("/body/since", "later than until")
    span = Span(since=since, until=until, agent=body.filter.agent)

    async def asked() -> Response:
        found = await services.trials.simulate(caller.tenant_id, body.bundle, span)
        return as_json(simulation_view(found))

    return await _asked_once(request, caller, services, asked)


@router.post(
    "/policy-checks",
    response_model=ExplanationView,
    responses=problems(400, 403, 404, 409, 413, 415, 422),
    openapi_extra=_ONCE,
)
async def check(
    request: Request, body: PolicyCheckCreate, caller: CallerDep, services: ServicesDep
) -> Response:
    """What would the gate say to this, by which rule, and because of what? Changes nothing.

    A question is a feature record, as decisions hold it; what is left out of it is as in an empty
    one.
    """
    require(caller, Scope.RUN, Scope.POLICY, Scope.AUDIT)

    async def asked() -> Response:
        found = await services.trials.check(caller.tenant_id, body.features, body.bundle)
        return as_json(explanation_view(found))

    return await _asked_once(request, caller, services, asked)


async def _asked_once(
    request: Request,
    caller: Caller,
    services: ApiServices,
    asked: Callable[[], Awaitable[Response]],
) -> Response:
    """A question changes nothing: with a key that came before it is answered anew."""

    async def do() -> Done:
        return await asked(), Outcome(status=200)

    async def again(_: Outcome) -> Response:
        return await asked()

    return await once(request, caller, services, do, again)


@router.get(
    "/runs/{run_id}/entries/{seq}/explanation",
    response_model=DecisionExplanation,
    responses=problems(403, 404, 409, 422),
)
async def explain(
    run_id: RunIdPath, seq: int, caller: CallerDep, services: ServicesDep
) -> Response:
    """Why a decision was as it was: its rules, the parts they look at, and the whole record.

    404 where no decision stands; where what it was asked was erased, what is recorded of it.
    """
    require(caller, Scope.RUN, Scope.AUDIT)
    if not 0 <= seq < 2**53:
        raise NotFoundError("no decision stands there")
    trials = services.trials
    found = await trials.explain(caller.tenant_id, found_run_id(run_id), seq)
    return as_json(decision_explanation(found))
