"""A key store that destroys later: a receipt is pending until no key is left that opens a copy."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from app.domain.erasure import ErasureReceipt, ErasureStatus
from app.domain.errors import KeyStoreError
from app.domain.run import RunId
from app.erasing.assembly import build_eraser, eraser_places
from app.keys.key_store import FileKeyStore
from app.ledger.sealing import RunSealer, SealError
from app.runs.run_keys import RunKeys
from tests.integration.erasing.erasing_scene import WHY, Erasing, erasing_beside
from tests.security.tampering_scene import Run, finished_run
from tests.support.databases import DatabaseServer
from tests.support.live_server import LiveServer, live_server, settings_for
from tests.support.scheduled_key_store import ScheduledKeyStore

pytestmark = pytest.mark.anyio

WEEK = timedelta(days=7)


@dataclass(slots=True)
class Clock:
    at: datetime

    def __call__(self) -> datetime:
        return self.at


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """An eraser whose key store takes its time."""

    erasing: Erasing
    store: ScheduledKeyStore
    clock: Clock

    async def delete(self, run: Run) -> ErasureReceipt:
        return await self.erasing.delete(run)

    async def anonymize(self, run: Run, fields: list[str]) -> ErasureReceipt:
        return await self.erasing.anonymize(run, fields)

    async def later(self, receipt: ErasureReceipt, wait: timedelta) -> ErasureReceipt:
        """The receipt after some time, once the eraser has looked at its keys again."""
        self.clock.at += wait
        await self.erasing.at_work.rotation.rotate()
        request = receipt.request
        return await self.erasing.parts.desk.receipt(request.tenant_id, request.erasure_id)


@asynccontextmanager
async def slow(
    live: LiveServer, delay_of: Callable[[str], timedelta] = lambda _: WEEK
) -> AsyncIterator[Slow]:
    clock = Clock(datetime.now(UTC))
    async with erasing_beside(live) as erasing:
        settings = settings_for(
            live.directory,
            live.roles,
            MESHFLOW_ERASER_DATABASE_URL=live.roles.eraser,
            MESHFLOW_LEDGER_KEY_DIR=str(live.keys),
            MESHFLOW_ERASURE_KEY_FILE=str(live.directory / "erasing" / "key"),
        )
        places = eraser_places(settings)
        assert places is not None
        store = ScheduledKeyStore(FileKeyStore(live.keys, os.urandom), clock, delay_of)
        shared = replace(
            erasing.parts.shared, keys=store, run_keys=RunKeys(store, os.urandom), now=clock
        )
        at_work = build_eraser(places, shared, rotate_every=timedelta(0))
        try:
            yield Slow(erasing=replace(erasing, at_work=at_work), store=store, clock=clock)
        finally:
            await at_work.database.close()


@pytest.fixture
async def live(postgres: DatabaseServer) -> AsyncIterator[LiveServer]:
    roles = await asyncio.to_thread(postgres.new_database)
    server = live_server(roles)
    yield await asyncio.to_thread(server.__enter__)
    await asyncio.to_thread(server.__exit__, None, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """What a backup holds of a run."""

    keys: FileKeyStore
    run: Run
    tenant: bytes
    wraps: list[Any]
    blobs: list[Any]

    @classmethod
    async def of(cls, live: LiveServer, erasing: Erasing, run: Run) -> "Copy":
        return cls(
            keys=FileKeyStore(live.keys, os.urandom),
            run=run,
            tenant=erasing.tenant_id.bytes,
            wraps=await erasing.rows("run_key", run.run_id),
            blobs=await erasing.rows("payload", run.run_id),
        )

    def opens(self) -> bool:
        """Whether somebody who holds every key that is left can read anything of it."""
        log, run = self.tenant, self.run.run_id.bytes
        for wrap in self.wraps:
            try:
                key = self.keys.unwrap(wrap["kek_id"], wrap["wrapped"], log + run)
                sealer = RunSealer(key, log=log, run=run)
                for blob in self.blobs:
                    sealer.open(seq=blob["seq"], field=blob["field"], blob=blob["blob"])
            except (KeyStoreError, SealError):
                continue
            return True
        return False


async def test_a_receipt_is_pending_until_the_store_says_that_the_key_is_gone(
    live: LiveServer,
) -> None:
    run = await asyncio.to_thread(finished_run, live)
    async with slow(live) as here:
        copy = await Copy.of(live, here.erasing, run)
        assert copy.opens()
        began = here.clock.at
        receipt = await here.delete(run)
        assert (receipt.status, receipt.completed_at) == (ErasureStatus.PENDING, None)
        assert receipt.due_at == began + WEEK
        for _ in range(3):
            receipt = await here.later(receipt, timedelta(days=2))
            assert (receipt.status, receipt.due_at) == (ErasureStatus.PENDING, began + WEEK)
            assert copy.opens(), "else there would be nothing to wait for"
        receipt = await here.later(receipt, timedelta(days=1))
        assert (receipt.status, receipt.due_at) == (ErasureStatus.COMPLETE, None)
        assert receipt.completed_at is not None
        assert receipt.completed_at >= began + WEEK
        assert not copy.opens()


async def test_what_is_not_erased_is_read_and_written_on_meanwhile(live: LiveServer) -> None:
    gone, kept = [await asyncio.to_thread(finished_run, live) for _ in range(2)]
    async with slow(live) as here:
        replay, tenant = here.erasing.parts.replay, here.erasing.tenant_id
        receipt = await here.delete(gone)
        for _ in range(2):
            assert (await replay.read_run(tenant, RunId(kept.run_id))).chain.records
            new = await asyncio.to_thread(finished_run, live)
            assert (await replay.read_run(tenant, RunId(new.run_id))).chain.records
            for row in await here.erasing.rows("run_key"):
                assert row["kek_id"] not in here.store.due, "wrapped under a key that is to die"
            receipt = await here.later(receipt, WEEK)
        assert receipt.status is ErasureStatus.COMPLETE


async def test_an_erasure_waits_for_every_key_that_ever_opened_the_run(live: LiveServer) -> None:
    """The first key of a run takes a week to die, its second one dies at once."""
    run = await asyncio.to_thread(finished_run, live)

    def delay_of(kek_id: str) -> timedelta:
        return WEEK if kek_id.startswith("ledger/") and "." not in kek_id else timedelta(0)

    async with slow(live, delay_of) as here:
        copy = await Copy.of(live, here.erasing, run)
        part = await here.anonymize(run, ["task"])
        assert part.status is ErasureStatus.PENDING
        whole = await here.delete(run)
        assert copy.opens()
        assert whole.status is ErasureStatus.PENDING, "a copy of the run still opens"
        assert (await here.later(whole, timedelta(days=6))).status is ErasureStatus.PENDING
        whole = await here.later(whole, timedelta(days=1))
        assert not copy.opens()
        assert whole.status is ErasureStatus.COMPLETE


async def test_a_process_that_knows_the_key_as_the_newest_takes_another_one(
    live: LiveServer,
) -> None:
    run = await asyncio.to_thread(finished_run, live)
    async with slow(live) as here:
        keys, tenant, other = (
            RunKeys(here.store, os.urandom),
            here.erasing.tenant_id,
            RunId(uuid4()),
        )
        _, before = keys.new_run_key(tenant, other, here.clock.at)
        await here.delete(run)
        assert before.kek_id in here.store.due
        key, after = keys.new_run_key(tenant, other, here.clock.at)
        assert after.kek_id not in here.store.due
        assert keys.open(tenant, other, after) == key


async def test_a_tenant_is_gone_when_the_last_of_its_keys_is(live: LiveServer) -> None:
    await asyncio.to_thread(finished_run, live)
    async with slow(live) as here:
        began = here.clock.at
        asked = await here.erasing.parts.replay.delete_tenant(here.erasing.tenant_id, **WHY)
        receipt = await here.erasing.done(asked)
        assert (receipt.status, receipt.due_at) == (ErasureStatus.PENDING, began + WEEK)
        assert (await here.later(receipt, timedelta(days=6))).status is ErasureStatus.PENDING
        assert (await here.later(receipt, timedelta(days=1))).status is ErasureStatus.COMPLETE
