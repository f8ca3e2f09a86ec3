"""The eraser by itself: it does what is asked, and ends old keys when their time has come."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from app.domain.erasure import ErasureId, ErasureReceipt, ErasureStatus
from app.domain.run import RunId
from app.erasing import eraser as eraser_module
from tests.integration.erasing.erasing_scene import WHY, Erasing, erasing_beside
from tests.security.tampering_scene import Run, finished_run
from tests.support.databases import DatabaseServer
from tests.support.live_server import LiveServer, live_server

pytestmark = pytest.mark.anyio
PATIENCE_SECONDS = 120
A_DAY = timedelta(hours=24)


@pytest.fixture
def live(postgres: DatabaseServer) -> Iterator[LiveServer]:
    with live_server(postgres.new_database()) as served:
        yield served


class Clock:
    """The eraser's clock, which the test moves."""

    def __init__(self, erasing: Erasing) -> None:
        eraser = erasing.at_work.eraser
        self._now = eraser._parts.now
        self._ahead = timedelta(0)
        self.looks = 0
        eraser._parts = replace(eraser._parts, now=self.now)

    def now(self) -> datetime:
        self.looks += 1
        return self._now() + self._ahead

    def move(self, by: timedelta) -> None:
        self._ahead += by

    async def looked(self, times: int) -> None:
        """Return when it was looked at so many times more."""
        until = self.looks + times
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.looks < until:  # noqa: ASYNC110 - the eraser tells nobody
                await asyncio.sleep(0.01)


@asynccontextmanager
async def at_work(erasing: Erasing) -> AsyncIterator[None]:
    task = asyncio.create_task(erasing.at_work.eraser.serve_forever())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def deleted(erasing: Erasing, run: Run) -> ErasureReceipt:
    asked = await erasing.parts.replay.delete_run(erasing.tenant_id, RunId(run.run_id), **WHY)
    return await reached(erasing, asked.request.erasure_id, ErasureStatus.PENDING)


async def reached(
    erasing: Erasing, erasure_id: ErasureId, *wanted: ErasureStatus
) -> ErasureReceipt:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            found = await erasing.parts.desk.receipt(erasing.tenant_id, erasure_id)
            if found.status in wanted:
                return found
            await asyncio.sleep(0.01)


async def test_keys_are_ended_on_schedule_and_not_before(
    live: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eraser_module, "POLL_SECONDS", 0.01)
    run = finished_run(live)
    async with erasing_beside(live, rotate_every=A_DAY) as erasing:
        clock = Clock(erasing)
        async with at_work(erasing):
            await clock.looked(3)  # the round at its start had nothing to end
            receipt = await deleted(erasing, run)
            await clock.looked(5)
            erasure_id = receipt.request.erasure_id
            now = await erasing.parts.desk.receipt(erasing.tenant_id, erasure_id)
            assert now.status is ErasureStatus.PENDING
            clock.move(A_DAY)
            await reached(erasing, erasure_id, ErasureStatus.COMPLETE)
