"""What a process of any kind tells of itself and of the deployment: built once, by hand."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.api.metrics_pulse import MetricsPulse
from app.ledger_assembly import LedgerParts
from app.log_keeping import KeeperOfLogs, vitals_of
from app.storage.webhook_store import WebhookStore
from app.telemetry.metrics_server import MetricsServer


def pulse_of(parts: LedgerParts, keeper: KeeperOfLogs | None) -> MetricsPulse:
    """Brings the figures of the database, whatever this process does."""
    outbox = WebhookStore(parts.database)
    return MetricsPulse(
        vitals_of(parts, keeper), parts.runs.loads, outbox.pulse, monotonic=time.monotonic
    )


@asynccontextmanager
async def metrics_told(listener: socket.socket | None, pulse: MetricsPulse) -> AsyncIterator[None]:
    """Answer scrapers for as long as this lasts; nobody, where no port is named."""
    if listener is None:
        yield
        return
    telling = asyncio.create_task(MetricsServer(pulse.refresh).serve(listener))
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.wait([telling])
