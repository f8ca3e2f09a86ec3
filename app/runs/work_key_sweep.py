"""Ends the work keys of days that are over, and moves those of runs that go on to today's before.

A parked run may wait for days, and a KEK that lived as long would open every copy of its day. Every
step may be repeated, and by several processes at a time.

Threat: PHI leakage in audit logs
"""

import logging
from datetime import datetime

from app.domain.errors import KeyRetiredError, KeyStoreError
from app.runs.run_keys import RunKeys, days_in_use
from app.storage.run_store import RunStore

_log = logging.getLogger("meshflow.runs")


class WorkKeySweep:
    """What a process does now and then about work keys and results."""

    def __init__(self, store: RunStore, keys: RunKeys) -> None:
        self._store = store
        self._keys = keys

    async def sweep(self, now: datetime) -> None:
        """Move what goes on, remove results past their time, end keys that nothing needs.

        A key is ended only after the database said that nothing is under it any more.
        """
        await self._move(now)
        needed = set(await self._store.expire_results(now))
        gone = self._keys.destroy_work_keys(keep=needed, now=now)
        if gone:
            await self._store.forget_work(gone)

    async def _move(self, now: datetime) -> None:
        for item in await self._store.work.outlived(min(days_in_use(now))):
            try:
                key = self._keys.open(item.tenant_id, item.run_id, item.key)
                moved = self._keys.wrap_work_key(item.tenant_id, item.run_id, key, now)
                await self._store.work.rewrap(item, moved)
            except KeyRetiredError:
                self._keys.look_again()  # and at the next sweep it is moved
            except KeyStoreError as error:
                _log.warning("a work key stays where it is: %s", error)
