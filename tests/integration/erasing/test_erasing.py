"""Erasing takes away what it says, keeps the chain whole, and is refused where it must be."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest

from app.domain.erasure import ErasureStatus
from app.domain.errors import LedgerBrokenError, NotFoundError
from app.domain.run import OutputState, RunId
from app.keys.erasure_keys import publish_erasure_key
from app.keys.signing_keys import read_key_file
from app.ledger.header import FIELD_NUMBERS
from tests.integration.erasing.erasing_scene import WHY, erasing_beside
from tests.security.tampering_scene import Run, attack, disarm, finished_run
from tests.support.api_matrix import Gate, patiently, says, scripted
from tests.support.databases import DatabaseServer, Roles, execute
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
    assert [record.erased for record in after.chain.records][-1] == {"note", "output"}
    assert not any(record.erased for record in after.chain.records[:-1])
    for one, other in zip(before.chain.records, after.chain.records, strict=True):
        assert {**other.fields, **{name: one.fields[name] for name in other.erased}} == one.fields
    assert len(new) == len(old) - 2
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


async def test_all_content_goes_and_what_it_was_decided_on_may_stay(live: LiveServer) -> None:
    run = finished_run(live)
    async with erasing_beside(live) as erasing:
        receipt = await erasing.anonymize(run)
        again = await erasing.anonymize(run)
        dossier = await erasing.parts.replay.read_run(erasing.tenant_id, RunId(run.run_id))
        left = await erasing.rows("payload", run.run_id)
    assert {row["field"] for row in left} == {FIELD_NUMBERS["features"]}
    assert receipt.status is ErasureStatus.COMPLETE
    assert (again.status, again.reason) == (ErasureStatus.REFUSED, "nothing_left")
    assert all(record.fields.keys() <= {"features"} for record in dossier.chain.records)
    assert sum(len(record.erased) for record in dossier.chain.records) == 9


async def test_two_erasures_of_one_run_add_up(live: LiveServer) -> None:
    run = finished_run(live)
    async with erasing_beside(live) as erasing:
        await erasing.anonymize(run, ["task"])
        await erasing.anonymize(run, ["output", "task"])
        dossier = await erasing.parts.replay.read_run(erasing.tenant_id, RunId(run.run_id))
        erased = {name for record in dossier.chain.records for name in record.erased}
        assert erased == {"note", "output", "task"}
        await erasing.delete(run)
        assert (await erasing.parts.replay.remains(erasing.tenant_id, RunId(run.run_id))).records


async def test_a_hold_blocks_until_it_is_released(live: LiveServer) -> None:
    run = finished_run(live)
    async with erasing_beside(live) as erasing:
        desk, tenant, run_id = erasing.parts.desk, erasing.tenant_id, RunId(run.run_id)
        await desk.set_hold(tenant, run_id, "court_order", "operator")
        for receipt in (await erasing.anonymize(run), await erasing.delete(run)):
            assert (receipt.status, receipt.reason) == (ErasureStatus.REFUSED, "hold")
        await desk.release_hold(tenant, run_id, "released", "operator")
        assert (await erasing.delete(run)).status is ErasureStatus.COMPLETE


async def test_a_broken_run_is_not_erased_so_that_nothing_hides_it(
    postgres: DatabaseServer,
) -> None:
    with live_server(await asyncio.to_thread(postgres.new_database)) as live:
        run = await asyncio.to_thread(finished_run, live)
        await asyncio.to_thread(disarm, live.roles)
        forged = "UPDATE record SET kind = 'forged' WHERE run_id = $1 AND seq = 4"
        await asyncio.to_thread(attack, live.roles, forged, run.run_id)
        async with erasing_beside(live) as erasing:
            for receipt in (await erasing.anonymize(run), await erasing.delete(run)):
                assert (receipt.status, receipt.reason) == (ErasureStatus.REFUSED, "broken_at_4")
            asked = await erasing.parts.replay.delete_run(
                erasing.tenant_id, RunId(run.run_id), **WHY
            )
            forced = await erasing.at_work.eraser.execute(
                erasing.tenant_id, asked.request.erasure_id, forced="forced:operator"
            )
            assert (forced.status, forced.reason) == (ErasureStatus.COMPLETE, "forced:operator")


async def test_a_request_that_no_writer_signed_is_nobodys_wish(
    postgres: DatabaseServer,
) -> None:
    with live_server(await asyncio.to_thread(postgres.new_database)) as live:
        run = await asyncio.to_thread(finished_run, live)
        async with erasing_beside(live) as erasing:
            before = await erasing.rows("payload", run.run_id)
            asked = await erasing.parts.replay.anonymize_run(
                erasing.tenant_id, RunId(run.run_id), fields=["task"], **WHY
            )
            changed = "UPDATE erasure SET fields = '{task,output}' WHERE run_id = $1"
            await asyncio.to_thread(attack, live.roles, changed, run.run_id)
            receipt = await erasing.done(asked)
            assert (receipt.status, receipt.reason) == (ErasureStatus.REFUSED, "not_signed")
            assert len(await erasing.rows("payload", run.run_id)) == len(before)


UNDONE: dict[str, str] = {
    "a field": (
        "INSERT INTO payload SELECT tenant_id, run_id, seq, 6, blob FROM payload"
        " WHERE run_id = $1 AND seq = 0 AND field = 1"
    ),
    "the statement": "DELETE FROM record WHERE run_id = $2 AND seq = $3 AND $1::uuid IS NOT NULL",
    "its note": "DELETE FROM payload WHERE run_id = $2 AND seq = $3 AND $1::uuid IS NOT NULL",
}


@pytest.mark.parametrize("what", UNDONE)
async def test_what_comes_back_or_loses_its_statement_is_a_break(
    postgres: DatabaseServer, what: str
) -> None:
    with live_server(await asyncio.to_thread(postgres.new_database)) as live:
        run = await asyncio.to_thread(finished_run, live)
        async with erasing_beside(live) as erasing:
            receipt = await erasing.anonymize(run, ["output"])
            read = erasing.parts.replay.read_run
            assert (await read(erasing.tenant_id, RunId(run.run_id))).chain.is_erased
            await asyncio.to_thread(disarm, live.roles)
            statement = UNDONE[what]
            if what == "a field":
                place: tuple[object, ...] = (run.run_id,)
                statement = statement.replace("seq, 6", "8, 6")
            else:
                place = (run.run_id, receipt.record_run, receipt.record_seq)
            await asyncio.to_thread(attack, live.roles, statement, *place)
            with pytest.raises(LedgerBrokenError):
                await read(erasing.tenant_id, RunId(run.run_id))
        async with erasing_beside(live) as fresh:  # a process that never saw the statement
            with pytest.raises(LedgerBrokenError):
                await fresh.parts.replay.read_run(fresh.tenant_id, RunId(run.run_id))


async def test_a_header_that_is_gone_without_a_statement_is_a_break(
    postgres: DatabaseServer,
) -> None:
    with live_server(await asyncio.to_thread(postgres.new_database)) as live:
        run = await asyncio.to_thread(finished_run, live)
        await asyncio.to_thread(disarm, live.roles)
        emptied = "UPDATE record SET header = NULL, kind = NULL, ts = NULL, epoch = NULL"
        where = " WHERE run_id = $1 AND seq = 5"
        await asyncio.to_thread(attack, live.roles, emptied + where, run.run_id)
        async with erasing_beside(live) as erasing:
            with pytest.raises(LedgerBrokenError, match="seq 5"):
                await erasing.parts.replay.read_run(erasing.tenant_id, RunId(run.run_id))


async def test_a_statement_of_another_key_takes_nothing_away(live: LiveServer) -> None:
    """Who owns the database and even a writer's key, but not the erasure key."""
    run = finished_run(live)
    keys = live.keys
    async with erasing_beside(live) as erasing:
        (keys / "signing" / "erasure.pub").unlink()
        await erasing.anonymize(run, ["output"])
        with pytest.raises(LedgerBrokenError, match="gone without a recorded erasure"):
            await erasing.parts.replay.read_run(erasing.tenant_id, RunId(run.run_id))
        key = read_key_file(live.directory / "erasing" / "key", "erasure")
        publish_erasure_key(keys, key.public_key)
    async with erasing_beside(live) as fresh:
        dossier = await fresh.parts.replay.read_run(fresh.tenant_id, RunId(run.run_id))
        assert dossier.output_state is OutputState.ERASED


def test_a_run_that_is_under_way_is_not_erased(postgres: DatabaseServer) -> None:
    gate = Gate()
    overrides = scripted(says("done"), gate=gate)
    with live_server(postgres.new_database(), overrides) as live, live.client() as client:
        told = client.post("/v1/runs", json={"task": "wait"}).json()
        run = Run(public=told["id"], run_id=UUID(told["id"].removeprefix("run_")))
        assert gate.reached.wait(120)

        async def refused() -> None:
            async with erasing_beside(live) as erasing:
                for receipt in (await erasing.anonymize(run), await erasing.delete(run)):
                    assert (receipt.status, receipt.reason) == (
                        ErasureStatus.REFUSED,
                        "run_not_over",
                    )
                gone = await erasing.done(
                    await erasing.parts.replay.delete_tenant(erasing.tenant_id, **WHY)
                )
                assert (gone.status, gone.reason) == (ErasureStatus.REFUSED, "run_not_over")

        asyncio.run(refused())
        gate.open()
        for _ in patiently():
            if client.get(f"/v1/runs/{run.public}").json()["status"] == "succeeded":
                break


async def test_a_receipt_waits_for_the_key_of_the_working_copy_too(live: LiveServer) -> None:
    """A backup may hold the copy as it was while the run went on."""
    run = finished_run(live)
    async with erasing_beside(live, rotate_every=timedelta(hours=1)) as erasing:
        (work,) = await erasing.rows("run_work", run.run_id)
        await execute(live.roles.superuser, f"DELETE FROM run_result WHERE run_id = '{run.run_id}'")
        await erasing.delete(run)
        (receipt,) = [row for row in await erasing.rows("erasure") if row["run_id"] == run.run_id]
        assert work["kek_id"].startswith("work/")
        assert work["kek_id"] in receipt["kek_ids"]
        assert await erasing.rows("run_work", run.run_id) == []
