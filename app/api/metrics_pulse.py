"""Brings the figures that only the database knows, when somebody scrapes and not more often."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from app.domain.errors import MeshFlowError
from app.sequencing.ledger_pulse import Vitals
from app.telemetry import meters

FRESH_SECONDS = 2.0
PATIENCE_SECONDS = 5.0


class RunLoad(Protocol):
    """What waits and runs of one tenant."""

    @property
    def tenant(self) -> str:
        """Its name."""

    @property
    def waiting(self) -> int:
        """Runs that wait to be begun."""

    @property
    def running(self) -> int:
        """Runs under way."""

    @property
    def waits_seconds(self) -> float:
        """For how long the oldest has waited."""


class Outbox(Protocol):
    """What waits to be told to webhooks."""

    @property
    def waiting(self) -> int:
        """Deliveries that are not ended."""

    @property
    def oldest_seconds(self) -> float:
        """For how long the oldest of them has been tried."""

    @property
    def dead(self) -> int:
        """Deliveries that were given up."""


class MetricsPulse:
    """Asks the database at most every two seconds, once for all who scrape."""

    def __init__(
        self,
        vitals: Callable[[], Awaitable[Vitals]],
        loads: Callable[[], Awaitable[Sequence[RunLoad]]],
        outbox: Callable[[], Awaitable[Outbox]],
        monotonic: Callable[[], float],
    ) -> None:
        self._vitals = vitals
        self._loads = loads
        self._outbox = outbox
        self._monotonic = monotonic
        self._turn = asyncio.Lock()
        self._fresh_until = 0.0

    async def refresh(self) -> None:
        """Put the present figures in; when the database does not answer, say that instead."""
        async with self._turn:
            if self._monotonic() < self._fresh_until:
                return
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    vitals, loads = await self._vitals(), await self._loads()
                    outbox = await self._outbox()
            except (MeshFlowError, TimeoutError):
                meters.DATABASE_ANSWERS.set(0)
                return
            self._fresh_until = self._monotonic() + FRESH_SECONDS
        meters.DATABASE_ANSWERS.set(1)
        meters.LEDGER_SIZE.set(vitals.size)
        meters.UNWITNESSED_AGE.set(vitals.unwitnessed_age_seconds)
        meters.UNSEQUENCED_AGE.set(vitals.unsequenced_age_seconds)
        meters.OUTBOX_WAITING.set(outbox.waiting)
        meters.OUTBOX_AGE.set(outbox.oldest_seconds)
        meters.DEAD_LETTERS.set(outbox.dead)
        meters.QUEUE_AGE.set(max((load.waits_seconds for load in loads), default=0.0))
        meters.show_loads(
            [
                meters.TenantLoad(tenant=load.tenant, waiting=load.waiting, running=load.running)
                for load in loads
            ]
        )
