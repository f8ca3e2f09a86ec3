"""The rows of idempotency keys: what each began, for 24 hours. Digests come in, never a key."""

from uuid import UUID

import asyncpg

from app.domain.errors import KeyBusyError
from app.domain.idempotency import Begun, KeyClaim, Outcome, StoredKey
from app.domain.run import RunId, TenantId
from app.storage.database import Database

# Longer than any request takes that is answered; after it the process has died.
LEASE_SECONDS = 60
_TRIMMED_AT_ONCE = 5_000
_BEGIN = """
SELECT state, key_digest, request_digest, run_id, status, told
FROM idempotency_begin($1, $2, $3, $4)
"""


class IdempotencyStore:
    """Idempotency keys of one deployment."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, tenant_id: TenantId, claim: KeyClaim) -> StoredKey | None:
        """What the key began in the last 24 hours, or None."""
        found = await self._asked(tenant_id, claim, None)
        return found if isinstance(found, StoredKey) else None

    async def begin(self, tenant_id: TenantId, claim: KeyClaim) -> Begun | StoredKey:
        """Take the key for this request; durable on return. KeyBusyError.

        A first request whose process died before it was answered gives way after a minute.
        """
        found = await self._asked(tenant_id, claim, LEASE_SECONDS)
        if found is None:
            raise KeyBusyError
        return found

    async def end(self, tenant_id: TenantId, begun: Begun, outcome: Outcome | None) -> None:
        """Say how it ended; None: nothing was done, and the key is free again."""
        status = None if outcome is None else outcome.status
        run_id = None if outcome is None else outcome.run_id
        told = None if outcome is None else outcome.told
        async with self._database.driver() as raw:
            await raw.execute(
                "SELECT idempotency_end($1, $2, $3, $4, $5)",
                tenant_id,
                begun.key,
                run_id,
                status,
                told,
            )

    async def trim(self) -> int:
        """Remove what is older than 24 hours; how many keys those were."""
        count = 0
        while True:
            async with self._database.driver() as raw:
                gone: int = await raw.fetchval("SELECT idempotency_trim($1)", _TRIMMED_AT_ONCE)
            count += gone
            if gone < _TRIMMED_AT_ONCE:
                return count

    async def _asked(
        self, tenant_id: TenantId, claim: KeyClaim, lease_seconds: int | None
    ) -> Begun | StoredKey | None:
        async with self._database.driver() as raw:
            row = await raw.fetchrow(
                _BEGIN, tenant_id, list(claim.keys), list(claim.requests), lease_seconds
            )
        if row is None or row["key_digest"] is None:
            return None
        return Begun(key=row["key_digest"]) if row["state"] == "begun" else _stored(row)


def _stored(row: asyncpg.Record) -> StoredKey:
    run_id = row["run_id"]
    outcome = None
    if row["state"] == "known":
        outcome = Outcome(
            status=row["status"],
            run_id=None if run_id is None else RunId(UUID(bytes=run_id.bytes)),
            told=row["told"],
        )
    return StoredKey(key=row["key_digest"], request=row["request_digest"], outcome=outcome)
