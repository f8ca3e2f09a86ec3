"""What of a run's metadata a list can be narrowed by: keyed digests of each key and its value.

A plain index would tell whoever reads the database what callers said of their runs. The digests are
under a key of the tenant, go with the run's content, and answer one question: is it this value?

Threat: PHI leakage in audit logs
"""

import json
from collections.abc import Sequence

from app.domain.errors import KeyStoreError
from app.domain.run import Json, JsonObject, TenantId
from app.keys.key_store import KeyStore
from app.ledger.hashing import u64be

MOST_LABELS = 32
MOST_KEY_CHARACTERS = 64
MOST_VALUE_CHARACTERS = 256
_PURPOSE = b"meshflow/label/v1"


class RunLabels:
    """Digests of one deployment. KeyStoreError when the key store does not answer."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store

    def of(self, tenant_id: TenantId, metadata: JsonObject) -> Sequence[bytes]:
        """Of the first so many entries whose value is one word and not too long."""
        told = [
            (key, text) for key, value in metadata.items() if (text := _text(value)) is not None
        ]
        short = [
            pair
            for pair in told
            if len(pair[0]) <= MOST_KEY_CHARACTERS and len(pair[1]) <= MOST_VALUE_CHARACTERS
        ]
        return [self.digest(tenant_id, *pair) for pair in short[:MOST_LABELS]]

    def digest(self, tenant_id: TenantId, key: str, value: str) -> bytes:
        """32 bytes, the same for the same key and value of a tenant, in every process."""
        name = key.encode("utf-8", "replace")
        message = _PURPOSE + u64be(len(name)) + name + value.encode("utf-8", "replace")
        # Not of a day: what was let in years ago is still found. It dies with the tenant.
        kek_id = f"label/{tenant_id.hex}/00000000"
        try:
            return self._store.mac(kek_id, message)
        except KeyStoreError:
            self._store.create_kek(kek_id)
            return self._store.mac(kek_id, message)


def _text(value: Json) -> str | None:
    """A value as a query says it; None for what is a list or an object."""
    if isinstance(value, str):
        return value
    return None if isinstance(value, dict | list) else json.dumps(value)
