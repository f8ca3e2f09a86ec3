"""Webhook endpoints of the key's tenant: who is told, with which secret, and what became of it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.api.auth import CallerDep, require
from app.api.dependencies import ServicesDep
from app.api.entity_tags import is_meant, version_tag
from app.api.problems import problems
from app.api.run_routes import Limit, as_json
from app.api.webhook_views import (
    WebhookDeliveryPage,
    WebhookDeliveryView,
    WebhookEndpointChange,
    WebhookEndpointCreate,
    WebhookEndpointList,
    WebhookEndpointSecretView,
    WebhookEndpointView,
    delivery_page,
    delivery_view,
    endpoint_view,
    secret_view,
)
from app.domain.errors import InvalidSubmissionError, NotFoundError, PreconditionRequiredError
from app.domain.run import Scope
from app.domain.webhook import (
    DeliveryId,
    EndpointId,
    parse_delivery_id,
    parse_endpoint_id,
    public_endpoint_id,
)
from app.webhooks.endpoint_desk import Wish

router = APIRouter(tags=["webhooks"])
_PATH = "/webhook-endpoints/{endpoint_id}"
_DAY_SECONDS = 86_400
_MOST_OVERLAP_SECONDS = 7 * _DAY_SECONDS
_IF_MATCH = {
    "name": "if-match",
    "in": "header",
    "required": True,
    "description": "The entity tag of the endpoint as it was read",
    "schema": {"type": "string", "title": "If-Match"},
}
_TAGGED = {"parameters": [_IF_MATCH]}


def _endpoint_id(text: str) -> EndpointId:
    found = parse_endpoint_id(text)
    if found is None:
        raise NotFoundError("no such webhook endpoint")
    return found


def _delivery_id(text: str) -> DeliveryId:
    found = parse_delivery_id(text)
    if found is None:
        raise NotFoundError("no such delivery")
    return found


def _meant(request: Request) -> Callable[[int], bool]:
    named = request.headers.get("if-match")
    if named is None:
        raise PreconditionRequiredError
    return lambda version: is_meant(named, version_tag(version))


@router.post(
    "/webhook-endpoints",
    status_code=201,
    response_model=WebhookEndpointSecretView,
    responses=problems(400, 403, 413, 415, 422),
)
async def create(body: WebhookEndpointCreate, caller: CallerDep, services: ServicesDep) -> Response:
    """Register an endpoint. Its secret is in this answer and in no other; the record has no URL.

    What is committed from now on is told to it, at least once, signed after Standard Webhooks 1.0.
    `/webhooks.json` describes what is sent.
    """
    require(caller, Scope.OPERATE)
    made, secret = await services.webhooks.create(
        caller, body.url, body.events, enabled=body.enabled
    )
    place = f"/v1/webhook-endpoints/{public_endpoint_id(made.row.endpoint_id)}"
    headers = {"Location": place, "ETag": version_tag(made.row.version)}
    return as_json(secret_view(made, secret), 201, headers)


@router.get("/webhook-endpoints", response_model=WebhookEndpointList, responses=problems(403))
async def list(caller: CallerDep, services: ServicesDep) -> Response:  # noqa: A001 - the operation is webhooks_list
    """Every endpoint of the tenant."""
    require(caller, Scope.OPERATE)
    found = await services.webhooks.all_of(caller.tenant_id)
    shown = [endpoint_view(endpoint) for endpoint in found]
    return as_json(WebhookEndpointList(data=shown, has_more=False, next_cursor=None))


@router.get(_PATH, response_model=WebhookEndpointView, responses=problems(403, 404))
async def get(endpoint_id: str, caller: CallerDep, services: ServicesDep) -> Response:
    """One endpoint; its `ETag` is what a change has to name."""
    require(caller, Scope.OPERATE)
    found = await services.webhooks.get(caller.tenant_id, _endpoint_id(endpoint_id))
    return as_json(endpoint_view(found), headers={"ETag": version_tag(found.row.version)})


@router.patch(
    _PATH,
    response_model=WebhookEndpointView,
    responses=problems(400, 403, 404, 412, 413, 415, 422, 428),
    openapi_extra=_TAGGED,
)
async def change(
    request: Request,
    endpoint_id: str,
    body: WebhookEndpointChange,
    caller: CallerDep,
    services: ServicesDep,
) -> Response:
    """Change where, what, or whether. 412 when somebody else changed it since it was read."""
    require(caller, Scope.OPERATE)
    wish = Wish(url=body.url, events=body.events, enabled=body.enabled)
    changed = await services.webhooks.change(
        caller, _endpoint_id(endpoint_id), _meant(request), wish
    )
    return as_json(endpoint_view(changed), headers={"ETag": version_tag(changed.row.version)})


@router.delete(
    _PATH, status_code=204, responses=problems(403, 404, 412, 428), openapi_extra=_TAGGED
)
async def remove(
    request: Request, endpoint_id: str, caller: CallerDep, services: ServicesDep
) -> Response:
    """Forget the endpoint, its secrets, and what it was still to be told."""
    require(caller, Scope.OPERATE)
    await services.webhooks.remove(caller, _endpoint_id(endpoint_id), _meant(request))
    return Response(status_code=204)


@router.post(
    f"{_PATH}/rotate-secret",
    response_model=WebhookEndpointSecretView,
    responses=problems(403, 404, 412, 422),
)
async def rotate_secret(
    endpoint_id: str,
    caller: CallerDep,
    services: ServicesDep,
    overlap_seconds: Annotated[
        int,
        Query(ge=0, le=_MOST_OVERLAP_SECONDS, description="how long the old secret signs too"),
    ] = _DAY_SECONDS,
) -> Response:
    """A new secret, shown once. Deliveries bear both signatures until the old one's time is over.

    With `overlap_seconds=0` the old one signs nothing more: for a secret that got out.
    """
    require(caller, Scope.OPERATE)
    overlap = timedelta(seconds=overlap_seconds)
    found, secret = await services.webhooks.rotate_secret(
        caller, _endpoint_id(endpoint_id), overlap
    )
    headers = {"ETag": version_tag(found.row.version)}
    return as_json(secret_view(found, secret), headers=headers)


@router.post(
    f"{_PATH}/test",
    status_code=202,
    response_model=WebhookDeliveryView,
    responses=problems(403, 404, 422),
)
async def test(endpoint_id: str, caller: CallerDep, services: ServicesDep) -> Response:
    """Send an event of type `webhook.test`, in the way of all others."""
    require(caller, Scope.OPERATE)
    made = await services.webhooks.test(caller, _endpoint_id(endpoint_id))
    return as_json(delivery_view(made), 202)


@router.get(
    f"{_PATH}/deliveries", response_model=WebhookDeliveryPage, responses=problems(403, 404, 422)
)
async def list_deliveries(
    endpoint_id: str,
    caller: CallerDep,
    services: ServicesDep,
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """What it was told or is to be told, the newest first; kept for a week after its end."""
    require(caller, Scope.OPERATE)
    before = None if cursor is None else parse_delivery_id(cursor)
    if cursor is not None and before is None:
        raise InvalidSubmissionError("/query/cursor", "not a cursor of this service")
    found = await services.webhooks.deliveries(
        caller.tenant_id, _endpoint_id(endpoint_id), before, limit + 1
    )
    return as_json(delivery_page(found, limit))


@router.post(
    f"{_PATH}/deliveries/{{delivery_id}}/redeliver",
    status_code=202,
    response_model=WebhookDeliveryView,
    responses=problems(403, 404, 422),
)
async def redeliver(
    endpoint_id: str, delivery_id: str, caller: CallerDep, services: ServicesDep
) -> Response:
    """Tell it once more, under the same `webhook-id`, with a day of attempts."""
    require(caller, Scope.OPERATE)
    place = (_endpoint_id(endpoint_id), _delivery_id(delivery_id))
    found = await services.webhooks.redeliver(caller, *place)
    return as_json(delivery_view(found), 202)
