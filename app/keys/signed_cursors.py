"""Cursors of lists: where the next page begins, signed, so that nobody writes one by hand.

A cursor is good for the tenant, the list and the filters that it was made for, for a day at least.
Its key is the tenant's of the day in the key store: every process has it, and none is configured.

Threat: Unauthorised API access
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from app.keys.daily_digests import DailyDigests, days_around

_DAY_BYTES, _TAG_BYTES = 4, 16
_PURPOSE = b"meshflow/cursor/v1\0"


class SignedCursors:
    """Makes cursors and takes back its own."""

    def __init__(self, digests: DailyDigests, now: Callable[[], datetime]) -> None:
        self._digests = digests
        self._now = now

    def seal(self, tenant_id: UUID, place: bytes, position: bytes) -> str:
        """The cursor for what comes after `position` in `place`: a list with its filters."""
        day = days_around(self._now())[0]
        told = int(day).to_bytes(_DAY_BYTES, "big") + position
        tag = self._digests.digest(tenant_id, day, _message(place, told))[:_TAG_BYTES]
        return urlsafe_b64encode(told + tag).rstrip(b"=").decode("ascii")

    def open(self, tenant_id: UUID, place: bytes, cursor: str) -> bytes | None:
        """The position, or None: not one of ours, for another place, of another day or tenant."""
        try:
            raw = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        except ValueError:
            return None
        told, tag = raw[:-_TAG_BYTES], raw[-_TAG_BYTES:]
        day = str(int.from_bytes(told[:_DAY_BYTES], "big"))
        if day not in days_around(self._now()):
            return None
        good = self._digests.known_digest(tenant_id, day, _message(place, told))
        if good is None or not hmac.compare_digest(good[:_TAG_BYTES], tag):
            return None
        # Of several spellings of the same bytes only ours counts.
        is_ours = urlsafe_b64encode(raw).rstrip(b"=") == cursor.encode("ascii")
        return told[_DAY_BYTES:] if is_ours else None


def _message(place: bytes, told: bytes) -> bytes:
    return _PURPOSE + len(place).to_bytes(4, "big") + place + told
