"""The bell: wakes whoever waits for a run's next record, and says how the run ended if it did."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime

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


@dataclass(slots=True, eq=False)
class _Waiter:
    rung: asyncio.Event = field(default_factory=asyncio.Event)
    end: RunEnd | None = None


class Bell:
    """Rung after a commit, in this process only; waiters also look by themselves now and then."""

    def __init__(self) -> None:
        self._waiting: defaultdict[RunId, set[_Waiter]] = defaultdict(set)

    def ring(self, run_id: RunId, end: RunEnd | None = None) -> None:
        """Wake everybody who waits for this run."""
        for waiter in self._waiting.get(run_id, ()):
            waiter.end = end
            waiter.rung.set()

    async def wait(self, run_id: RunId, timeout_seconds: float) -> RunEnd | None:
        """Return when the run's bell rings, or after the timeout; how it ended, if it did.

        It listens from the moment that it is awaited.
        """
        waiter = _Waiter()
        self._waiting[run_id].add(waiter)
        try:
            async with asyncio.timeout(timeout_seconds):
                await waiter.rung.wait()
        except TimeoutError:
            return waiter.end
        finally:
            self._waiting[run_id].discard(waiter)
            if not self._waiting[run_id]:
                del self._waiting[run_id]
        return waiter.end
