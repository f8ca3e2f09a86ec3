"""Digests under a key of the tenant and the day, for what comes before there is a run.

The keys are those of the key store, so all processes have them and none is configured; a day later
they die, and with them what anybody could learn of what was digested. At the turn of the day, and
between clocks that do not agree, more than one day counts.

Threat: PHI leakage in audit logs
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from app.domain.errors import KeyStoreError
from app.keys.key_store import KeyStore

_DAY = timedelta(days=1)
# A digest of the last moment before midnight may still be on its way for so long.
_GRACE = timedelta(hours=1)


def days_around(now: datetime) -> Sequence[str]:
    """The days that may count at this moment, this one first.

    The one before for what came yesterday, the next one for another process that is there already:
    what either of them stores under its own day, the other looks for.
    """
    return [f"{day:%Y%m%d}" for day in (now, now - _DAY, now + _DAY)]


class DailyDigests:
    """Keyed digests of one deployment."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store

    def digest(self, tenant_id: UUID, day: str, message: bytes) -> bytes:
        """32 bytes. The day's key is made when it is not there. KeyStoreError."""
        kek_id = _kek_id(tenant_id, day)
        try:
            return self._store.mac(kek_id, message)
        except KeyStoreError:
            self._store.create_kek(kek_id)
            return self._store.mac(kek_id, message)

    def known_digest(self, tenant_id: UUID, day: str, message: bytes) -> bytes | None:
        """The same digest if it was made under a key that is still there; makes no key."""
        kek_id = _kek_id(tenant_id, day)
        return self._store.mac(kek_id, message) if self._store.has_kek(kek_id) else None

    def destroy_old(self, now: datetime) -> int:
        """End the keys of days that count no more; how many those were."""
        first = f"{now - _DAY - _GRACE:%Y%m%d}"
        old = [
            kek_id
            for kek_id in self._store.kek_ids("digest/")
            if kek_id.rpartition("/")[2].partition(".")[0] < first
        ]
        for kek_id in old:
            self._store.destroy_kek(kek_id, now=now)
        return len(old)


def _kek_id(tenant_id: UUID, day: str) -> str:
    return f"digest/{tenant_id.hex}/{day}"
