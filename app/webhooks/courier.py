"""Brings deliveries to their receivers: claims turns, signs, sends by the egress client, notes.

At least once, under one id; nothing is held of the database while something is sent. A receiver
gets no second address to send us to, and of its answer the status is kept and nothing else.

Threat: Exfiltration via web/shell tools
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus
from uuid import UUID

from app.domain.errors import EgressError, KeyStoreError
from app.domain.retry_after import retry_after_seconds
from app.domain.webhook import EndpointContent, public_delivery_id
from app.egress.egress_client import EgressAnswer, EgressClient, EgressOrder
from app.egress.url_policy import UrlPolicy
from app.storage.webhook_store import Due, Outcome, Settlement, Turn, WebhookStore
from app.telemetry import meters
from app.webhooks.endpoint_vault import EndpointVault
from app.webhooks.fair_turns import FairTurns, TurnLimits
from app.webhooks.retry_schedule import delay_seconds
from app.webhooks.webhook_signature import signature_headers

_log = logging.getLogger("meshflow.webhooks")
RETENTION = timedelta(days=7)  # of what was delivered or given up
POLL_SECONDS = 0.5
TRIM_SECONDS = 60.0
LEASE_SECONDS = 60
DEADLINE_SECONDS = 10.0
_PAUSE_SECONDS = 0.02  # between two looks, however much is answered meanwhile
_FAREWELL_SECONDS = 3.0
_SUCCESS = range(200, 300)
_JSON = ("Content-Type", "application/json")


@dataclass(frozen=True, slots=True, kw_only=True)
class CourierParts:
    """What a courier is built from."""

    store: WebhookStore
    vault: EndpointVault
    egress: EgressClient
    policy: UrlPolicy
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    unit: Callable[[], float]  # random, from 0 to 1
    new_claim: Callable[[], UUID]
    turn_keys: Callable[[], Awaitable[int]]
    limits: TurnLimits = field(default_factory=TurnLimits)
    retention: timedelta = RETENTION


class Courier:
    """Delivers for one process. Any number of processes may: each turn is one process's."""

    def __init__(self, parts: CourierParts) -> None:
        self._parts = parts
        self._turns = FairTurns(parts.limits)
        self._sending: dict[asyncio.Task[None], Turn] = {}
        self._news = asyncio.Event()
        self._trim_at = 0.0

    def nudge(self) -> None:
        """Something may be due now."""
        self._news.set()

    async def deliver_forever(self) -> None:
        """Look for what is due, and send it. When it is cancelled, what is under way is let go."""
        is_told = False
        try:
            while True:
                try:
                    self._news.clear()
                    await self._look()
                    is_told = False
                except Exception as error:  # noqa: BLE001 - it is still due at the next look
                    if not is_told:
                        _log.warning("webhooks wait: %s", type(error).__name__)
                    is_told = True
                await asyncio.sleep(_PAUSE_SECONDS)
                await self._some_time()
        finally:
            await self._let_go()

    async def deliver_due(self) -> int:
        """Send once what is due now and has room; how many. All of it is settled on return."""
        begun = await self._look()
        while self._sending:
            await asyncio.wait([*self._sending])
        return begun

    async def _some_time(self) -> None:
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._news.wait()
        except TimeoutError:
            pass

    async def _look(self) -> int:
        parts, begun = self._parts, 0
        if parts.monotonic() >= self._trim_at and not await parts.store.trim(parts.retention):
            self._trim_at = parts.monotonic() + TRIM_SECONDS
            await parts.turn_keys()
        due = await parts.store.due()
        for tenant_id, given in self._turns.share(due).items():
            known = {item.endpoint_id: item for item in given}
            rooms = {item.endpoint_id: count for item, count in given.items()}
            claimed_at = parts.monotonic()
            turns = await parts.store.claim(tenant_id, rooms, parts.new_claim(), LEASE_SECONDS)
            for turn in turns:
                self._begin(turn, known[turn.endpoint_id], claimed_at)
            begun += len(turns)
        return begun

    def _begin(self, turn: Turn, item: Due, claimed_at: float) -> None:
        self._turns.begin(item)
        task = asyncio.create_task(self._deliver(turn, claimed_at))
        self._sending[task] = turn

        def ended(done: asyncio.Task[None]) -> None:
            self._turns.end(item)
            self._sending.pop(done, None)
            self._news.set()

        task.add_done_callback(ended)

    async def _deliver(self, turn: Turn, claimed_at: float) -> None:
        try:
            if self._parts.monotonic() > claimed_at + LEASE_SECONDS - 2 * DEADLINE_SECONDS:
                return  # this process stood still: it may be somebody else's turn by now
            found = await self._sent(turn)
            meters.WEBHOOK_ATTEMPTS.labels(found.outcome.value).inc()
            if not await self._parts.store.settle(turn, found):
                _log.warning("a delivery was somebody else's when it was settled")
        except Exception as error:  # noqa: BLE001 - the lease ends, and it is sent again
            _log.warning("a delivery is not settled: %s", type(error).__name__)

    async def _sent(self, turn: Turn) -> Settlement:
        parts, now = self._parts, self._parts.now()
        try:
            place = (turn.tenant_id, turn.endpoint_id, turn.kek_id, turn.sealed)
            content = await asyncio.to_thread(parts.vault.open, *place)
            answer = await parts.egress.send(_order(turn, content, parts.policy, now))
        except KeyStoreError:
            return self._again(turn, error="key_store")
        except EgressError as error:
            return self._again(turn, error=error.code)
        return self._judged(turn, answer)

    def _judged(self, turn: Turn, answer: EgressAnswer) -> Settlement:
        if answer.status in _SUCCESS:
            return Settlement(outcome=Outcome.DELIVERED, status=answer.status)
        if answer.status == HTTPStatus.GONE:
            return Settlement(outcome=Outcome.GONE, status=answer.status, error="gone")
        asked = retry_after_seconds(answer.headers.get("retry-after"), self._parts.now())
        return self._again(turn, status=answer.status, error="status", asked=asked)

    def _again(
        self, turn: Turn, *, error: str, status: int | None = None, asked: float | None = None
    ) -> Settlement:
        wait = delay_seconds(turn.attempts, self._parts.unit(), asked)
        return Settlement(outcome=Outcome.RETRY, status=status, error=error, delay_seconds=wait)

    async def _let_go(self) -> None:
        """End what is being sent; another process may send it at once. Late, the lease does it."""
        left = dict(self._sending)
        for task in left:
            task.cancel()
        if not left:
            return
        await asyncio.wait([*left])
        released = Settlement(outcome=Outcome.RELEASED)
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                for turn in left.values():
                    await self._parts.store.settle(turn, released)
        except Exception as error:  # noqa: BLE001 - the lease ends
            _log.warning("deliveries wait for their lease to end: %s", type(error).__name__)


def _order(turn: Turn, content: EndpointContent, policy: UrlPolicy, now: datetime) -> EgressOrder:
    keys = [item.key for item in content.secrets if item.until is None or item.until > now]
    signed = signature_headers(
        keys,
        message_id=public_delivery_id(turn.delivery_id),
        at_seconds=int(now.timestamp()),
        body=turn.body,
    )
    return EgressOrder(
        url=content.url,
        policy=policy,
        method="POST",
        body=turn.body,
        headers=(_JSON, *signed),
        max_body_bytes=0,
        deadline_seconds=DEADLINE_SECONDS,
    )
