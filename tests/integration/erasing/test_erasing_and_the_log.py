"""The log of a tenant goes on over what was erased, and says how long it was when it is gone."""

import asyncio
from collections.abc import Iterator

import pytest

from app.domain.erasure import ErasureStatus
from app.domain.run import RunId
from tests.integration.erasing.erasing_scene import WHY, Erasing, erasing_beside
from tests.security.tampering_scene import finished_run
from tests.support.databases import DatabaseServer
from tests.support.live_server import LiveServer, live_server

pytestmark = pytest.mark.anyio


@pytest.fixture
def live(postgres: DatabaseServer) -> Iterator[LiveServer]:
    """A server that sequences too."""
    roles = postgres.new_database()
    with live_server(roles, MESHFLOW_SEQUENCER_DATABASE_URL=roles.sequencer) as served:
        yield served


async def _signed(erasing: Erasing, at_least: int) -> int:
    """The size of the newest checkpoint once it covers so many records."""
    for _ in range(600):
        rows = await erasing.rows("checkpoint")
        size = max((int(row["size"]) for row in rows), default=0)
        if size >= at_least:
            return size
        await asyncio.sleep(0.1)
    raise AssertionError("no checkpoint came")


async def test_the_log_goes_on_over_a_deleted_run(live: LiveServer) -> None:
    run = await asyncio.to_thread(finished_run, live)
    async with erasing_beside(live) as erasing:
        before = await _signed(erasing, 9)
        assert (await erasing.delete(run)).status is ErasureStatus.COMPLETE
        leaves = await erasing.rows("leaf", run.run_id)
        assert sorted(row["seq"] for row in leaves) == list(range(9))
        await asyncio.to_thread(finished_run, live)
        # The run, the administration run's two records, and the second run.
        assert await _signed(erasing, before + 11) == 9 + 2 + 9
        left = await erasing.parts.replay.remains(erasing.tenant_id, RunId(run.run_id))
        assert left.records == 9


async def test_the_record_of_a_deleted_tenant_holds_its_last_checkpoint(live: LiveServer) -> None:
    await asyncio.to_thread(finished_run, live)
    async with erasing_beside(live) as erasing:
        size = await _signed(erasing, 9)
        newest = max(await erasing.rows("checkpoint"), key=lambda row: row["size"])
        asked = await erasing.parts.replay.delete_tenant(erasing.tenant_id, **WHY)
        receipt = await erasing.done(asked)
        assert (receipt.status, receipt.reason) == (ErasureStatus.COMPLETE, None)
        keys = erasing.at_work.eraser._parts.erasure_keys()
        (entry,) = erasing.at_work.eraser._parts.journal.entries(keys)
        assert entry.statement.checkpoint == newest["note"]
        assert str(size) in newest["note"].splitlines()
        for table in ("leaf", "tile", "checkpoint", "log_head"):
            assert await erasing.rows(table) == [], table
    with live.client("other") as client:  # the sequencer lives on
        answer = client.post("/v1/runs", json={"task": "1+1"}, headers={"Prefer": "wait=20"})
    assert answer.json()["status"] == "succeeded"
    async with erasing_beside(live, tenant="other") as erasing:
        assert await _signed(erasing, 5) >= 5
