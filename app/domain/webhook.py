"""The words of webhooks: endpoints that want to be told, events, and deliveries of them."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType
from uuid import UUID

from app.domain.run import RunId, TenantId

EndpointId = NewType("EndpointId", UUID)
DeliveryId = NewType("DeliveryId", UUID)

_ENDPOINT = re.compile(r"whe_[0-9a-f]{32}", re.ASCII)
_DELIVERY = re.compile(r"whd_[0-9a-f]{32}", re.ASCII)


class WebhookEvent(StrEnum):
    """What an endpoint may ask to be told: each state of a run, approvals, checkpoints."""

    RUN_QUEUED = "run.queued"
    RUN_RUNNING = "run.running"
    RUN_AWAITING_APPROVAL = "run.awaiting_approval"
    RUN_CANCELLING = "run.cancelling"
    RUN_SUCCEEDED = "run.succeeded"
    RUN_FAILED = "run.failed"
    RUN_BLOCKED = "run.blocked"
    RUN_CANCELLED = "run.cancelled"
    RUN_EXPIRED = "run.expired"
    RUN_INTERRUPTED = "run.interrupted"
    APPROVAL_REQUESTED = "approval.requested"
    APPROVAL_DECIDED = "approval.decided"
    LOG_CHECKPOINT = "log.checkpoint"


TEST_EVENT = "webhook.test"


class DeliveryState(StrEnum):
    """`dead`: given up after a day, or refused with 410."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


class DisabledReason(StrEnum):
    """Why an endpoint is told nothing any more, when it was not its tenant's wish."""

    GONE = "gone"  # it answered 410


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedEndpoint:
    """An endpoint as stored: where it is and its secrets are sealed."""

    tenant_id: TenantId
    endpoint_id: EndpointId
    events: tuple[WebhookEvent, ...]
    enabled: bool
    reason: DisabledReason | None
    version: int
    kek_id: str
    sealed: bytes = field(repr=False)
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSecret:
    """A secret that deliveries are signed with. `until` None: for good."""

    key: bytes = field(repr=False)
    until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointContent:
    """What is sealed of an endpoint. The newest secret comes first."""

    url: str = field(repr=False)
    secrets: tuple[LiveSecret, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An endpoint as its tenant sees it."""

    row: SealedEndpoint
    content: EndpointContent


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event for one endpoint, and what became of it. `status` is that of the last answer."""

    delivery_id: DeliveryId
    endpoint_id: EndpointId
    run_id: RunId | None
    type: str
    state: DeliveryState
    attempts: int
    created_at: datetime
    attempted_at: datetime | None
    due_at: datetime
    ended_at: datetime | None
    status: int | None
    error: str | None


def public_endpoint_id(endpoint_id: EndpointId) -> str:
    """`whe_` and 32 lower-case hex digits."""
    return f"whe_{endpoint_id.hex}"


def parse_endpoint_id(text: str) -> EndpointId | None:
    """The id behind a public one, or None when it is not in the one accepted form."""
    return EndpointId(UUID(hex=text[4:])) if _ENDPOINT.fullmatch(text) else None


def public_delivery_id(delivery_id: DeliveryId) -> str:
    """`whd_` and 32 lower-case hex digits: the `webhook-id` too, the same at every attempt."""
    return f"whd_{delivery_id.hex}"


def parse_delivery_id(text: str) -> DeliveryId | None:
    """The id behind a public one, or None when it is not in the one accepted form."""
    return DeliveryId(UUID(hex=text[4:])) if _DELIVERY.fullmatch(text) else None
