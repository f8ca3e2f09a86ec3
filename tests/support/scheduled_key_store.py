"""A second key store: one that only schedules the end of a key, as key management services do.

A key whose end is scheduled opens and wraps nothing more, but it is there until its time has come:
whoever runs the store could still take the schedule back.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from app.domain.errors import KeyStoreError
from app.keys.key_store import FileKeyStore


class ScheduledKeyStore:
    """The keys of a file store; `delay_of` says how long an end takes by the clock `now`."""

    def __init__(
        self,
        inner: FileKeyStore,
        now: Callable[[], datetime],
        delay_of: Callable[[str], timedelta],
    ) -> None:
        self._inner = inner
        self._now = now
        self._delay_of = delay_of
        self.due: dict[str, datetime] = {}

    def create_kek(self, kek_id: str) -> None:
        self._end_what_is_due()
        if kek_id in self.due:
            raise KeyStoreError(f"KEK {kek_id} is about to be destroyed")
        self._inner.create_kek(kek_id)

    def wrap(self, kek_id: str, key: bytes, aad: bytes) -> bytes:
        self._require_usable(kek_id)
        return self._inner.wrap(kek_id, key, aad)

    def unwrap(self, kek_id: str, wrapped: bytes, aad: bytes) -> bytes:
        self._require_usable(kek_id)
        return self._inner.unwrap(kek_id, wrapped, aad)

    def mac(self, kek_id: str, message: bytes) -> bytes:
        self._require_usable(kek_id)
        return self._inner.mac(kek_id, message)

    def has_kek(self, kek_id: str) -> bool:
        self._end_what_is_due()
        return self._inner.has_kek(kek_id)

    def destroy_kek(self, kek_id: str, *, now: datetime) -> datetime:
        self._end_what_is_due()
        if not self._inner.has_kek(kek_id):
            raise KeyStoreError(f"KEK {kek_id} cannot be destroyed: no such key")
        due = self.due.setdefault(kek_id, now + self._delay_of(kek_id))
        self._end_what_is_due()
        return due

    def kek_ids(self, prefix: str) -> tuple[str, ...]:
        self._end_what_is_due()
        return self._inner.kek_ids(prefix)

    def _require_usable(self, kek_id: str) -> None:
        self._end_what_is_due()
        if kek_id in self.due:
            raise KeyStoreError(f"KEK {kek_id} is about to be destroyed")

    def _end_what_is_due(self) -> None:
        now = self._now()
        for kek_id in [kek_id for kek_id, due in self.due.items() if due <= now]:
            self._inner.destroy_kek(kek_id, now=now)
            del self.due[kek_id]
