"""Any process adds to a log's administration run; nothing is lost, forked or doubled."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from app.administration.admin_log import AdminLog, AdminParts
from app.administration.writer_enrolment import WriterEnrolment
from app.domain.errors import LedgerUnavailableError
from app.domain.run import RunFilter, RunRow, TenantId
from app.keys.key_store import FileKeyStore
from app.keys.signing_keys import ENROLMENT, SigningKeys
from app.ledger.chain import VerifiedChain, verify_run
from app.ledger.enrolment import is_certified
from app.runs.run_keys import RunKeys
from app.storage.companions import Claim
from app.storage.run_queue import RunQueue
from tests.integration.storage.append_scene import AT, Scene, scene_on
from tests.integration.storage.append_scene import ENROLMENT as ENROLLED
from tests.support.databases import DatabaseServer, Roles

pytestmark = pytest.mark.anyio


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """A process that writes administration records."""

    scene: Scene
    keys: RunKeys
    log: AdminLog

    async def verified(self, tenant_id: TenantId) -> VerifiedChain:
        """The administration run of a log, which must hold."""
        found = await self.scene.store.admin_run(tenant_id)
        assert found is not None
        async with self.scene.database.snapshot(tenant_id) as raw:
            row = await self.scene.runs.find(raw, tenant_id, found.run_id)
            assert isinstance(row, RunRow)
            stored, key = await self.scene.store.read(raw, row)
        checked = verify_run(stored, self.keys.open(tenant_id, found.run_id, key), ENROLLED)
        assert isinstance(checked, VerifiedChain), checked
        return checked


@asynccontextmanager
async def office_on(roles: Roles, directory: Path) -> AsyncIterator[Office]:
    async with scene_on(roles, pool_size=2) as scene:
        keys = RunKeys(FileKeyStore(directory / "keys", os.urandom), os.urandom)
        parts = AdminParts(
            ledger=scene.store,
            runs=scene.runs,
            keys=keys,
            writer=scene.writer,
            now=lambda: AT,
            entropy=os.urandom,
        )
        yield Office(scene=scene, keys=keys, log=AdminLog(parts))


@pytest.fixture
async def fresh(postgres: DatabaseServer) -> Roles:
    return await asyncio.to_thread(postgres.new_database)


async def test_the_first_record_brings_the_run_and_its_opening(
    fresh: Roles, tmp_path: Path
) -> None:
    async with office_on(fresh, tmp_path) as office:
        log = await office.log.operator_log_id()
        receipt = await office.log.append(log, "key.writer", {"writer_id": "00"})
        chain = await office.verified(log)
        assert [record.kind for record in chain.records] == ["admin.opened", "key.writer"]
        assert json.loads(chain.records[0].fields["note"]) == {}
        assert json.loads(chain.records[1].fields["note"]) == {"writer_id": "00"}
        last = chain.records[-1]
        assert (receipt.seq, receipt.rc, receipt.chain) == (1, last.rc, last.chain)


async def test_of_eight_processes_none_loses_a_record_and_none_forks(
    fresh: Roles, tmp_path: Path
) -> None:
    """Each has a pool, a key and a view of its own; they meet in the database only."""
    async with AsyncExitStack() as stack:
        offices = [await stack.enter_async_context(office_on(fresh, tmp_path)) for _ in range(8)]
        log = await offices[0].log.operator_log_id()

        async def write(number: int, office: Office) -> list[int]:
            return [
                (await office.log.append(log, "key.writer", {"n": 100 * number + i})).seq
                for i in range(6)
            ]

        told = await asyncio.gather(*(write(n, office) for n, office in enumerate(offices)))
        chain = await offices[0].verified(log)
    assert sorted(seq for seqs in told for seq in seqs) == list(range(1, 49))
    noted = sorted(json.loads(r.fields["note"])["n"] for r in chain.records[1:])
    assert noted == [100 * number + i for number in range(8) for i in range(6)]


async def test_many_tasks_of_one_process_do_not_race_each_other(
    fresh: Roles, tmp_path: Path
) -> None:
    async with office_on(fresh, tmp_path) as office:
        log = await office.log.operator_log_id()
        told = await asyncio.gather(
            *(office.log.append(log, "key.writer", {"n": n}) for n in range(20))
        )
        assert sorted(receipt.seq for receipt in told) == list(range(1, 21))
        assert len({receipt.run_id for receipt in told}) == 1


async def test_companions_are_written_with_the_record_or_not_at_all(
    fresh: Roles, tmp_path: Path
) -> None:
    async with office_on(fresh, tmp_path) as office:
        log = office.scene.tenant_id
        await office.log.append(log, "hold.set", {"reason": "court"})
        with pytest.raises(LedgerUnavailableError):
            await office.log.append(log, "hold.set", {"reason": "x"}, [Claim(from_epoch=99)])
        assert len((await office.verified(log)).records) == 2


async def test_an_administration_run_is_no_run_of_a_list_and_waits_for_nobody(
    fresh: Roles, tmp_path: Path
) -> None:
    async with office_on(fresh, tmp_path) as office:
        log, runs = office.scene.tenant_id, office.scene.runs
        await office.log.append(log, "hold.set", {"reason": "court"})
        assert await runs.page(log, before=None, wanted=RunFilter(), limit=10) == []
        async with scene_on(fresh) as other:
            await runs.leave(UUID(bytes=office.scene.writer.writer_id))
            queue = RunQueue(other.database, UUID(bytes=other.writer.writer_id))
            assert await queue.mend(0) == 0


async def test_a_writer_is_certified_and_recorded_once_however_often_it_says_so(
    fresh: Roles, tmp_path: Path
) -> None:
    signing = SigningKeys(tmp_path, os.urandom)
    key = signing.current(ENROLMENT)
    async with office_on(fresh, tmp_path) as office:
        writer = office.scene.writer
        enrolment = WriterEnrolment(
            runs=office.scene.runs,
            admin_log=office.log,
            writer=writer,
            certifying=signing.certifying,
        )
        await enrolment.enrol()
        await enrolment.enrol()
        chain = await office.verified(await office.log.operator_log_id())
    noted = json.loads(chain.records[-1].fields["note"])
    assert [record.kind for record in chain.records] == ["admin.opened", "key.writer"]
    assert noted["writer_id"] == writer.writer_id.hex()
    assert is_certified(
        {key.public_key}, writer.writer_id, writer.public_key, bytes.fromhex(noted["certificate"])
    )
