"""Changes over the KEK of a tenant's webhooks in time: what it sealed is sealed anew, then it ends.

An old copy of the database opens with no key that is still there. Every step may be repeated, and
by several processes at a time; an endpoint that is changed meanwhile is left as it was changed.

Threat: PHI leakage in audit logs
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from app.domain.errors import KeyRetiredError, KeyStoreError
from app.domain.run import TenantId
from app.keys.key_store import KeyStore
from app.storage.webhook_store import WebhookStore
from app.webhooks.endpoint_vault import EndpointVault

_log = logging.getLogger("meshflow.webhooks")
KEY_LIFE = timedelta(days=90)
_KIND = "webhook/"


class WebhookKeyTurn:
    """What a process does now and then about the KEKs of webhooks."""

    def __init__(
        self,
        *,
        store: WebhookStore,
        vault: EndpointVault,
        keys: KeyStore,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._vault = vault
        self._keys = keys
        self._now = now

    async def turn(self) -> int:
        """How many KEKs ended. One that cannot be ended now is left for next time."""
        ended = 0
        for kek_id in await asyncio.to_thread(self._keys.kek_ids, _KIND):
            if self._now() - _made(kek_id) < KEY_LIFE:
                continue
            try:
                ended += await self._end(TenantId(UUID(kek_id.split("/")[1])), kek_id)
            except (KeyStoreError, KeyRetiredError) as error:
                _log.warning("a webhook key is not ended yet: %s", type(error).__name__)
        return ended

    async def _end(self, tenant_id: TenantId, kek_id: str) -> int:
        successor = f"{_KIND}{tenant_id.hex}/{self._now():%Y%m%d}"
        await asyncio.to_thread(self._keys.create_kek, successor)
        await self._store.turn_key(tenant_id, kek_id, successor)
        for row in await self._store.endpoints(tenant_id):
            if row.kek_id != kek_id:
                continue
            place = (tenant_id, row.endpoint_id)
            content = await asyncio.to_thread(self._vault.open, *place, kek_id, row.sealed)
            under, sealed = await self._vault.seal(*place, content, self._now())
            await self._store.reseal(row, under, sealed)
        left = await self._store.endpoints(tenant_id)
        if any(row.kek_id == kek_id for row in left):
            return 0
        if await asyncio.to_thread(self._keys.has_kek, kek_id):
            await asyncio.to_thread(lambda: self._keys.destroy_kek(kek_id, now=self._now()))
        await self._store.key_ended(kek_id)
        return 1


def _made(kek_id: str) -> datetime:
    day = kek_id.rpartition("/")[2].partition(".")[0]
    return datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC)
