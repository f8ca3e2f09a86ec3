"""Keys of runs: made, wrapped and opened again through the key store, one KEK a tenant and day."""

from collections.abc import Callable, Collection
from datetime import datetime

from app.domain.errors import KeyStoreError
from app.domain.run import RunId, TenantId
from app.keys.key_store import KeyStore
from app.storage.ledger_store import WrappedKey

KEY_BYTES = 32
_REMEMBERED = 4096


class RunKeys:
    """Makes and opens run keys and result keys. A key in clear lives only in memory."""

    def __init__(self, store: KeyStore, entropy: Callable[[int], bytes]) -> None:
        self._store = store
        self._entropy = entropy
        self._ensured: set[str] = set()  # KEKs that this process has made sure are durable

    def new_run_key(
        self, tenant_id: TenantId, run_id: RunId, now: datetime
    ) -> tuple[bytes, WrappedKey]:
        """A fresh key for a run's ledger, and how it is stored. KeyStoreError when it cannot be."""
        return self._new(f"ledger/{tenant_id.hex}/{now:%Y%m%d}", tenant_id, run_id)

    def new_result_key(
        self, tenant_id: TenantId, run_id: RunId, now: datetime
    ) -> tuple[bytes, WrappedKey]:
        """A fresh key for a run's result: under a work key, which dies with the day's results."""
        return self._new(f"work/{now:%Y%m%d}", tenant_id, run_id)

    def open(self, tenant_id: TenantId, run_id: RunId, key: WrappedKey) -> bytes:
        """The key in clear. KeyStoreError when its KEK is gone or the wrap was made elsewhere."""
        return self._store.unwrap(key.kek_id, key.wrapped, tenant_id.bytes + run_id.bytes)

    def destroy_work_keys(self, *, keep: Collection[str], now: datetime) -> None:
        """End work keys that no result needs, and with them every copy of what they sealed."""
        for kek_id in self._store.kek_ids("work/"):
            if kek_id not in keep:
                self._store.destroy_kek(kek_id, now=now)

    def _new(self, kek_id: str, tenant_id: TenantId, run_id: RunId) -> tuple[bytes, WrappedKey]:
        key, aad = self._entropy(KEY_BYTES), tenant_id.bytes + run_id.bytes
        try:
            if kek_id in self._ensured:
                wrapped = self._store.wrap(kek_id, key, aad)
                return key, WrappedKey(kek_id=kek_id, wrapped=wrapped)
        except KeyStoreError:
            self._ensured.discard(kek_id)  # destroyed since: made anew below, or the error is told
        self._store.create_kek(kek_id)
        if len(self._ensured) >= _REMEMBERED:
            self._ensured.clear()
        self._ensured.add(kek_id)
        wrapped = self._store.wrap(kek_id, key, aad)
        return key, WrappedKey(kek_id=kek_id, wrapped=wrapped)
