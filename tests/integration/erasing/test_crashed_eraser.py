"""An eraser that died before its commit has erased nothing, whatever its journal holds."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from app.domain.erasure import ErasureId, ErasureStatus
from app.domain.run import JsonObject, RunId, TenantId
from app.erasing.erasure_journal import ErasureJournal
from tests.integration.erasing.erasing_scene import WHY, erasing_beside
from tests.security.tampering_scene import finished_run
from tests.support.databases import Roles
from tests.support.live_server import LiveServer, live_server

pytestmark = pytest.mark.anyio


class DiedError(Exception):
    """The process ended."""


class LastWords(ErasureJournal):
    """A journal whose process dies once the entry is on the disk."""

    def append(self, erasure_id: ErasureId, tenant_id: TenantId, note: JsonObject) -> None:
        super().append(erasure_id, tenant_id, note)
        raise DiedError


@pytest.fixture(scope="module")
def live(roles: Roles) -> Iterator[LiveServer]:
    with live_server(roles) as served:
        yield served


async def test_what_was_refused_after_a_crash_is_not_erased_by_the_journal_later(
    live: LiveServer,
) -> None:
    """The request met a hold when it was looked at again: the journal must not outlive that."""
    run = await asyncio.to_thread(finished_run, live)
    async with erasing_beside(live) as erasing:
        eraser, tenant, run_id = erasing.at_work.eraser, erasing.tenant_id, RunId(run.run_id)
        whole = eraser._parts
        path = live.directory / "erasing" / "erasures.jsonl"
        eraser._parts = replace(whole, journal=LastWords(path))
        asked = await erasing.parts.replay.delete_run(tenant, run_id, **WHY)
        with pytest.raises(DiedError):
            await eraser.execute_waiting()
        eraser._parts = whole
        await erasing.parts.desk.set_hold(tenant, run_id, "court_order", "operator")
        receipt = await erasing.done(asked)
        assert (receipt.status, receipt.reason) == (ErasureStatus.REFUSED, "hold")
        assert await eraser.replay() == 0
        await erasing.parts.desk.release_hold(tenant, run_id, "released", "operator")
        assert await eraser.replay() == 0
        assert (await erasing.parts.replay.read_run(tenant, run_id)).chain.records
