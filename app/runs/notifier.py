"""The bell: wakes whoever waits for a run's next record. It carries no data."""

import asyncio
from collections import defaultdict

from app.domain.run import RunId


class Bell:
    """Rung after a commit, in this process only; waiters also look by themselves now and then."""

    def __init__(self) -> None:
        self._waiting: defaultdict[RunId, set[asyncio.Event]] = defaultdict(set)

    def ring(self, run_id: RunId) -> None:
        """Wake everybody who waits for this run."""
        for event in self._waiting.get(run_id, ()):
            event.set()

    async def wait(self, run_id: RunId, timeout_seconds: float) -> None:
        """Return when the run's bell rings, or after the timeout."""
        event = asyncio.Event()
        self._waiting[run_id].add(event)
        try:
            async with asyncio.timeout(timeout_seconds):
                await event.wait()
        except TimeoutError:
            return
        finally:
            self._waiting[run_id].discard(event)
            if not self._waiting[run_id]:
                del self._waiting[run_id]
