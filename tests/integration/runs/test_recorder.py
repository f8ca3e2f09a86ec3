"""The recorder: durable before it returns, in order, fenced, and whole after a failed write."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.domain.errors import IllegalTransitionError, LedgerError, StaleEpochError
from app.domain.record import MAX_CODE_CHARACTERS, CancelRequested, RunFinished, RunStarted
from app.domain.run import TERMINAL, RunId, RunKind, RunStatus, Usage
from app.keys.key_store import FileKeyStore
from app.ledger.chain import VerifiedChain, verify_run
from app.ledger.writing import ChainHead
from app.privacy.scrubber import Scrubber
from app.runs.notifier import Bell
from app.runs.recorder import LedgerRecorder, RecorderParts, RunPlace
from app.runs.run_keys import RunKeys
from app.storage.companions import NewRun
from tests.integration.storage.append_scene import AT, ENROLMENT, Scene, scene_on
from tests.support.databases import Roles, connect

pytestmark = pytest.mark.anyio

ACTOR = "key:0123456789abcdef"


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A process with real keys, and what is needed to look at what it wrote."""

    scene: Scene
    parts: RecorderParts
    keys: RunKeys

    def recorder(self, status: RunStatus = RunStatus.RUNNING) -> tuple[LedgerRecorder, RunPlace]:
        """A recorder whose first record brings its run."""
        run_id = RunId(uuid4())
        run_key, wrapped = self.keys.new_run_key(self.scene.tenant_id, run_id, AT)
        head = ChainHead.empty(self.scene.tenant_id.bytes, run_id.bytes)
        place = RunPlace(
            tenant_id=self.scene.tenant_id, run_id=run_id, run_key=run_key, head=head, epoch=1
        )
        recorder = LedgerRecorder(place, self.parts)
        recorder.open_run(
            NewRun(
                kind=RunKind.AGENT,
                status=status,
                provider="offline",
                model="offline",
                agent=None,
                policy_digest="0" * 64,
                created_at=AT,
                key=wrapped,
            )
        )
        return recorder, place

    async def chain(self, place: RunPlace) -> VerifiedChain:
        """What is stored, which must verify."""
        async with self.scene.database.snapshot(place.tenant_id) as raw:
            row = await self.scene.runs.find(raw, place.tenant_id, place.run_id)
            assert row is not None
            stored, _ = await self.scene.store.read(raw, row)
        checked = verify_run(stored, place.run_key, ENROLMENT)
        assert isinstance(checked, VerifiedChain), checked
        return checked

    async def kinds(self, place: RunPlace) -> list[str]:
        """The kinds of the verified records."""
        return [record.kind for record in (await self.chain(place)).records]


@asynccontextmanager
async def desk_on(roles: Roles, directory: Path) -> AsyncIterator[Desk]:
    async with scene_on(roles) as scene:
        keys = RunKeys(FileKeyStore(directory / "keys", os.urandom), os.urandom)
        parts = RecorderParts(
            store=scene.store,
            keys=keys,
            writer=scene.writer,
            scrubber=Scrubber([]),
            bell=Bell(),
            now=lambda: AT,
            entropy=os.urandom,
            result_ttl_seconds=60,
        )
        yield Desk(scene=scene, parts=parts, keys=keys)


async def _committed(roles: Roles, run_id: UUID) -> int:
    connection = await connect(roles.superuser)
    found: int = await connection.fetchval("SELECT count(*) FROM record WHERE run_id = $1", run_id)
    await connection.close()
    return found


async def test_a_record_is_committed_when_record_returns(roles: Roles, tmp_path: Path) -> None:
    async with desk_on(roles, tmp_path) as desk:
        recorder, place = desk.recorder()
        for number in range(5):
            assert await recorder.record(CancelRequested(actor=ACTOR), Usage()) == number
            assert await _committed(roles, place.run_id) == number + 1


async def test_what_is_held_comes_before_and_in_the_same_transaction(
    roles: Roles, tmp_path: Path
) -> None:
    async with desk_on(roles, tmp_path) as desk:
        recorder, place = desk.recorder(RunStatus.QUEUED)
        recorder.set_status(RunStatus.RUNNING)
        recorder.hold(RunStarted())
        assert await _committed(roles, place.run_id) == 0
        assert await recorder.record(CancelRequested(actor=ACTOR), Usage()) == 1
        assert await desk.kinds(place) == ["run.started", "run.cancel_requested"]
        connection = await connect(roles.superuser)
        batches = await connection.fetchval(
            "SELECT count(DISTINCT batch_id) FROM record WHERE run_id = $1", place.run_id
        )
        await connection.close()
        assert batches == 1


async def test_the_final_record_ends_the_run_with_it(roles: Roles, tmp_path: Path) -> None:
    async with desk_on(roles, tmp_path) as desk:
        recorder, place = desk.recorder()
        await recorder.record(RunStarted(), Usage())
        spent = Usage(input_tokens=3, output_tokens=2, cost_micros=1, steps=1)
        await recorder.record(RunFinished(status=RunStatus.FAILED, error_code="told"), spent)
        async with desk.scene.database.snapshot(place.tenant_id) as raw:
            row = await desk.scene.runs.find(raw, place.tenant_id, place.run_id)
        assert row is not None
        assert (row.status, row.error_code, row.entries) == (RunStatus.FAILED, "told", 2)
        assert (row.usage, row.finished_at) == (spent, AT)
        with pytest.raises(IllegalTransitionError):
            await recorder.record(RunFinished(status=RunStatus.SUCCEEDED), Usage())
        assert await desk.kinds(place) == ["run.started", "run.finished"]


async def test_the_longest_code_goes_into_a_final_record_with_the_longest_status(
    roles: Roles, tmp_path: Path
) -> None:
    async with desk_on(roles, tmp_path) as desk:
        recorder, place = desk.recorder()
        code = "x" * MAX_CODE_CHARACTERS
        longest = max(TERMINAL, key=len)
        await recorder.record(RunFinished(status=longest, error_code=code), Usage())
        (record,) = (await desk.chain(place)).records
        assert record.header["outcome"] == f"{longest}:{code}"


async def test_a_claim_shuts_the_former_owner_out(roles: Roles, tmp_path: Path) -> None:
    async with desk_on(roles, tmp_path) as desk:
        former, place = desk.recorder()
        await former.record(RunStarted(), Usage())
        end = (await desk.chain(place)).head
        heir = LedgerRecorder(
            RunPlace(
                tenant_id=place.tenant_id,
                run_id=place.run_id,
                run_key=place.run_key,
                head=ChainHead(next_seq=end.next_seq, chain=end.chain),
                epoch=1,
            ),
            desk.parts,
        )
        heir.claim()
        await heir.record(CancelRequested(actor=ACTOR), Usage())
        with pytest.raises(StaleEpochError):
            await former.record(RunFinished(status=RunStatus.SUCCEEDED), Usage())
        await heir.record(RunFinished(status=RunStatus.INTERRUPTED), Usage())
        assert await desk.kinds(place) == ["run.started", "run.cancel_requested", "run.finished"]


async def test_a_write_that_failed_is_whole_when_it_is_tried_again(
    roles: Roles, tmp_path: Path
) -> None:
    """Held events and the run's row are not lost with the attempt."""
    async with desk_on(roles, tmp_path) as desk:
        recorder, place = desk.recorder()
        recorder.hold(RunStarted())
        holder = await connect(roles.superuser)
        async with holder.transaction():
            await holder.execute("LOCK TABLE record IN SHARE MODE")
            with pytest.raises(LedgerError):
                await recorder.record(CancelRequested(actor=ACTOR), Usage())
        await holder.close()
        assert await recorder.record(CancelRequested(actor=ACTOR), Usage()) == 1
        assert await desk.kinds(place) == ["run.started", "run.cancel_requested"]


async def _one_waits(watcher: asyncpg.Connection) -> None:
    query = "SELECT count(*) FROM pg_locks WHERE relation = 'record'::regclass AND NOT granted"
    async with asyncio.timeout(20):
        while not await watcher.fetchval(query):  # noqa: ASYNC110 - Postgres sends no event
            await asyncio.sleep(0.005)


async def test_a_cancelled_record_is_still_known_to_its_recorder(
    roles: Roles, tmp_path: Path
) -> None:
    """The write that is under way ends first, so the record after it finds its place."""
    async with desk_on(roles, tmp_path) as desk:
        recorder, place = desk.recorder()
        await recorder.record(RunStarted(), Usage())
        holder, watcher = await connect(roles.superuser), await connect(roles.superuser)
        lock = holder.transaction()
        await lock.start()
        await holder.execute("LOCK TABLE record IN SHARE MODE")
        writing = asyncio.create_task(recorder.record(CancelRequested(actor=ACTOR), Usage()))
        await _one_waits(watcher)
        writing.cancel()
        await asyncio.sleep(0)
        await lock.rollback()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert await recorder.record(RunFinished(status=RunStatus.CANCELLED), Usage()) == 2
        assert await desk.kinds(place) == ["run.started", "run.cancel_requested", "run.finished"]
        await holder.close()
        await watcher.close()


async def test_the_bell_rings_after_the_commit(roles: Roles, tmp_path: Path) -> None:
    async with desk_on(roles, tmp_path) as desk:
        recorder, place = desk.recorder()
        waiting = asyncio.create_task(desk.parts.bell.wait(place.run_id, 30))
        await asyncio.sleep(0)
        recording = asyncio.create_task(recorder.record(RunStarted(), Usage()))
        await waiting
        assert await _committed(roles, place.run_id) == 1
        await recording
