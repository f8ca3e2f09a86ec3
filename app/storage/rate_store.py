"""What all processes together counted of each key's requests in the running minute.

Threat: Unauthorised API access
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from app.domain.run import TenantId
from app.keys.request_rates import RequestRates, SharedUse
from app.storage.database import Database

_log = logging.getLogger("meshflow.storage")
SHARE_SECONDS = 1.0
_EXCHANGE = "SELECT minute, left_seconds, tenant_id, key_ref, used FROM rates_exchange($1, $2, $3)"


class RateStore:
    """The shared counts of one deployment. Nothing here is durable: a crash begins a new count."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def exchange(self, counted: Mapping[tuple[TenantId, str], int]) -> SharedUse | None:
        """Add what was counted since the last time, by tenant and fingerprint; learn the sums.

        None when nothing was counted, and nothing is asked, or when all tenants were deleted.
        LedgerUnavailableError.
        """
        if not counted:
            return None
        tenants, refs = zip(*counted, strict=True)
        async with self._database.driver() as raw:
            rows = await raw.fetch(_EXCHANGE, [*tenants], [*refs], [*counted.values()])
        if not rows:
            return None
        return SharedUse(
            minute=int(rows[0]["minute"]),
            left_seconds=int(rows[0]["left_seconds"]),
            used={str(row["key_ref"]): int(row["used"]) for row in rows},
        )

    async def share_forever(
        self, rates: RequestRates, tenants: Callable[[], Mapping[str, TenantId]]
    ) -> None:
        """Tell once a second how often each key asked here, and learn of all other processes."""
        while True:
            await asyncio.sleep(SHARE_SECONDS)
            ids = tenants()
            counted = rates.telling()
            known = {(ids[tenant], key): n for (tenant, key), n in counted.items() if tenant in ids}
            try:
                rates.learn(await self.exchange(known))
            except Exception as error:  # noqa: BLE001 - each process goes on counting by itself
                rates.learn(None)
                _log.warning("rates are not shared: %s", type(error).__name__)
