"""Reads endpoints and deliveries, and writes through functions that check whose turn it is.

Threat: Exfiltration via web/shell tools
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from uuid import UUID

import asyncpg

from app.domain.errors import InvalidSubmissionError, KeyRetiredError
from app.domain.run import RunId, TenantId
from app.domain.webhook import (
    Delivery,
    DeliveryId,
    DeliveryState,
    DisabledReason,
    EndpointId,
    SealedEndpoint,
    WebhookEvent,
)
from app.storage.database import Database

_ENDPOINTS = """
SELECT * FROM webhook_endpoint WHERE tenant_id = $1 AND removed_at IS NULL ORDER BY endpoint_id
"""
_ENDPOINT = """
SELECT * FROM webhook_endpoint WHERE tenant_id = $1 AND endpoint_id = $2 AND removed_at IS NULL
"""
_DELIVERY = """
SELECT * FROM webhook_delivery WHERE tenant_id = $1 AND endpoint_id = $2 AND delivery_id = $3
"""
_DELIVERIES = """
SELECT * FROM webhook_delivery WHERE tenant_id = $1 AND endpoint_id = $2
  AND ($3::uuid IS NULL OR delivery_id < $3) ORDER BY delivery_id DESC LIMIT $4
"""
_MOST_DUE = 10_000
_TRIMMED_AT_ONCE = 1000
# No transaction lives so long that it could still tell an endpoint that was removed before.
_REMOVED_SECONDS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """An endpoint that has something due. `failing`: the last attempt to reach it failed."""

    tenant_id: TenantId
    endpoint_id: EndpointId
    failing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A delivery that this process may send until its lease is over."""

    tenant_id: TenantId
    endpoint_id: EndpointId
    delivery_id: DeliveryId
    claim: UUID
    body: bytes
    attempts: int  # with this one
    kek_id: str
    sealed: bytes = field(repr=False)


class Outcome(StrEnum):
    """What came of a turn."""

    DELIVERED = "delivered"
    RETRY = "retry"
    GONE = "gone"
    RELEASED = "released"  # it was not tried to the end: somebody else may at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What is written down of a turn. `delay_seconds` until the next one, for a retry."""

    outcome: Outcome
    status: int | None = None
    error: str | None = None
    delay_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxPulse:
    """How much waits to be told (counted to 100,000), for how long, and what was given up."""

    waiting: int
    oldest_seconds: float
    dead: int


class WebhookStore:
    """Endpoints and deliveries of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, made: SealedEndpoint, most: int) -> SealedEndpoint:
        """Store a new endpoint; from its commit on it is told. InvalidSubmissionError: too many.

        KeyRetiredError, LedgerUnavailableError: nothing was stored.
        """
        row = await self._row(
            "SELECT * FROM webhook_register($1, $2, $3, $4, $5, $6, $7)",
            made.tenant_id,
            made.endpoint_id,
            made.kek_id,
            made.sealed,
            [event.value for event in made.events],
            made.enabled,
            most,
        )
        if row is None:
            raise KeyRetiredError("an endpoint was not stored")
        return _endpoint(row)

    async def change(self, made: SealedEndpoint) -> SealedEndpoint | None:
        """Store it in the place of the version that it names; None when that is not the newest."""
        row = await self._row(
            "SELECT * FROM webhook_change($1, $2, $3, $4, $5, $6, $7)",
            made.tenant_id,
            made.endpoint_id,
            made.version,
            made.kek_id,
            made.sealed,
            [event.value for event in made.events],
            made.enabled,
        )
        return None if row is None else _endpoint(row)

    async def remove(self, tenant_id: TenantId, endpoint_id: EndpointId, version: int) -> bool:
        """Forget where it is and its secrets; False when that version is not the newest."""
        async with self._database.driver() as raw:
            found: bool = await raw.fetchval(
                "SELECT webhook_remove($1, $2, $3)", tenant_id, endpoint_id, version
            )
        return found

    async def endpoints(self, tenant_id: TenantId) -> list[SealedEndpoint]:
        """All of a tenant, oldest first."""
        async with self._database.snapshot(tenant_id) as raw:
            return [_endpoint(row) for row in await raw.fetch(_ENDPOINTS, tenant_id)]

    async def endpoint(self, tenant_id: TenantId, endpoint_id: EndpointId) -> SealedEndpoint | None:
        """One of a tenant."""
        async with self._database.snapshot(tenant_id) as raw:
            row = await raw.fetchrow(_ENDPOINT, tenant_id, endpoint_id)
        return None if row is None else _endpoint(row)

    async def delivery(
        self, tenant_id: TenantId, endpoint_id: EndpointId, delivery_id: DeliveryId
    ) -> Delivery | None:
        """One, while it is kept."""
        async with self._database.snapshot(tenant_id) as raw:
            row = await raw.fetchrow(_DELIVERY, tenant_id, endpoint_id, delivery_id)
        return None if row is None else _delivery(row)

    async def deliveries(
        self, tenant_id: TenantId, endpoint_id: EndpointId, before: DeliveryId | None, limit: int
    ) -> list[Delivery]:
        """The newest first."""
        async with self._database.snapshot(tenant_id) as raw:
            rows = await raw.fetch(_DELIVERIES, tenant_id, endpoint_id, before, limit)
        return [_delivery(row) for row in rows]

    async def test(self, tenant_id: TenantId, endpoint_id: EndpointId) -> Delivery | None:
        """Let the endpoint be told of nothing but itself; None when it is not enabled."""
        row = await self._row("SELECT * FROM webhook_test($1, $2)", tenant_id, endpoint_id)
        return None if row is None else _delivery(row)

    async def redeliver(
        self, tenant_id: TenantId, endpoint_id: EndpointId, delivery_id: DeliveryId
    ) -> Delivery | None:
        """Make it due now, whatever became of it; None when there is none."""
        ids = (tenant_id, endpoint_id, delivery_id)
        row = await self._row("SELECT * FROM webhook_redeliver($1, $2, $3)", *ids)
        return None if row is None else _delivery(row)

    async def due(self) -> list[Due]:
        """Which endpoints have something due."""
        async with self._database.driver() as raw:
            rows = await raw.fetch("SELECT * FROM webhook_due($1)", _MOST_DUE)
        return [
            Due(
                tenant_id=TenantId(_uuid(row["tenant_id"])),
                endpoint_id=EndpointId(_uuid(row["endpoint_id"])),
                failing=row["failing"],
            )
            for row in rows
        ]

    async def claim(
        self, tenant_id: TenantId, rooms: Mapping[EndpointId, int], claim: UUID, lease_seconds: int
    ) -> list[Turn]:
        """Take turns, at most so many for each endpoint; they are nobody else's in the lease."""
        async with self._database.driver() as raw:
            rows = await raw.fetch(
                "SELECT * FROM webhook_claim($1, $2, $3, $4, $5)",
                tenant_id,
                [*rooms],
                [*rooms.values()],
                claim,
                lease_seconds,
            )
        return [
            Turn(
                tenant_id=tenant_id,
                endpoint_id=EndpointId(_uuid(row["endpoint_id"])),
                delivery_id=DeliveryId(_uuid(row["delivery_id"])),
                claim=claim,
                body=row["body"].encode("utf-8"),
                attempts=row["attempts"],
                kek_id=row["kek_id"],
                sealed=row["sealed"],
            )
            for row in rows
        ]

    async def settle(self, turn: Turn, what: Settlement) -> bool:
        """Write down what came of a turn; False, and nothing done, when it is somebody else's."""
        async with self._database.driver() as raw:
            found: bool = await raw.fetchval(
                "SELECT webhook_settle($1, $2, $3, $4, $5, $6, $7)",
                turn.tenant_id,
                turn.delivery_id,
                turn.claim,
                what.outcome.value,
                what.status,
                what.error,
                what.delay_seconds,
            )
        return found

    async def pulse(self) -> OutboxPulse:
        """What the outbox holds, of all tenants: numbers alone."""
        async with self._database.driver() as raw:
            row = await raw.fetchrow("SELECT waiting, oldest_seconds, dead FROM webhook_pulse()")
        return OutboxPulse(waiting=row[0], oldest_seconds=row[1], dead=row[2])

    async def turn_key(self, tenant_id: TenantId, kek_id: str, successor: str) -> None:
        """When this returns nothing new is sealed under the KEK."""
        async with self._database.driver() as raw:
            ids = (tenant_id, kek_id, successor)
            await raw.execute("SELECT webhook_turn_key($1, $2, $3)", *ids)

    async def reseal(self, row: SealedEndpoint, kek_id: str, sealed: bytes) -> None:
        """Store the same content under another KEK, unless the endpoint was changed meanwhile."""
        ids = (row.tenant_id, row.endpoint_id, row.kek_id, row.version)
        await self._row("SELECT webhook_reseal($1, $2, $3, $4, $5, $6)", *ids, kek_id, sealed)

    async def key_ended(self, kek_id: str) -> None:
        """The KEK is no more: no receipt that is given from now on waits for it."""
        async with self._database.driver() as raw:
            await raw.execute("SELECT work_forget($1)", [kek_id])

    async def trim(self, retention: timedelta) -> bool:
        """Give up what had its time and remove what ended longer ago; whether more may be left."""
        async with self._database.driver() as raw:
            found: int = await raw.fetchval(
                "SELECT webhook_trim($1, $2, $3)",
                int(retention.total_seconds()),
                _REMOVED_SECONDS,
                _TRIMMED_AT_ONCE,
            )
        return found >= _TRIMMED_AT_ONCE

    async def _row(self, statement: str, *arguments: object) -> asyncpg.Record | None:
        try:
            async with self._database.driver() as raw:
                return await raw.fetchrow(statement, *arguments)
        except asyncpg.PostgresError as error:
            match error.sqlstate:
                case "MF020":
                    raise too_many_endpoints() from None
                case "MF007":
                    raise KeyRetiredError("a key was retired") from None
                case _:
                    raise


def too_many_endpoints() -> InvalidSubmissionError:
    """What a tenant is told that has as many as it may have."""
    return InvalidSubmissionError("/body", "the tenant has as many endpoints as it may have")


def _uuid(value: UUID) -> UUID:
    """Python's own, whatever the driver gave."""
    return UUID(bytes=value.bytes)


def _endpoint(row: asyncpg.Record) -> SealedEndpoint:
    known: Sequence[str] = [event.value for event in WebhookEvent]
    return SealedEndpoint(
        tenant_id=TenantId(_uuid(row["tenant_id"])),
        endpoint_id=EndpointId(_uuid(row["endpoint_id"])),
        events=tuple(WebhookEvent(name) for name in row["events"] if name in known),
        enabled=row["enabled"],
        reason=None if row["reason"] is None else DisabledReason(row["reason"]),
        version=row["version"],
        kek_id=row["kek_id"],
        sealed=row["sealed"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _delivery(row: asyncpg.Record) -> Delivery:
    return Delivery(
        delivery_id=DeliveryId(_uuid(row["delivery_id"])),
        endpoint_id=EndpointId(_uuid(row["endpoint_id"])),
        run_id=None if row["run_id"] is None else RunId(_uuid(row["run_id"])),
        type=row["type"],
        state=DeliveryState(row["state"]),
        attempts=row["attempts"],
        created_at=row["created_at"],
        attempted_at=row["attempted_at"],
        due_at=row["due_at"],
        ended_at=row["ended_at"],
        status=row["status"],
        error=row["error"],
    )
