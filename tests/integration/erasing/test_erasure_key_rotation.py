"""The erasure key gives way between two erasures; what it signed holds, what it signs does not."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from app.domain.erasure import ErasureStatus
from app.domain.errors import KeyStoreError, LedgerBrokenError, RotationRefusedError
from app.domain.run import OutputState, RunId
from app.keys.erasure_keys import ErasureKeyFile, publish_erasure_key
from app.offline.offline_policy import parse_policy
from app.offline.offline_report import Result
from app.offline.offline_verdict import verify_bundle
from app.sequencing.erasure_rotation import ErasureRotation
from app.sequencing.log_names import log_origin
from app.sequencing.settling import Settling
from app.storage.database import Database
from tests.e2e.server_process import run_command, surroundings
from tests.integration.erasing.erasing_scene import Erasing, erasing_beside
from tests.security.tampering_scene import Run, finished_run
from tests.support.databases import DatabaseServer
from tests.support.live_server import LiveServer, live_server

pytestmark = pytest.mark.anyio


@pytest.fixture
def live(postgres: DatabaseServer) -> Iterator[LiveServer]:
    """A server that sequences too."""
    roles = postgres.new_database()
    with live_server(roles, MESHFLOW_SEQUENCER_DATABASE_URL=roles.sequencer) as served:
        yield served


def _file(live: LiveServer) -> ErasureKeyFile:
    return ErasureKeyFile(live.directory / "erasing" / "key", os.urandom)


@asynccontextmanager
async def _rotation(live: LiveServer, erasing: Erasing) -> AsyncIterator[ErasureRotation]:
    database = Database(live.roles.sequencer, pool_size=2)
    book = erasing.parts.logs.book
    try:
        yield ErasureRotation(
            admin_log=erasing.parts.admin_log,
            file=_file(live),
            publish=partial(publish_erasure_key, live.keys),
            recorded=book.rotations,
            settling=Settling(
                database=database,
                enrolment=book.enrolment_in_force,
                origin_of=partial(log_origin, "meshflow.local"),
            ),
        )
    finally:
        await database.close()


async def _bundle(erasing: Erasing, run: Run) -> bytes:
    """The bundle, once a checkpoint covers the erasure."""
    for _ in range(600):
        try:
            return await erasing.parts.exports.bundle(erasing.tenant_id, RunId(run.run_id))
        except Exception as error:  # noqa: BLE001 - tried again until it is sequenced
            last = error
            await asyncio.sleep(0.1)
    raise last


async def test_what_the_old_key_signed_holds_and_it_signs_no_more(
    live: LiveServer, tmp_path: Path
) -> None:
    runs = [await asyncio.to_thread(finished_run, live) for _ in range(4)]
    environ = surroundings(
        tmp_path / "data",
        MESHFLOW_DATABASE_URL=live.roles.app,
        MESHFLOW_SEQUENCER_DATABASE_URL=live.roles.sequencer,
        MESHFLOW_LEDGER_KEY_DIR=str(live.keys),
        MESHFLOW_ERASURE_KEY_FILE=str(live.directory / "erasing" / "key"),
    )
    rotate = ("ledger", "rotate-key", "erasure")
    async with erasing_beside(live) as erasing:
        old, pins = _file(live).current(), await erasing.parts.key_lister.policy()
        first = await erasing.anonymize(runs[0], ["output"])
        with _file(live).signing():
            refused = await asyncio.to_thread(run_command, *rotate, environ=environ)
        assert refused.code == 1
        assert "another process signs with the erasure key" in refused.err
        done = await asyncio.to_thread(run_command, *rotate, environ=environ)
        assert done.code == 0, done.err
        new = _file(live).current()
        assert f"old  {old.public_key.hex()}\nnew  {new.public_key.hex()}\n" in done.out
        assert done.out.count("#meshflow/v1 erasure") == 2
        # This process goes on, and signs with the new one.
        assert (await erasing.anonymize(runs[1], ["output"])).status is ErasureStatus.COMPLETE
        for run in runs[:2]:
            read = await erasing.parts.replay.read_run(
                erasing.tenant_id, RunId(run.run_id), anew=True
            )
            assert read.output_state is OutputState.ERASED
            # Who pins the old key alone trusts the new one by the record of the change.
            report = verify_bundle(await _bundle(erasing, run), parse_policy(pins.encode()))
            assert report.result is Result.INCOMPLETE, report.findings
        again = await erasing.parts.desk.receipt(first.request.tenant_id, first.request.erasure_id)
        assert again == first
        assert await erasing.at_work.eraser.replay() == 0

        eraser = erasing.at_work.eraser
        eraser._parts = replace(eraser._parts, signing=lambda: nullcontext(old))
        await erasing.anonymize(runs[2], ["output"])
        with pytest.raises(LedgerBrokenError, match="erasure key that had given way"):
            await erasing.parts.replay.read_run(erasing.tenant_id, RunId(runs[2].run_id))
        await erasing.delete(runs[3])
        with pytest.raises(LedgerBrokenError, match="erasure key that had given way"):
            await erasing.parts.replay.remains(erasing.tenant_id, RunId(runs[3].run_id))


async def test_a_rotation_that_was_cut_short_is_finished_and_recorded_once(
    live: LiveServer,
) -> None:
    run = await asyncio.to_thread(finished_run, live)

    class Crash(Exception):  # noqa: N818 - the process is gone
        pass

    class Dying(ErasureKeyFile):
        def swap(self) -> None:
            raise Crash

    async with erasing_beside(live) as erasing, _rotation(live, erasing) as rotation:
        dying = Dying(live.directory / "erasing" / "key", os.urandom)
        with pytest.raises(Crash):
            await replace(rotation, file=dying).rotate()
        asked = await erasing.anonymize(run, ["output"])
        assert asked.executed_at is None, "something was signed by a key that had given way"
        with pytest.raises(KeyStoreError, match="not finished"), _file(live).signing():
            pass
        change = await rotation.rotate()
        assert [item.new for item in await erasing.parts.logs.book.rotations()] == [change.new]
        assert _file(live).current().public_key == change.new
        done = await erasing.done(asked)
        assert done.status is ErasureStatus.COMPLETE
        read = await erasing.parts.replay.read_run(erasing.tenant_id, RunId(run.run_id))
        assert read.output_state is OutputState.ERASED


@pytest.fixture
def unsequenced(postgres: DatabaseServer) -> Iterator[LiveServer]:
    with live_server(postgres.new_database()) as served:
        yield served


async def test_while_records_have_no_place_the_key_stays(unsequenced: LiveServer) -> None:
    live = unsequenced
    run = await asyncio.to_thread(finished_run, live)
    async with erasing_beside(live) as erasing, _rotation(live, erasing) as rotation:
        await erasing.anonymize(run, ["output"])
        before = _file(live).current().public_key
        held = Database(live.roles.app, pool_size=1)
        async with held.driver() as raw, raw.transaction():
            # An erasure that is under way in another process looks like this.
            await raw.execute("SELECT pg_current_xact_id()")
            short = replace(rotation.settling, patience_seconds=1.0)
            with pytest.raises(RotationRefusedError, match="a transaction is open"):
                await replace(rotation, settling=short).rotate()
        await held.close()
        assert _file(live).current().public_key == before
        assert await erasing.parts.logs.book.rotations() == ()
        change = await rotation.rotate()
        assert change.old == before
        assert change.sizes[erasing.tenant_id.hex] == 9 + 2
