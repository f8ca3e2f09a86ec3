"""Who kept a key that gave way vouches for nothing with it any more, and erases nothing.

Threat: Ledger tampering
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from app.audit.sweep import Pins, Sweep
from app.audit.sweep_report import LogReport
from app.domain.erasure import ErasureStatus
from app.domain.errors import (
    KeyStoreError,
    LedgerBrokenError,
    NotSequencedError,
    RotationRefusedError,
)
from app.keys.erasure_keys import NAME
from app.keys.signing_keys import ENROLMENT, SigningKey, read_key_file
from app.offline.offline_policy import parse_policy as offline_policy
from app.offline.offline_report import Result
from app.offline.offline_verdict import verify_bundle
from app.sequencing.sequencer import Sequencer
from app.storage.database import Database
from app.storage.sequencer_store import leading
from app.transparency.checkpoint import Checkpoint, sign_checkpoint
from app.transparency.witness_policy import parse_policy
from tests.integration.erasing.erasing_scene import WHY
from tests.integration.states.deployment import Seat
from tests.integration.states.upheavals import LedgerUpheavals
from tests.support.databases import DatabaseServer, Roles

Story = Callable[[LedgerUpheavals], Awaitable[None]]


@asynccontextmanager
async def _scene(roles: Roles, directory: Path) -> AsyncIterator[LedgerUpheavals]:
    """Two tenants; three runs, of which two are over; all of it witnessed."""
    acts = LedgerUpheavals()
    await acts.open(roles, directory)
    try:
        for tenant in (0, 0, 1):
            await acts.begin(acts.seats[0], tenant)
        for run in acts.runs[:2]:
            await acts.record(run, acts.turns(run, 1))
            await acts.finish(run, speaks=True)
        await acts.sequence()
        yield acts
    finally:
        await acts.place.close()


def _erasure_key(acts: LedgerUpheavals) -> SigningKey:
    return read_key_file(acts.place._directory / "erasing" / "key", NAME)


def _erase_with(acts: LedgerUpheavals, key: SigningKey) -> None:
    eraser = acts.place.eraser.eraser
    eraser._parts = replace(eraser._parts, signing=lambda: nullcontext(key))


async def _seat_under(acts: LedgerUpheavals, key: SigningKey) -> Seat:
    """A process whose writer this enrolment key certified, whatever the present one is."""
    other = await acts.place.seat(certifying=lambda: nullcontext(key))
    acts.seats.append(other)
    return other


async def _ticked(acts: LedgerUpheavals) -> None:
    """Everything is integrated that can be."""
    parts = acts.place._keeping
    operator = await parts.admin_log.operator_log_id()
    async with leading(parts.database, operator) as leader:
        assert leader is not None
        sequencer = await Sequencer.start(leader, await parts.enrolment(), parts.origin_of)
        while (await sequencer.tick()).has_more:
            pass


async def _swept(acts: LedgerUpheavals, policy: bytes) -> list[LogReport]:
    """The audit of somebody who pins this, and was given the key of the operator log."""
    database = Database(acts.place.roles.audit, pool_size=1)
    key = await acts.place.office.admin_log.operator_key()
    try:
        return await Sweep(database, Pins.of(parse_policy(policy)), lambda *_: None, key).run(None)
    finally:
        await database.close()


async def _a_late_writer_is_left_out(acts: LedgerUpheavals) -> None:
    old = acts.place.office.signing.current(ENROLMENT)
    await acts.rotate_enrolment_key()
    late = await _seat_under(acts, old)
    await acts.begin(late, 0)
    run = acts.runs[-1]
    replay = acts.place.office.replay
    with pytest.raises(LedgerBrokenError, match="enrolment key that had given way"):
        await replay.read_run(run.tenant_id, run.run_id)
    await _ticked(acts)
    rows = await acts.place.superuser.fetch("SELECT run_id, reason FROM left_out")
    assert [(row["run_id"], row["reason"]) for row in rows] == [
        (run.run_id, "the writer of a batch is not certified")
    ]
    for kept in acts.runs[:2]:
        await acts.read(kept, acts.seats[0])


async def _a_late_writer_asks_for_no_erasure(acts: LedgerUpheavals) -> None:
    old = acts.place.office.signing.current(ENROLMENT)
    await acts.rotate_enrolment_key()
    late = await _seat_under(acts, old)
    run = acts.runs[0]
    asked = await late.parts.replay.delete_run(run.tenant_id, run.run_id, **WHY)
    await acts.place.eraser.eraser.execute_waiting()
    now = await late.parts.desk.receipt(run.tenant_id, asked.request.erasure_id)
    assert (now.status, now.reason) == (ErasureStatus.REFUSED, "not_signed")
    await acts.read(run, acts.seats[0])


async def _while_an_erasure_waits_the_enrolment_key_stays(acts: LedgerUpheavals) -> None:
    """The writer that signed the request would count no more."""
    await acts.erase(acts.runs[0], frozenset({"task"}), crashes=True)
    await acts.place.office.enrolment.leave()
    for seat in acts.seats:
        await seat.parts.enrolment.leave()
    before = acts.place.office.signing.names(ENROLMENT)
    with pytest.raises(RotationRefusedError, match="1 requests to erase wait"):
        await acts.place.rotate_enrolment_key(gone_seconds=900.0)
    assert acts.place.office.signing.names(ENROLMENT) == before
    await acts.place.move_out(says_goodbye=False)
    await acts.place.open()
    acts.seats = [await acts.place.seat()]
    await acts.restart_eraser()
    await acts.rotate_enrolment_key()
    await acts.read(acts.runs[0], acts.seats[0])


async def _a_reader_of_the_old_key_can_follow(acts: LedgerUpheavals) -> None:
    """No bundle is given before its record of the change is covered; then old pins are enough."""
    pins = await acts.place.policy()
    await acts.rotate_enrolment_key()
    await acts.begin(acts.seats[0], 0)
    run = acts.runs[-1]
    await acts.record(run, acts.turns(run, 1))
    await acts.finish(run, speaks=True)
    exports = acts.place.office.exports
    with pytest.raises(NotSequencedError):
        await exports.bundle(run.tenant_id, run.run_id)
    await acts.rotate_erasure_key()
    await acts.erase(run, frozenset({"reply"}), crashes=False)
    await acts.sequence()
    for item in (run, acts.runs[0]):
        bundle = await exports.bundle(item.tenant_id, item.run_id)
        report = verify_bundle(bundle, offline_policy(pins))
        assert report.result is Result.VALID, report.findings


async def _a_reader_is_told_of_a_tenant_that_the_new_key_deleted(acts: LedgerUpheavals) -> None:
    pins = await acts.place.policy()
    await acts.rotate_erasure_key()
    await acts.wind_up(0)
    await acts.delete_tenant(0)
    await acts.sequence()
    reports = await _swept(acts, pins)
    assert not [report.findings for report in reports if report.broken or report.unstored]


async def _no_tenant_goes_by_the_old_key(acts: LedgerUpheavals) -> None:
    old = _erasure_key(acts)
    await acts.rotate_erasure_key()
    _erase_with(acts, old)
    await acts.wind_up(0)
    await acts.delete_tenant(0)
    await _ticked(acts)
    await _is_refused(acts, "erasure key that had given way signed a deletion")


async def _no_tenant_goes_with_a_checkpoint_that_nobody_signed(acts: LedgerUpheavals) -> None:
    forged = await _forged_checkpoint(acts)

    async def any_checkpoint(*_: object, **__: object) -> str:
        return forged

    acts.place.eraser.eraser._parts.planner._checked = any_checkpoint  # type: ignore[method-assign]
    await acts.wind_up(0)
    await acts.delete_tenant(0)
    await _ticked(acts)
    await _is_refused(acts, "the checkpoint of a deletion does not hold: no key of this deployment")


async def _is_refused(acts: LedgerUpheavals, reason: str) -> None:
    """An auditor is told why a deletion does not count, and the leader halts over the lost log."""
    told = [
        finding.reason
        for report in await _swept(acts, await acts.place.policy())
        for finding in report.findings
    ]
    assert any(reason in item for item in told), told
    with pytest.raises(AssertionError):  # the leader finds that a log is gone, and halts
        await acts.sequence()
    halted = await acts.place.superuser.fetchval(
        "SELECT halted FROM tenants WHERE halted IS NOT NULL"
    )
    assert halted is not None


async def _no_statement_names_a_checkpoint_that_nobody_signed(acts: LedgerUpheavals) -> None:
    first, second, _ = acts.runs
    forged = await _forged_checkpoint(acts)
    await acts.place.superuser.execute(
        "INSERT INTO checkpoint (tenant_id, origin, size, root, note, created_at)"
        " SELECT tenant_id, origin, size + 1, root, $2, now() + interval '1 hour'"
        " FROM checkpoint WHERE tenant_id = $1 ORDER BY size DESC LIMIT 1",
        first.tenant_id,
        forged,
    )
    desk, replay = acts.place.office.desk, acts.place.office.replay
    eraser = acts.place.eraser.eraser
    asked = await replay.delete_run(first.tenant_id, first.run_id, **WHY)
    await eraser.execute_waiting()
    now = await desk.receipt(first.tenant_id, asked.request.erasure_id)
    assert (now.status, now.reason) == (ErasureStatus.REFUSED, "broken_checkpoint")
    forced = await replay.delete_run(first.tenant_id, first.run_id, **WHY)
    await eraser.execute(first.tenant_id, forced.request.erasure_id, forced="forced_erasure")
    await _take_away(acts, forged)
    left = await replay.remains(first.tenant_id, first.run_id)
    assert left.records == len(first.records)

    async def any_checkpoint(*_: object, **__: object) -> str:
        return forged  # what an eraser says that somebody else wrote

    eraser._parts.planner._checked = any_checkpoint  # type: ignore[method-assign]
    asked = await replay.anonymize_run(second.tenant_id, second.run_id, fields=["task"], **WHY)
    await eraser.execute_waiting()
    for read in (replay.read_run, replay.evidence):
        with pytest.raises(LedgerBrokenError, match="checkpoint in a statement does not hold"):
            await read(second.tenant_id, second.run_id)


async def _forged_checkpoint(acts: LedgerUpheavals) -> str:
    """Of the log, of a size that it has, by a key that is none of this deployment's."""
    row = await acts.place.superuser.fetchrow(
        "SELECT origin, size, root FROM checkpoint WHERE tenant_id = $1 ORDER BY size DESC LIMIT 1",
        acts.tenants[0],
    )
    said = Checkpoint(origin=row["origin"], size=row["size"], root=row["root"])
    return sign_checkpoint(said, b"f" * 32).decode()


async def _take_away(acts: LedgerUpheavals, note: str) -> None:
    sql = acts.place.superuser
    await sql.execute("ALTER TABLE checkpoint DISABLE TRIGGER ALL")
    await sql.execute("DELETE FROM checkpoint WHERE note = $1", note)


async def _a_writer_of_which_nobody_knows_starts_again(acts: LedgerUpheavals) -> None:
    """Its first registration may have come through under the key that has given way since."""
    parts = (await acts.place.seat()).parts
    await parts.enrolment.leave()
    await acts.rotate_enrolment_key()
    with pytest.raises(KeyStoreError, match="rotated meanwhile"):
        await parts.enrolment.register()


@pytest.mark.parametrize(
    "story",
    [
        _a_late_writer_is_left_out,
        _a_late_writer_asks_for_no_erasure,
        _while_an_erasure_waits_the_enrolment_key_stays,
        _a_reader_of_the_old_key_can_follow,
        _a_reader_is_told_of_a_tenant_that_the_new_key_deleted,
        _no_tenant_goes_by_the_old_key,
        _no_tenant_goes_with_a_checkpoint_that_nobody_signed,
        _no_statement_names_a_checkpoint_that_nobody_signed,
        _a_writer_of_which_nobody_knows_starts_again,
    ],
    ids=lambda story: story.__name__.strip("_"),
)
def test_so_it_is(postgres: DatabaseServer, tmp_path: Path, story: Story) -> None:
    async def told(roles: Roles) -> None:
        async with _scene(roles, tmp_path) as acts:
            await story(acts)

    asyncio.run(told(postgres.new_database()))
