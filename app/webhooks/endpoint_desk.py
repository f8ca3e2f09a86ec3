"""Registers, changes and removes a tenant's endpoints, and shows what became of deliveries.

Every change is a record of the tenant's log before it is made, without the URL; an address is
judged when it is named, as at every delivery. A secret is told once, to whoever made it.

Threat: Exfiltration via web/shell tools
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from app.administration.admin_log import AdminLog
from app.domain.errors import (
    EgressError,
    InvalidSubmissionError,
    NotFoundError,
    PreconditionFailedError,
)
from app.domain.run import Caller, TenantId
from app.domain.webhook import (
    Delivery,
    DeliveryId,
    Endpoint,
    EndpointContent,
    EndpointId,
    LiveSecret,
    SealedEndpoint,
    WebhookEvent,
    public_endpoint_id,
)
from app.egress.url_policy import UrlPolicy
from app.storage.webhook_store import WebhookStore, too_many_endpoints
from app.webhooks.endpoint_vault import EndpointVault
from app.webhooks.webhook_signature import SECRET_BYTES, shown_secret

MOST_ENDPOINTS = 50
CHANGED = "webhook.changed"


class AddressCheck(Protocol):
    """Whoever knows whether a request to a URL would be allowed to leave."""

    async def admit(self, url: str, policy: UrlPolicy) -> None:
        """EgressError when it would not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskParts:
    """What the desk is built from."""

    store: WebhookStore
    vault: EndpointVault
    egress: AddressCheck
    policy: UrlPolicy
    admin_log: AdminLog
    nudge: Callable[[], None]
    now: Callable[[], datetime]
    entropy: Callable[[int], bytes]
    new_id: Callable[[], UUID]
    most: int = MOST_ENDPOINTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What of an endpoint is to be other than it is; None leaves it."""

    url: str | None = None
    events: Sequence[WebhookEvent] | None = None
    enabled: bool | None = None


class EndpointDesk:
    """The endpoints of all tenants; a caller reaches those of its own."""

    def __init__(self, parts: DeskParts) -> None:
        self._parts = parts

    async def create(
        self, caller: Caller, url: str, events: Sequence[WebhookEvent], *, enabled: bool
    ) -> tuple[Endpoint, str]:
        """A new endpoint and its secret, which is told never again. InvalidSubmissionError."""
        parts, tenant_id = self._parts, caller.tenant_id
        await self._require_public(url)
        if len(await parts.store.endpoints(tenant_id)) >= parts.most:
            raise too_many_endpoints()  # before it is recorded; the store has the last word
        endpoint_id, key = EndpointId(parts.new_id()), parts.entropy(SECRET_BYTES)
        secrets = (LiveSecret(key=key, until=None),)
        content = EndpointContent(url=url, secrets=secrets)
        now = parts.now()
        made = await self._sealed(
            SealedEndpoint(
                tenant_id=tenant_id,
                endpoint_id=endpoint_id,
                events=_in_order(events),
                enabled=enabled,
                reason=None,
                version=1,
                kek_id="",
                sealed=b"",
                created_at=now,
                updated_at=now,
            ),
            content,
        )
        await self._record(caller, endpoint_id, "create")
        stored = await parts.store.register(made, parts.most)
        return Endpoint(row=stored, content=content), shown_secret(key)

    async def all_of(self, tenant_id: TenantId) -> list[Endpoint]:
        """Every endpoint of a tenant, oldest first."""
        return [self._opened(row) for row in await self._parts.store.endpoints(tenant_id)]

    async def get(self, tenant_id: TenantId, endpoint_id: EndpointId) -> Endpoint:
        """One endpoint. NotFoundError, for another tenant's as well."""
        row = await self._parts.store.endpoint(tenant_id, endpoint_id)
        if row is None:
            raise NotFoundError("no such webhook endpoint")
        return self._opened(row)

    async def change(
        self, caller: Caller, endpoint_id: EndpointId, is_meant: Callable[[int], bool], wish: Wish
    ) -> Endpoint:
        """The endpoint as it is wished. PreconditionFailedError when another version is meant."""
        found = await self.get(caller.tenant_id, endpoint_id)
        _require_meant(found, is_meant)
        content = found.content
        if wish.url is not None and wish.url != content.url:
            await self._require_public(wish.url)
            content = replace(content, url=wish.url)
        row = replace(
            found.row,
            events=found.row.events if wish.events is None else _in_order(wish.events),
            enabled=found.row.enabled if wish.enabled is None else wish.enabled,
        )
        return await self._changed(caller, row, content, "change")

    async def remove(
        self, caller: Caller, endpoint_id: EndpointId, is_meant: Callable[[int], bool]
    ) -> None:
        """Forget an endpoint and what it was still to be told. PreconditionFailedError."""
        found = await self.get(caller.tenant_id, endpoint_id)
        _require_meant(found, is_meant)
        await self._record(caller, endpoint_id, "remove")
        place = (caller.tenant_id, endpoint_id)
        if not await self._parts.store.remove(*place, found.row.version):
            raise PreconditionFailedError

    async def rotate_secret(
        self, caller: Caller, endpoint_id: EndpointId, overlap: timedelta
    ) -> tuple[Endpoint, str]:
        """A new secret. Deliveries are signed with the one before as well while `overlap` lasts."""
        parts, now = self._parts, self._parts.now()
        found = await self.get(caller.tenant_id, endpoint_id)
        key = parts.entropy(SECRET_BYTES)
        before = LiveSecret(key=found.content.secrets[0].key, until=now + overlap)
        kept = (before,) if overlap else ()
        content = replace(found.content, secrets=(LiveSecret(key=key, until=None), *kept))
        changed = await self._changed(caller, found.row, content, "rotate_secret")
        return changed, shown_secret(key)

    async def test(self, caller: Caller, endpoint_id: EndpointId) -> Delivery:
        """Let the endpoint be told of itself. InvalidSubmissionError while it is disabled."""
        await self._require_enabled(caller.tenant_id, endpoint_id)
        made = await self._parts.store.test(caller.tenant_id, endpoint_id)
        if made is None:
            raise NotFoundError("no such webhook endpoint")
        self._parts.nudge()
        return made

    async def deliveries(
        self, tenant_id: TenantId, endpoint_id: EndpointId, before: DeliveryId | None, limit: int
    ) -> list[Delivery]:
        """What the endpoint was told or is to be told, the newest first. NotFoundError."""
        await self.get(tenant_id, endpoint_id)
        return await self._parts.store.deliveries(tenant_id, endpoint_id, before, limit)

    async def delivery(
        self, tenant_id: TenantId, endpoint_id: EndpointId, delivery_id: DeliveryId
    ) -> Delivery:
        """One of them. NotFoundError."""
        found = await self._parts.store.delivery(tenant_id, endpoint_id, delivery_id)
        if found is None:
            raise NotFoundError("no such delivery")
        return found

    async def redeliver(
        self, caller: Caller, endpoint_id: EndpointId, delivery_id: DeliveryId
    ) -> Delivery:
        """Tell it again, under the same id. NotFoundError, InvalidSubmissionError."""
        await self._require_enabled(caller.tenant_id, endpoint_id)
        found = await self._parts.store.redeliver(caller.tenant_id, endpoint_id, delivery_id)
        if found is None:
            raise NotFoundError("no such delivery")
        self._parts.nudge()
        return found

    async def _require_enabled(self, tenant_id: TenantId, endpoint_id: EndpointId) -> None:
        found = await self.get(tenant_id, endpoint_id)
        if not found.row.enabled:
            raise InvalidSubmissionError("/path/endpoint_id", "the endpoint is disabled")

    async def _require_public(self, url: str) -> None:
        try:
            await self._parts.egress.admit(url, self._parts.policy)
        except EgressError as error:
            raise InvalidSubmissionError("/body/url", str(error)) from None

    async def _changed(
        self, caller: Caller, row: SealedEndpoint, content: EndpointContent, act: str
    ) -> Endpoint:
        made = await self._sealed(row, content)
        await self._record(caller, row.endpoint_id, act)
        stored = await self._parts.store.change(made)
        if stored is None:
            raise PreconditionFailedError
        self._parts.nudge()
        return Endpoint(row=stored, content=content)

    async def _record(self, caller: Caller, endpoint_id: EndpointId, act: str) -> None:
        note = {"endpoint": public_endpoint_id(endpoint_id), "act": act}
        await self._parts.admin_log.append(
            caller.tenant_id, CHANGED, dict(note), actor=caller.actor
        )

    async def _sealed(self, row: SealedEndpoint, content: EndpointContent) -> SealedEndpoint:
        place = (row.tenant_id, row.endpoint_id)
        kek_id, sealed = await self._parts.vault.seal(*place, content, self._parts.now())
        return replace(row, kek_id=kek_id, sealed=sealed)

    def _opened(self, row: SealedEndpoint) -> Endpoint:
        place = (row.tenant_id, row.endpoint_id)
        content = self._parts.vault.open(*place, row.kek_id, row.sealed)
        return Endpoint(row=row, content=content)


def _in_order(events: Sequence[WebhookEvent]) -> tuple[WebhookEvent, ...]:
    return tuple(event for event in WebhookEvent if event in events)


def _require_meant(found: Endpoint, is_meant: Callable[[int], bool]) -> None:
    if not is_meant(found.row.version):
        raise PreconditionFailedError
