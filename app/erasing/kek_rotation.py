"""Ends the KEKs that could still open what was erased, in backups and in the write-ahead log.

What a dying KEK wraps and is not erased is wrapped anew first. Every step can be repeated: a crash
anywhere is continued by the next round.

Threat: PHI leakage in audit logs
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from app.domain.errors import MeshFlowError
from app.keys.key_store import KeyStore
from app.runs.run_keys import first_version, newest_version, next_version
from app.storage.companions import WrappedKey
from app.storage.erasing_store import EraserStore, WaitingKek

_log = logging.getLogger("meshflow.erasing")


class KekRotation:
    """Rotates each KEK that a pending receipt waits for."""

    def __init__(self, *, store: EraserStore, keys: KeyStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._keys = keys
        self._now = now

    async def rotate(self) -> int:
        """How many KEKs are gone after this. One that cannot be ended now is left for next time."""
        gone = 0
        for waiting in await self._store.keks():
            try:
                gone += await self._end(waiting)
            except MeshFlowError as error:
                _log.warning("a key is not ended yet: %s", type(error).__name__)
        return gone

    async def _end(self, waiting: WaitingKek) -> int:
        tenant_id, kek_id = waiting.tenant_id, waiting.kek_id
        successor = waiting.successor
        if waiting.log_id == tenant_id:
            successor = successor or await asyncio.to_thread(self._new_successor, kek_id)
        named = await self._store.retire(tenant_id, kek_id, successor, self._now())
        if named is not None:
            await self._move(waiting, named)
        is_there = await asyncio.to_thread(self._keys.has_kek, kek_id)
        now = self._now()
        gone_at = now
        if is_there:
            gone_at = await asyncio.to_thread(lambda: self._keys.destroy_kek(kek_id, now=now))
        if gone_at > now:
            await self._store.destroyed(tenant_id, kek_id, None, gone_at)
            return 0
        await self._store.destroyed(tenant_id, kek_id, gone_at, None)
        return 1

    def _new_successor(self, kek_id: str) -> str:
        """A new KEK: the newest one may be about to die itself."""
        successor = next_version(newest_version(self._keys, first_version(kek_id)))
        self._keys.create_kek(successor)
        return successor

    async def _move(self, waiting: WaitingKek, successor: str) -> None:
        """Wrap under the successor what is still under the KEK."""
        log = waiting.log_id
        wraps = await self._store.wraps(log, waiting.kek_id)
        if wraps:
            # A crash may have left it unused, and the sweep of unused work keys may have ended it.
            await asyncio.to_thread(self._keys.create_kek, successor)
        for wrap in wraps:
            aad = log.bytes + wrap.run_id.bytes
            key = self._keys.unwrap(waiting.kek_id, wrap.wrapped, aad)
            wrapped = WrappedKey(kek_id=successor, wrapped=self._keys.wrap(successor, key, aad))
            await self._store.rewrap(log, wrap, waiting.kek_id, wrapped)
