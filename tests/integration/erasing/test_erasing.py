"""Erasing takes away what it says, keeps the chain whole, and is refused where it must be."""

from collections.abc import Iterator

import pytest

from app.domain.erasure import ErasureStatus
from app.domain.errors import NotFoundError
from app.domain.run import OutputState, RunId
from tests.integration.erasing.erasing_scene import erasing_beside
from tests.security.tampering_scene import finished_run
from tests.support.databases import Roles
from tests.support.live_server import LiveServer, live_server

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def live(roles: Roles) -> Iterator[LiveServer]:
    with live_server(roles) as served:
        yield served


async def test_one_field_goes_and_the_rest_is_read_under_a_new_key(live: LiveServer) -> None:
    run = finished_run(live)
    async with erasing_beside(live) as erasing:
        before = await erasing.parts.replay.read_run(erasing.tenant_id, RunId(run.run_id))
        old = await erasing.rows("payload", run.run_id)
        receipt = await erasing.anonymize(run, ["output"])
        assert (receipt.status, receipt.reason) == (ErasureStatus.COMPLETE, None)
        after = await erasing.parts.replay.read_run(
            erasing.tenant_id, RunId(run.run_id), with_output=True
        )
        new = await erasing.rows("payload", run.run_id)
        assert await erasing.rows("run_result", run.run_id) == []
    assert after.chain.head == before.chain.head
    assert (after.output, after.output_state) == (None, OutputState.ERASED)
    assert [record.erased for record in after.chain.records][-1] == {"output"}
    assert not any(record.erased for record in after.chain.records[:-1])
    for one, other in zip(before.chain.records, after.chain.records, strict=True):
        assert {**other.fields, **{name: one.fields[name] for name in other.erased}} == one.fields
    assert len(new) == len(old) - 1
    assert not {row["blob"] for row in old} & {row["blob"] for row in new}


async def test_of_a_deleted_run_the_hashes_stay_and_nothing_else(live: LiveServer) -> None:
    run = finished_run(live)
    async with erasing_beside(live) as erasing:
        chain = (await erasing.parts.replay.read_run(erasing.tenant_id, RunId(run.run_id))).chain
        receipt = await erasing.delete(run)
        assert receipt.status is ErasureStatus.COMPLETE
        with pytest.raises(NotFoundError):
            await erasing.parts.replay.read_run(erasing.tenant_id, RunId(run.run_id))
        left = await erasing.parts.replay.remains(erasing.tenant_id, RunId(run.run_id))
        for table in ("payload", "run_key", "run_result", "run_command", "runs"):
            assert await erasing.rows(table, run.run_id) == [], table
        rows = await erasing.rows("record", run.run_id)
    assert (left.records, left.head.chain) == (9, chain.head.chain)
    assert {(r["header"], r["kind"], r["ts"], r["epoch"]) for r in rows} == {(None,) * 4}
