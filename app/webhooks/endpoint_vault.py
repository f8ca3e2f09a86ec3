"""Seals where an endpoint is and its secrets under a key of its tenant in the key store.

They are in clear in memory only, while a delivery is signed or a tenant asks for its URL. A key
that dies takes every copy with it, in backups too.

Threat: PHI leakage in audit logs
"""

import asyncio
import json
from base64 import b64decode, b64encode
from datetime import datetime

from app.domain.errors import KeyStoreError
from app.domain.run import TenantId
from app.domain.webhook import EndpointContent, EndpointId, LiveSecret
from app.keys.key_store import KeyStore

_PURPOSE = b"meshflow/webhook/v1"


class EndpointVault:
    """Seals and opens the content of endpoints."""

    def __init__(self, keys: KeyStore) -> None:
        self._keys = keys

    async def seal(
        self, tenant_id: TenantId, endpoint_id: EndpointId, content: EndpointContent, now: datetime
    ) -> tuple[str, bytes]:
        """The id of the KEK and what it sealed. KeyStoreError. The first one makes the KEK."""
        return await asyncio.to_thread(self._seal, tenant_id, endpoint_id, content, now)

    def open(
        self, tenant_id: TenantId, endpoint_id: EndpointId, kek_id: str, sealed: bytes
    ) -> EndpointContent:
        """The content again. KeyStoreError when it does not open, and it shows nothing of it."""
        clear = self._keys.unwrap(kek_id, sealed, _place(tenant_id, endpoint_id))
        try:
            read = json.loads(clear)
            secrets = tuple(
                LiveSecret(
                    key=b64decode(item["key"]),
                    until=None if item["until"] is None else datetime.fromisoformat(item["until"]),
                )
                for item in read["secrets"]
            )
            return EndpointContent(url=str(read["url"]), secrets=secrets)
        except (ValueError, KeyError, TypeError):
            raise KeyStoreError("what an endpoint sealed cannot be read") from None

    def _seal(
        self, tenant_id: TenantId, endpoint_id: EndpointId, content: EndpointContent, now: datetime
    ) -> tuple[str, bytes]:
        found = self._keys.kek_ids(f"webhook/{tenant_id.hex}/")
        kek_id = found[-1] if found else f"webhook/{tenant_id.hex}/{now:%Y%m%d}"
        self._keys.create_kek(kek_id)
        secrets = [
            {
                "key": b64encode(item.key).decode("ascii"),
                "until": None if item.until is None else item.until.isoformat(),
            }
            for item in content.secrets
        ]
        clear = json.dumps({"url": content.url, "secrets": secrets}).encode("utf-8")
        return kek_id, self._keys.wrap(kek_id, clear, _place(tenant_id, endpoint_id))


def _place(tenant_id: TenantId, endpoint_id: EndpointId) -> bytes:
    return _PURPOSE + tenant_id.bytes + endpoint_id.bytes
