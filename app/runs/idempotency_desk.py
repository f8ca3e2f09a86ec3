"""One key, one request: recognises a request that comes again and says how the first one ended.

A run takes its key with its first record, in the same transaction: no crash leaves room for a
second run. What else is posted takes its key before and says afterwards how it ended; after a crash
in between it may be done again.

Threat: PHI leakage in audit logs
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from app.domain.errors import KeyBusyError, KeyErasedError, KeyReusedError, MeshFlowError
from app.domain.idempotency import Begun, KeyClaim, Outcome, StoredKey
from app.domain.run import Caller, TenantId
from app.keys.daily_digests import DailyDigests, days_around
from app.ledger.hashing import length_prefixed
from app.storage.idempotency_store import IdempotencyStore

_log = logging.getLogger("meshflow.runs")
TRIM_SECONDS = 60.0
_MOST_SEEN = 16_384
_KEY, _REQUEST = b"meshflow/idempotency-key/v1\0", b"meshflow/idempotency-request/v1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRequest:
    """What a client sent with its key. The same request is the same bytes to the same address."""

    key: str
    method: str
    path: str
    query: bytes
    body: bytes


class IdempotencyDesk:
    """The idempotency keys of one process; what they began is known to all processes."""

    def __init__(
        self, *, store: IdempotencyStore, digests: DailyDigests, now: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._digests = digests
        self._now = now
        self._under_way: set[bytes] = set()
        self._seen: dict[bytes, None] = {}  # the last keys of this process, oldest first

    def claim(self, caller: Caller, sent: SentRequest) -> KeyClaim:
        """The key and the request as digests. KeyStoreError.

        The scopes of the API key are part of the request: what a task may do depends on them.
        """
        parts = (
            sent.method.encode(),
            sent.path.encode(),
            sent.query,
            " ".join(sorted(caller.scopes)).encode(),
            sha256(sent.body).digest(),
        )
        key, request = _KEY + sent.key.encode(), _REQUEST + b"".join(map(length_prefixed, parts))
        tenant_id, digest = caller.tenant_id, self._digests.digest
        days = days_around(self._now())
        return KeyClaim(
            keys=tuple(digest(tenant_id, day, key) for day in days),
            requests=tuple(digest(tenant_id, day, request) for day in days),
        )

    @asynccontextmanager
    async def alone(self, claim: KeyClaim) -> AsyncIterator[None]:
        """Nobody else in this process is at work with the key. KeyBusyError."""
        if not self._under_way.isdisjoint(claim.keys):
            raise KeyBusyError
        self._under_way.update(claim.keys)
        try:
            yield
        finally:
            self._under_way.difference_update(claim.keys)
            self._seen[claim.keys[0]] = None
            if len(self._seen) > _MOST_SEEN:
                del self._seen[next(iter(self._seen))]

    def has_seen(self, claim: KeyClaim) -> bool:
        """Whether this process has met the key lately, so that a look for it is worth its cost.

        Whoever does not look learns the same when the run is to be written, but then what is
        written together with it is written a second time.
        """
        return any(key in self._seen for key in claim.keys)

    async def known(self, tenant_id: TenantId, claim: KeyClaim) -> Outcome | None:
        """How the first request with the key ended, or None when there was none.

        KeyBusyError, KeyReusedError, KeyErasedError, LedgerUnavailableError.
        """
        found = await self._store.find(tenant_id, claim)
        return None if found is None else _outcome(found, claim)

    async def begin(self, tenant_id: TenantId, claim: KeyClaim) -> Begun | Outcome:
        """Take the key, or how the first request with it ended. Errors as `known`."""
        found = await self._store.begin(tenant_id, claim)
        return found if isinstance(found, Begun) else _outcome(found, claim)

    async def end(self, tenant_id: TenantId, begun: Begun, outcome: Outcome | None) -> None:
        """Say how it ended; None: nothing was done. What cannot be said now, nobody waits for."""
        try:
            await asyncio.shield(self._store.end(tenant_id, begun, outcome))
        except MeshFlowError as error:
            _log.warning("a key stays under way for a minute: %s", type(error).__name__)

    async def trim_forever(self) -> None:
        """Once a minute, remove what is older than 24 hours and end the keys of past days."""
        while True:
            try:
                await self.trim()
            except Exception as error:  # noqa: BLE001 - tried again in a minute
                _log.warning("idempotency keys are not trimmed: %s", type(error).__name__)
            await asyncio.sleep(TRIM_SECONDS)

    async def trim(self) -> int:
        """How many keys were removed."""
        gone = await self._store.trim()
        await asyncio.to_thread(self._digests.destroy_old, self._now())
        return gone


def _outcome(found: StoredKey, claim: KeyClaim) -> Outcome:
    if found.request is None:
        raise KeyErasedError
    if found.request not in claim.requests:
        raise KeyReusedError
    if found.outcome is None:
        raise KeyBusyError
    return found.outcome
