"""Webhook endpoints and deliveries as their tenant sees them, and what may be asked of them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.entry_views import Moment, View
from app.domain.run import public_run_id
from app.domain.webhook import (
    Delivery,
    DeliveryState,
    DisabledReason,
    Endpoint,
    WebhookEvent,
    public_delivery_id,
    public_endpoint_id,
)

Url = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2048,
        description="https, with a public host; redirects are not followed",
    ),
]
Events = Annotated[list[WebhookEvent], Field(min_length=1, max_length=len(WebhookEvent))]


class WebhookEndpointCreate(BaseModel):
    """Where to tell what."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "url": "https://www.example.com/meshflow",
                "events": ["run.succeeded", "run.failed", "log.checkpoint"],
                "enabled": True,
            }
        },
    )

    url: Url
    events: Events
    enabled: bool = True


class WebhookEndpointChange(BaseModel):
    """What is to be other than it is; what is not named stays."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"events": ["run.succeeded"], "enabled": True}},
    )

    url: Url | None = None
    events: Events | None = None
    enabled: bool | None = None


class WebhookEndpointView(View):
    """An endpoint, without its secrets. `old_secret_until`: two of them sign until then."""

    id: str
    url: str
    events: list[WebhookEvent]
    enabled: bool
    disabled_reason: DisabledReason | None
    old_secret_until: Moment | None
    created_at: Moment
    updated_at: Moment


class WebhookEndpointSecretView(WebhookEndpointView):
    """An endpoint and its new secret, which is shown once.

    `secret` is null where an idempotency key is answered again: rotate it for another one.
    """

    secret: str | None


class WebhookEndpointList(View):
    """Every endpoint of the tenant, oldest first."""

    data: list[WebhookEndpointView]
    has_more: Literal[False]
    next_cursor: None


class WebhookDeliveryView(View):
    """An event for an endpoint and what became of it. Of the last answer the status is kept."""

    id: str
    type: str
    run_id: str | None
    state: DeliveryState
    attempts: int
    created_at: Moment
    attempted_at: Moment | None
    next_attempt_at: Moment | None
    ended_at: Moment | None
    response_status: int | None
    error: str | None


class WebhookDeliveryPage(View):
    """Deliveries, the newest first."""

    data: list[WebhookDeliveryView]
    has_more: bool
    next_cursor: str | None


def endpoint_view(endpoint: Endpoint) -> WebhookEndpointView:
    """An endpoint as shown."""
    return WebhookEndpointView.model_validate(_shown(endpoint))


def secret_view(endpoint: Endpoint, secret: str | None) -> WebhookEndpointSecretView:
    """An endpoint with the secret that was just made."""
    return WebhookEndpointSecretView.model_validate({**_shown(endpoint), "secret": secret})


def _shown(endpoint: Endpoint) -> dict[str, object]:
    row, secrets = endpoint.row, endpoint.content.secrets
    return {
        "id": public_endpoint_id(row.endpoint_id),
        "url": endpoint.content.url,
        "events": [*row.events],
        "enabled": row.enabled,
        "disabled_reason": row.reason,
        "old_secret_until": max((s.until for s in secrets if s.until is not None), default=None),
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def delivery_view(delivery: Delivery) -> WebhookDeliveryView:
    """A delivery as shown."""
    is_open = delivery.state is DeliveryState.PENDING
    return WebhookDeliveryView(
        id=public_delivery_id(delivery.delivery_id),
        type=delivery.type,
        run_id=None if delivery.run_id is None else public_run_id(delivery.run_id),
        state=delivery.state,
        attempts=delivery.attempts,
        created_at=delivery.created_at,
        attempted_at=delivery.attempted_at,
        next_attempt_at=delivery.due_at if is_open else None,
        ended_at=delivery.ended_at,
        response_status=delivery.status,
        error=delivery.error,
    )
