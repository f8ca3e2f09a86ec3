"""The bell: wakes whoever waits for a run's next record. It carries no data."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from app.domain.run import RunId


class Hearer(Protocol):
    """Whoever wants to hear the bell of a run."""

    def set(self) -> None:
        """The bell rang."""


class Bell:
    """Rung after a commit, in this process only; waiters also look by themselves now and then."""

    def __init__(self) -> None:
        self._hearers: defaultdict[RunId, set[Hearer]] = defaultdict(set)

    def ring(self, run_id: RunId) -> None:
        """Wake everybody who waits for this run."""
        for hearer in self._hearers.get(run_id, ()):
            hearer.set()

    @contextmanager
    def heard_by(self, hearer: Hearer, run_id: RunId) -> Iterator[None]:
        """Tell of every ring for as long as this lasts."""
        self._hearers[run_id].add(hearer)
        try:
            yield
        finally:
            self._hearers[run_id].discard(hearer)
            if not self._hearers[run_id]:
                del self._hearers[run_id]

    async def wait(self, run_id: RunId, timeout_seconds: float) -> None:
        """Return when the run's bell rings, or after the timeout."""
        event = asyncio.Event()
        with self.heard_by(event, run_id):
            try:
                async with asyncio.timeout(timeout_seconds):
                    await event.wait()
            except TimeoutError:
                return
