"""Webhook endpoints of the key's tenant: who is told, with which secret, and what became of it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from app.api.auth import CallerDep, require
from app.api.dependencies import ApiServices, ServicesDep
from app.api.entity_tags import is_meant, version_tag
from app.api.idempotency_header import IDEMPOTENCY_KEY, Done, once
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
    delivery_view,
    endpoint_view,
    secret_view,
)
from app.domain.errors import InvalidSubmissionError, NotFoundError, PreconditionRequiredError
from app.domain.idempotency import Outcome
from app.domain.run import Caller, Scope
from app.domain.webhook import (
    Delivery,
    DeliveryId,
    Endpoint,
    EndpointId,
    parse_delivery_id,
    parse_endpoint_id,
    public_delivery_id,
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
_ONCE = {"parameters": [IDEMPOTENCY_KEY]}


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
    responses=problems(400, 403, 404, 409, 413, 415, 422),
    openapi_extra=_ONCE,
)
async def create(
    request: Request, body: WebhookEndpointCreate, caller: CallerDep, services: ServicesDep
) -> Response:
    """Register an endpoint. Its secret is in this answer and in no other; the record has no URL.

    What is committed from now on is told to it, at least once, signed after Standard Webhooks 1.0.
    `/webhooks.json` describes what is sent.
    """
    require(caller, Scope.OPERATE)

    async def do() -> Done:
        made, secret = await services.webhooks.create(
            caller, body.url, body.events, enabled=body.enabled
        )
        told = public_endpoint_id(made.row.endpoint_id)
        return _created(made, secret), Outcome(status=201, told=told)

    async def again(first: Outcome) -> Response:
        found = await services.webhooks.get(caller.tenant_id, _endpoint_id(first.told or ""))
        return _created(found, None)

    return await once(request, caller, services, do, again)


def _created(made: Endpoint, secret: str | None) -> Response:
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
    responses=problems(400, 403, 404, 409, 412, 422),
    openapi_extra=_ONCE,
)
async def rotate_secret(
    request: Request,
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
    overlap, place = timedelta(seconds=overlap_seconds), _endpoint_id(endpoint_id)

    async def do() -> Done:
        found, secret = await services.webhooks.rotate_secret(caller, place, overlap)
        headers = {"ETag": version_tag(found.row.version)}
        return as_json(secret_view(found, secret), headers=headers), Outcome(status=200)

    async def again(_: Outcome) -> Response:
        found = await services.webhooks.get(caller.tenant_id, place)
        headers = {"ETag": version_tag(found.row.version)}
        return as_json(secret_view(found, None), headers=headers)

    return await once(request, caller, services, do, again)


@router.post(
    f"{_PATH}/test",
    status_code=202,
    response_model=WebhookDeliveryView,
    responses=problems(400, 403, 404, 409, 422),
    openapi_extra=_ONCE,
)
async def test(
    request: Request, endpoint_id: str, caller: CallerDep, services: ServicesDep
) -> Response:
    """Send an event of type `webhook.test`, in the way of all others."""
    require(caller, Scope.OPERATE)
    place = _endpoint_id(endpoint_id)

    async def do() -> Done:
        return _told(await services.webhooks.test(caller, place))

    async def again(first: Outcome) -> Response:
        return await _told_again(caller, services, place, first)

    return await once(request, caller, services, do, again)


def _told(delivery: Delivery) -> Done:
    told = public_delivery_id(delivery.delivery_id)
    return as_json(delivery_view(delivery), 202), Outcome(status=202, told=told)


async def _told_again(
    caller: Caller, services: ApiServices, place: EndpointId, first: Outcome
) -> Response:
    delivery_id = _delivery_id(first.told or "")
    found = await services.webhooks.delivery(caller.tenant_id, place, delivery_id)
    return as_json(delivery_view(found), first.status)


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
    tenant_id, endpoint = caller.tenant_id, _endpoint_id(endpoint_id)
    place, before = b"deliveries\0" + endpoint.bytes, None
    if cursor is not None:
        position = services.cursors.open(tenant_id, place, cursor)
        if position is None:
            raise InvalidSubmissionError("/query/cursor", "not a cursor of this list")
        before = DeliveryId(UUID(bytes=position))
    found = await services.webhooks.deliveries(tenant_id, endpoint, before, limit + 1)
    more = len(found) > limit
    last = found[limit - 1].delivery_id.bytes if more else b""
    page = WebhookDeliveryPage(
        data=[delivery_view(item) for item in found[:limit]],
        has_more=more,
        next_cursor=services.cursors.seal(tenant_id, place, last) if more else None,
    )
    return as_json(page)


@router.post(
    f"{_PATH}/deliveries/{{delivery_id}}/redeliver",
    status_code=202,
    response_model=WebhookDeliveryView,
    responses=problems(400, 403, 404, 409, 422),
    openapi_extra=_ONCE,
)
async def redeliver(
    request: Request,
    endpoint_id: str,
    delivery_id: str,
    caller: CallerDep,
    services: ServicesDep,
) -> Response:
    """Tell it once more, under the same `webhook-id`, with a day of attempts."""
    require(caller, Scope.OPERATE)
    place, which = _endpoint_id(endpoint_id), _delivery_id(delivery_id)

    async def do() -> Done:
        return _told(await services.webhooks.redeliver(caller, place, which))

    async def again(first: Outcome) -> Response:
        return await _told_again(caller, services, place, first)

    return await once(request, caller, services, do, again)
