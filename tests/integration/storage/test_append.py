"""An append is all or nothing, fenced by the epoch, and never forks a chain or skips a state."""

import asyncio
import sys
from uuid import uuid4

import pytest

from app.domain.errors import (
    IllegalTransitionError,
    LedgerError,
    LedgerUnavailableError,
    NotFoundError,
    StaleEpochError,
)
from app.domain.run import TERMINAL, TRANSITIONS, RunId, RunStatus, Usage
from app.storage.companions import Change, Claim, NewResult
from app.storage.ledger_store import Receipt
from app.telemetry import meters
from tests.integration.storage.append_scene import (
    AT,
    NO_KEY,
    count,
    ending,
    scene_on,
    seqs,
    step,
)
from tests.support.databases import Roles, connect

pytestmark = pytest.mark.anyio

TABLES = ("record", "payload", "batch", "runs", "run_key", "run_result")


async def _totals(roles: Roles) -> list[int]:
    connection = await connect(roles.superuser)
    found = [await connection.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES]
    await connection.close()
    return found


async def test_what_was_appended_is_read_back_and_verifies(roles: Roles) -> None:
    async with scene_on(roles) as scene:
        author = await scene.begun()
        await scene.write(author, author.seal(step(), step("step.more", '"two"')))
        last = author.seal(step("step.last"))
        await scene.write(author, last, Change(status=RunStatus.RUNNING, usage=Usage()))
        chain = await scene.verified(author)
        assert seqs(chain) == [0, 1, 2, 3]
        assert chain.records[2].fields == {"note": b'"two"'}


def _refused() -> float:
    return meters.REGISTRY.get_sample_value("meshflow_fence_refusals_total") or 0.0


async def test_a_stale_epoch_writes_nothing(roles: Roles) -> None:
    async with scene_on(roles) as old, scene_on(roles) as new:
        zombie = await old.begun()
        heir = new.author(zombie.run_id, zombie.run_key)
        heir.head, heir.epoch = zombie.head, 2
        await new.write(heir, heir.seal(), Claim(from_epoch=1))
        before, refused = await _totals(roles), _refused()
        # After the heir's record, so that the primary key does not do the fence's work.
        zombie.head = heir.head
        late = zombie.seal()
        with pytest.raises(StaleEpochError):
            await old.write(zombie, late)
        with pytest.raises(StaleEpochError):
            await old.write(zombie, late, Change(status=RunStatus.FAILED, usage=Usage()))
        assert await _totals(roles) == before
        assert _refused() == refused + 2
        assert seqs(await new.verified(heir)) == [0, 1]


async def test_an_epoch_from_the_future_is_refused_too(roles: Roles) -> None:
    async with scene_on(roles) as scene:
        author = await scene.begun()
        author.epoch = 2
        with pytest.raises(StaleEpochError):
            await scene.write(author, author.seal())


async def test_of_two_that_claim_a_run_one_gets_it(roles: Roles) -> None:
    async with scene_on(roles) as one, scene_on(roles) as two:
        for _ in range(10):
            first = await one.begun()
            heirs = [scene.author(first.run_id, first.run_key) for scene in (one, two)]
            for heir in heirs:
                heir.head, heir.epoch = first.head, 2
            done = await asyncio.gather(
                *(
                    scene.write(heir, heir.seal(), Claim(from_epoch=1))
                    for scene, heir in zip((one, two), heirs, strict=True)
                ),
                return_exceptions=True,
            )
            assert sorted(map(type, done), key=str) == [StaleEpochError, Receipt]
            assert seqs(await one.verified(first)) == [0, 1]


async def test_of_two_records_at_one_place_exactly_one_is_kept(roles: Roles) -> None:
    async with scene_on(roles) as scene:
        for _ in range(20):
            author = await scene.begun()
            rivals = [author.seal(step("rival.one")), author.seal(step("rival.two"))]
            done = await asyncio.gather(
                *(scene.store.append(author.tenant_id, author.run_id, r, ()) for r in rivals),
                return_exceptions=True,
            )
            assert sorted(map(type, done), key=str) == [StaleEpochError, Receipt]
            chain = await scene.verified(author)
            won = rivals[next(at for at, told in enumerate(done) if isinstance(told, Receipt))]
            assert [record.chain for record in chain.records][1:] == [won.records[0].chain]
            connection = await connect(roles.superuser)
            assert await count(connection, "payload", author.run_id) == 2
            await connection.close()


async def test_sixteen_tasks_on_one_run_leave_one_valid_chain(roles: Roles) -> None:
    """Each looks for the head, appends, and looks again when somebody was faster."""
    async with scene_on(roles, pool_size=16) as scene:
        author = await scene.begun()
        turn: list[str] = []

        async def append(name: str, times: int) -> None:
            mine = scene.author(author.run_id, author.run_key)
            while times:
                mine.head = await scene.head(mine)
                try:
                    await scene.write(mine, mine.seal(step(f"by.{name}")))
                except StaleEpochError:
                    continue
                turn.append(name)
                times -= 1

        await asyncio.gather(*(append(f"t{number}", 3) for number in range(16)))
        chain = await scene.verified(author)
        assert seqs(chain) == list(range(1 + 16 * 3))
        kept = [record.kind for record in chain.records[1:]]
        assert sorted(kept) == sorted(f"by.{name}" for name in turn)


async def test_sixteen_processes_on_one_run_leave_one_valid_chain(roles: Roles) -> None:
    async with scene_on(roles) as scene:
        author = await scene.begun()
        arguments = [roles.app, str(author.run_id), author.run_key.hex(), "2"]
        started = [
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.integration.storage.rival_process",
                *arguments,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            for _ in range(16)
        ]
        told = [await process.communicate() for process in started]
        assert [process.returncode for process in started] == [0] * 16, told
        chain = await scene.verified(author)
        assert seqs(chain) == list(range(1 + 16 * 2))
        acknowledged = sorted(line for out, _ in told for line in out.decode().split())
        assert acknowledged == sorted(record.chain.hex() for record in chain.records[1:])


ALL_PAIRS = [(old, new) for old in RunStatus for new in RunStatus]


@pytest.mark.parametrize(
    ("old", "new"), ALL_PAIRS, ids=[f"{old.value}-{new.value}" for old, new in ALL_PAIRS]
)
async def test_a_state_follows_another_only_as_the_table_says(
    roles: Roles, old: RunStatus, new: RunStatus
) -> None:
    async with scene_on(roles) as scene:
        author = await scene.begun(old)
        change = Change(status=new, usage=Usage(), error_code="told")
        if new in TRANSITIONS[old]:
            await scene.write(author, author.seal(), change)
        else:
            before = await _totals(roles)
            with pytest.raises(IllegalTransitionError):
                await scene.write(author, author.seal(), change)
            assert await _totals(roles) == before
        async with scene.database.snapshot(author.tenant_id) as raw:
            row = await scene.runs.find(raw, author.tenant_id, author.run_id)
        assert row is not None
        changed = new in TRANSITIONS[old]
        assert row.status is (new if changed else old)
        assert row.error_code == ("told" if changed else None)


def test_terminal_states_have_no_way_out() -> None:
    assert all(TRANSITIONS[status] == frozenset() for status in TERMINAL)


async def test_a_failing_companion_takes_the_record_with_it(roles: Roles) -> None:
    async with scene_on(roles) as scene:
        author = await scene.begun(RunStatus.RUNNING)
        final = author.seal(step("run.finished"))
        result = NewResult(key=NO_KEY, blob=b"sealed", expires_at=AT)
        await scene.write(author, final, ending(author, final), result)
        before = await _totals(roles)
        second = author.seal()
        with pytest.raises(LedgerError):  # a run has one result
            await scene.write(author, second, result)
        assert await _totals(roles) == before


async def test_a_run_that_does_not_exist_takes_no_record(roles: Roles) -> None:
    async with scene_on(roles) as scene:
        stranger = scene.author()
        before = await _totals(roles)
        with pytest.raises(NotFoundError):
            await scene.write(stranger, stranger.seal())
        assert await _totals(roles) == before


async def test_a_run_of_another_tenant_takes_no_record(roles: Roles) -> None:
    async with scene_on(roles) as acme, scene_on(roles, tenant="other") as other:
        author = await acme.begun()
        thief = other.author(RunId(author.run_id), author.run_key)
        thief.head = author.head
        with pytest.raises(NotFoundError):
            await other.write(thief, thief.seal())


async def test_a_run_is_not_opened_twice(roles: Roles) -> None:
    async with scene_on(roles) as scene:
        author = await scene.begun()
        again = scene.author(author.run_id)
        with pytest.raises(StaleEpochError):
            await scene.write(again, again.seal(), again.new_run())
        assert seqs(await scene.verified(author)) == [0]


async def test_the_same_batch_again_is_acknowledged_and_not_doubled(roles: Roles) -> None:
    async with scene_on(roles) as scene:
        author = await scene.begun(RunStatus.RUNNING)
        batch = author.seal(step("run.finished"))
        end = ending(author, batch)
        await scene.write(author, batch, end)
        before = await _totals(roles)
        await scene.store.append(author.tenant_id, author.run_id, batch, [end])
        assert await _totals(roles) == before
        assert seqs(await scene.verified(author)) == [0, 1]


async def test_a_pool_that_cannot_reach_a_database_says_so(roles: Roles) -> None:
    async with scene_on(roles) as scene:
        author = await scene.begun()
    async with scene_on(roles) as reader:
        assert seqs(await reader.verified(author)) == [0]
    nowhere = roles.named(f"gone_{uuid4().hex}")
    with pytest.raises(LedgerUnavailableError):
        async with scene_on(nowhere):
            pass


async def test_appends_at_one_time_share_a_commit_and_not_each_others_fate(roles: Roles) -> None:
    async with scene_on(roles) as scene:
        authors = [await scene.begun() for _ in range(24)]
        stale, unknown = authors[3], scene.author()
        stale.epoch = 7
        done = await asyncio.gather(
            *(scene.write(author, author.seal()) for author in [*authors, unknown]),
            return_exceptions=True,
        )
        refused = {at: type(told) for at, told in enumerate(done) if not isinstance(told, Receipt)}
        assert refused == {3: StaleEpochError, 24: NotFoundError}
        for author in authors:
            assert len(seqs(await scene.verified(author))) == (1 if author is stale else 2)
        lawful = [author for author in authors if author is not stale]
        await asyncio.gather(*(scene.write(author, author.seal()) for author in lawful))
        connection = await connect(roles.superuser)
        transactions = await connection.fetchval(
            "SELECT count(DISTINCT xid) FROM batch JOIN record USING (tenant_id, batch_id)"
            " WHERE seq = 2 AND run_id = ANY ($1)",
            [author.run_id for author in lawful],
        )
        await connection.close()
        assert transactions < len(lawful)


async def test_a_caller_that_goes_away_harms_nobody_who_waits_with_it(roles: Roles) -> None:
    async with scene_on(roles) as scene:
        authors = [await scene.begun() for _ in range(12)]
        tasks = [asyncio.create_task(scene.write(author, author.seal())) for author in authors]
        await asyncio.sleep(0)
        tasks[5].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(told) for at, told in enumerate(done) if at != 5] == [Receipt] * 11
        for author in authors:
            assert len((await scene.verified(author)).records) in (1, 2)
            fresh = await scene.head(author)
            author.head = fresh
            await scene.write(author, author.seal())
