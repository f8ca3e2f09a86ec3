"""The bell: wakes whoever waits for a run's next record, and says how the run ended if it did."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from app.domain.run import RunId, RunStatus, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """What the last record of a run, just made durable, changed. Handed on and never kept."""

    status: RunStatus
    error_code: str | None
    usage: Usage
    finished_at: datetime
    entries: int
    output: str | None = field(repr=False)  # in full, where it is kept
    told: bytes | None = field(repr=False)  # as the record shows it, scrubbed


class Hearer(Protocol):
    """Whoever wants to hear the bell of a run."""

    def hear(self, end: RunEnd | None) -> None:
        """The bell rang; how the run ended, if it did."""


@dataclass(slots=True, eq=False)
class _Waiter:
    rung: asyncio.Event = field(default_factory=asyncio.Event)
    end: RunEnd | None = None

    def hear(self, end: RunEnd | None) -> None:
        self.end = end
        self.rung.set()


class Bell:
    """Rung after a commit, in this process only; waiters also look by themselves now and then."""

    def __init__(self) -> None:
        self._hearers: defaultdict[RunId, set[Hearer]] = defaultdict(set)

    def ring(self, run_id: RunId, end: RunEnd | None = None) -> None:
        """Wake everybody who waits for this run."""
        for hearer in self._hearers.get(run_id, ()):
            hearer.hear(end)

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

    async def wait(self, run_id: RunId, timeout_seconds: float) -> RunEnd | None:
        """Return when the run's bell rings, or after the timeout; how it ended, if it did.

        It listens from the moment that it is awaited.
        """
        waiter = _Waiter()
        with self.heard_by(waiter, run_id):
            try:
                async with asyncio.timeout(timeout_seconds):
                    await waiter.rung.wait()
            except TimeoutError:
                pass
        return waiter.end
