"""Keys of runs: made, wrapped and opened again through the key store, one KEK a tenant and day.

A day's KEK has versions: after an erasure the newest wraps what stays and the older ones die.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from app.domain.errors import KeyStoreError
from app.domain.run import RunId, TenantId
from app.keys.key_store import KeyStore
from app.runs.run_labels import RunLabels
from app.storage.companions import WrappedKey

KEY_BYTES = 32
_CACHED = 4096


class RunKeys:
    """Makes and opens run keys and result keys. A key in clear lives only in memory."""

    def __init__(self, store: KeyStore, entropy: Callable[[int], bytes]) -> None:
        self._store = store
        self._entropy = entropy
        self._newest: dict[str, str] = {}
        self.labels = RunLabels(store)

    def new_run_key(
        self, tenant_id: TenantId, run_id: RunId, now: datetime
    ) -> tuple[bytes, WrappedKey]:
        """A fresh key for a run's ledger, and how it is stored. KeyStoreError when it cannot be."""
        key = self._entropy(KEY_BYTES)
        return key, self.wrap_run_key(tenant_id, run_id, key, now)

    def wrap_run_key(
        self, tenant_id: TenantId, run_id: RunId, key: bytes, now: datetime
    ) -> WrappedKey:
        """A run's key under the newest KEK of the day."""
        return self._wrapped(f"ledger/{tenant_id.hex}/{_day(now)}", tenant_id, run_id, key)

    def new_result_key(
        self, tenant_id: TenantId, run_id: RunId, now: datetime
    ) -> tuple[bytes, WrappedKey]:
        """A fresh key for a run's result: under a work key, which dies with the day's results."""
        return self.new_work_key(tenant_id, run_id, now)

    def new_work_key(
        self, tenant_id: TenantId, run_id: RunId, now: datetime
    ) -> tuple[bytes, WrappedKey]:
        """A fresh key for a run's working copy, and how it is stored while the run goes on."""
        key = self._entropy(KEY_BYTES)
        return key, self.wrap_work_key(tenant_id, run_id, key, now)

    def wrap_work_key(
        self, tenant_id: TenantId, run_id: RunId, key: bytes, now: datetime
    ) -> WrappedKey:
        """A run's work key under the newest work KEK of the day."""
        return self._wrapped(f"work/{tenant_id.hex}/{_day(now)}", tenant_id, run_id, key)

    def open(self, tenant_id: TenantId, run_id: RunId, key: WrappedKey) -> bytes:
        """The key in clear. KeyStoreError when its KEK is gone or the wrap was made elsewhere."""
        return self._store.unwrap(key.kek_id, key.wrapped, tenant_id.bytes + run_id.bytes)

    def look_again(self) -> None:
        """Forget which KEK is the newest: another process retired one."""
        self._newest.clear()

    def destroy_work_keys(self, *, keep: Collection[str], now: datetime) -> Sequence[str]:
        """End work keys that nothing needs, and with them every copy of what they sealed.

        The ids of those that are gone when this returns.
        """
        days = days_in_use(now)
        idle = [
            kek_id
            for kek_id in self._store.kek_ids("work/")
            if kek_id not in keep and day_of(kek_id) not in days
        ]
        return [kek_id for kek_id in idle if self._store.destroy_kek(kek_id, now=now) <= now]

    def _wrapped(self, first: str, tenant_id: TenantId, run_id: RunId, key: bytes) -> WrappedKey:
        aad = tenant_id.bytes + run_id.bytes
        known = self._newest.get(first)
        if known is not None:
            # A KEK that is destroyed, or about to be, wraps nothing: the newest is looked up.
            with suppress(KeyStoreError):
                return WrappedKey(kek_id=known, wrapped=self._store.wrap(known, key, aad))
        kek_id = newest_version(self._store, first)
        if len(self._newest) >= _CACHED:
            self._newest.clear()
        self._newest[first] = kek_id
        # Made only when the day has none: the name of a key that died is never used again.
        self._store.create_kek(kek_id)
        return WrappedKey(kek_id=kek_id, wrapped=self._store.wrap(kek_id, key, aad))


def days_in_use(now: datetime) -> frozenset[str]:
    """The days whose KEKs may be wrapped under at this moment.

    A result sealed a moment before midnight may still be on its way to the database.
    """
    return frozenset({_day(now), _day(now - timedelta(hours=1))})


def _day(moment: datetime) -> str:
    return moment.date().isoformat().replace("-", "")


def day_of(kek_id: str) -> str:
    """The day in a KEK's id."""
    return kek_id.rpartition("/")[2].partition(".")[0]


def first_version(kek_id: str) -> str:
    """The id of the day's first KEK."""
    return kek_id.partition(".")[0]


def version_of(kek_id: str) -> int:
    """0 for the day's first KEK, then 1, 2, ..."""
    return int(kek_id.partition(".")[2] or 0)


def newest_version(store: KeyStore, first: str) -> str:
    """The newest KEK of the day that exists, or the id of the first when there is none."""
    found = [kek_id for kek_id in store.kek_ids(first) if first_version(kek_id) == first]
    return max(found, key=version_of, default=first)


def next_version(kek_id: str) -> str:
    """The id that comes after this one."""
    return f"{first_version(kek_id)}.{version_of(kek_id) + 1}"
