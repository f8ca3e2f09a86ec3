"""Runs that are appended to together share a batch and its signature, and nothing of their fate."""

import asyncio
import os
from collections.abc import Sequence
from uuid import UUID

import asyncpg
import pytest

from app.domain.errors import (
    ChainBreak,
    IllegalTransitionError,
    LedgerError,
    NotFoundError,
    OverloadedError,
    StaleEpochError,
)
from app.domain.run import RunStatus, Usage
from app.ledger.chain import verify_run
from app.ledger.writing import ChainHead
from app.storage.companions import Change, Claim
from app.storage.group_commit import MOST_OUTSTANDING
from app.storage.ledger_store import LedgerStore, Receipt
from tests.integration.storage.append_scene import (
    ENROLMENT,
    Author,
    Scene,
    scene_on,
    seqs,
    step,
)
from tests.support import independent_verifier
from tests.support.databases import Roles, connect
from tests.support.independent_reader import read_run

pytestmark = pytest.mark.anyio

GUARDED = {
    "record": "record_no_change",
    "record_default": "record_no_change",
    "payload": "payload_no_change",
    "payload_default": "payload_no_change",
    "batch": "batch_no_change",
}


async def together(
    scene: Scene, authors: Sequence[Author], *companions: Change
) -> list[Receipt | BaseException]:
    """One append for each of them, all at once."""
    return await asyncio.gather(
        *(scene.write(author, author.seal(), *companions) for author in authors),
        return_exceptions=True,
    )


async def shared(scene: Scene, count: int) -> list[Author]:
    """Runs whose second record is in one batch."""
    authors = await asyncio.gather(*(scene.begun(RunStatus.RUNNING) for _ in range(count)))
    receipts = await together(scene, authors)
    assert len({receipt.batch_id for receipt in receipts if isinstance(receipt, Receipt)}) == 1
    return list(authors)


async def attacked(roles: Roles, *statements: str, run_id: UUID) -> None:
    """As the administrator of the database; `$1` is the run."""
    raw: asyncpg.Connection = await connect(roles.superuser)
    async with raw.transaction():
        for table in GUARDED:
            await raw.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        for statement in statements:
            await raw.execute(statement, run_id)
        for table, trigger in GUARDED.items():
            await raw.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}")
    await raw.close()


async def break_of(scene: Scene, author: Author) -> tuple[int, str] | None:
    found = verify_run(await scene.stored(author), author.run_key, ENROLMENT)
    return (found.seq, found.reason) if isinstance(found, ChainBreak) else None


async def other_break_of(roles: Roles, author: Author) -> tuple[int, str] | None:
    """What the second verifier says, which shares no code."""
    raw = await connect(roles.superuser)
    rows = await read_run(raw, author.tenant_id.hex, author.run_id.hex)
    await raw.close()
    return independent_verifier.verify_run(*rows, author.run_key)


async def test_a_receipt_says_where_the_record_stands_and_in_which_batch(roles: Roles) -> None:
    async with scene_on(roles) as scene:
        author = await scene.begun()
        sealed = author.seal(step(), step())
        receipt = await scene.write(author, sealed)
        last = (await scene.stored(author)).records[-1]
        assert receipt == Receipt(
            log=author.tenant_id,
            run=author.run_id,
            seq=2,
            rc=last.rc,
            chain=last.chain,
            batch_id=last.batch_id,
        )
        assert await scene.write(author, sealed) == receipt  # a repeat is the same write


async def test_runs_of_one_batch_verify_each_alone(roles: Roles) -> None:
    async with scene_on(roles) as scene, scene_on(roles, tenant="other") as other:
        ours, theirs = await shared(scene, 40), await shared(other, 3)
        for place, authors in ((scene, ours), (other, theirs)):
            for author in authors:
                assert seqs(await place.verified(author)) == [0, 1]
                assert await other_break_of(roles, author) is None


async def test_one_flush_of_two_logs_is_a_batch_for_each(roles: Roles) -> None:
    async with scene_on(roles) as scene, scene_on(roles, tenant="second") as second:
        ours = [await scene.begun() for _ in range(3)]
        theirs = [await second.begun() for _ in range(3)]
        receipts = await asyncio.gather(
            *(scene.store.append(a.tenant_id, a.run_id, a.seal()) for a in (*ours, *theirs))
        )
        raw = await connect(roles.superuser)
        found = await raw.fetch(
            "SELECT tenant_id, n, xid::text FROM batch WHERE batch_id = ANY ($1)",
            [UUID(bytes=receipt.batch_id) for receipt in receipts],
        )
        await raw.close()
        assert {(row["tenant_id"], row["n"]) for row in found} == {
            (ours[0].tenant_id, 3),
            (theirs[0].tenant_id, 3),
        }
        assert len({row["xid"] for row in found}) == 1


async def test_of_a_mixed_flush_each_learns_its_own_fate(roles: Roles) -> None:
    async with scene_on(roles) as scene, scene_on(roles) as rival:
        authors = await asyncio.gather(*(scene.begun(RunStatus.RUNNING) for _ in range(60)))
        stale, conflicting, illegal, unknown = authors[3], authors[20], authors[41], scene.author()
        stale.epoch = 7
        winner = rival.author(conflicting.run_id, conflicting.run_key)
        winner.head = conflicting.head
        await rival.write(winner, winner.seal())
        back = Change(status=RunStatus.QUEUED, usage=Usage())
        done = await asyncio.gather(
            *(
                scene.write(author, author.seal(), *([back] if author is illegal else []))
                for author in (*authors, unknown)
            ),
            return_exceptions=True,
        )
        fates = {at: type(told) for at, told in enumerate(done) if not isinstance(told, Receipt)}
        assert fates == {
            3: StaleEpochError,
            20: StaleEpochError,
            41: IllegalTransitionError,
            60: NotFoundError,
        }
        for author in authors:
            expected = 1 if author in (stale, illegal) else 2
            assert len(seqs(await scene.verified(author))) == expected
        batches = {receipt.batch_id for receipt in done if isinstance(receipt, Receipt)}
        assert len(batches) < 20, "the others went one by one"


async def test_a_run_that_somebody_holds_delays_itself_alone(roles: Roles) -> None:
    holder = await connect(roles.superuser)
    async with scene_on(roles) as scene:
        authors = await asyncio.gather(*(scene.begun(RunStatus.RUNNING) for _ in range(12)))
        held, claimed, *free = authors
        lock = holder.transaction()
        await lock.start()
        await holder.execute(
            "SELECT 1 FROM runs WHERE run_id = ANY ($1) FOR UPDATE", [held.run_id, claimed.run_id]
        )
        claimed.epoch = 2
        waiting = [
            asyncio.create_task(scene.write(held, held.seal())),
            asyncio.create_task(scene.write(claimed, claimed.seal(), Claim(from_epoch=1))),
        ]
        done = await together(scene, free)
        assert [type(told) for told in done] == [Receipt] * 10
        assert not any(task.done() for task in waiting)
        await lock.rollback()
        assert [type(told) for told in await asyncio.gather(*waiting)] == [Receipt] * 2
    await holder.close()


async def test_beyond_the_bound_an_append_is_refused_and_nothing_is_done(roles: Roles) -> None:
    holder = await connect(roles.superuser)
    async with scene_on(roles) as scene:
        authors = await asyncio.gather(*(scene.begun() for _ in range(MOST_OUTSTANDING)))
        late = await scene.begun()
        lock = holder.transaction()
        await lock.start()
        await holder.execute("LOCK TABLE batch IN SHARE MODE")
        waiting = [asyncio.create_task(scene.write(a, a.seal())) for a in authors]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError) as refused:
            await scene.write(late, late.seal())
        assert refused.value.retry_after_seconds == 1
        await lock.rollback()
        done = await asyncio.gather(*waiting)
        assert [type(told) for told in done] == [Receipt] * MOST_OUTSTANDING
        assert seqs(await scene.verified(late)) == [0]
        await scene.write(late, late.seal())
        assert seqs(await scene.verified(late)) == [0, 1]
    await holder.close()


async def test_a_fault_in_a_flush_is_told_to_those_in_it_and_the_next_one_goes_on(
    roles: Roles,
) -> None:
    faults = iter([True])

    def entropy(size: int) -> bytes:
        if next(faults, False):
            raise RuntimeError("planted")
        return os.urandom(size)

    async with scene_on(roles) as scene:
        authors = [await scene.begun() for _ in range(5)]
        store = LedgerStore(scene.database, entropy)
        done = await asyncio.gather(
            *(store.append(a.tenant_id, a.run_id, a.seal()) for a in authors),
            return_exceptions=True,
        )
        assert [type(told) for told in done] == [RuntimeError] * 5
        for author in authors:
            assert seqs(await scene.verified(author)) == [0]
            await store.append(author.tenant_id, author.run_id, author.seal())
            assert seqs(await scene.verified(author)) == [0, 1]


async def test_an_append_at_any_turn_of_the_loop_finds_a_flusher(roles: Roles) -> None:
    """The moment in which a flusher has looked for the last time must not be lost."""
    async with scene_on(roles) as scene:
        author = await scene.begun()
        async with asyncio.timeout(60):
            for turns in range(60):
                await scene.write(author, author.seal())
                for _ in range(turns % 12):
                    await asyncio.sleep(0)
        assert len(seqs(await scene.verified(author))) == 61


OWN = "(SELECT batch_id FROM record WHERE run_id = $1 AND seq = 1)"
WRONG_TIP = "the tip of a batch does not match its records"
OF_ALL = [
    ("entries = set_byte(entries, 5, get_byte(entries, 5) # 1)", None),
    ("entries = NULL", "the entries of a batch are gone"),
    ("entries = entries || sha256('')", "the entries of a batch do not match its records"),
    ("tip = sha256(tip)", WRONG_TIP),
    ("n = n + 1", WRONG_TIP),
    ("ranges = substr(ranges, 17)", "the ranges of a batch do not cover its records"),
    ("sig = set_byte(sig, 3, get_byte(sig, 3) # 1)", "the signature of a batch does not hold"),
]


@pytest.mark.parametrize(("change", "reason"), OF_ALL)
async def test_what_is_changed_in_a_shared_batch_breaks_all_its_runs_and_no_others(
    roles: Roles, change: str, reason: str | None
) -> None:
    async with scene_on(roles) as scene:
        authors, bystander = await shared(scene, 5), await scene.begun()
        await attacked(
            roles, f"UPDATE batch SET {change} WHERE batch_id = {OWN}", run_id=authors[0].run_id
        )
        for author in authors:
            found = await break_of(scene, author)
            assert found is not None
            assert found[0] == 1
            assert reason is None or found[1] == reason
            assert await other_break_of(roles, author) is not None
        assert await break_of(scene, bystander) is None


@pytest.mark.parametrize(
    "attack",
    [
        "UPDATE record SET chain = sha256(chain) WHERE run_id = $1 AND seq = 1",
        "UPDATE record SET header = header || ' '::bytea WHERE run_id = $1 AND seq = 1",
        "DELETE FROM record WHERE run_id = $1 AND seq = 1",
    ],
)
async def test_what_is_changed_in_one_run_breaks_that_run_alone(roles: Roles, attack: str) -> None:
    async with scene_on(roles) as scene:
        victim, *others = await shared(scene, 5)
        await attacked(roles, attack, run_id=victim.run_id)
        if not attack.startswith("DELETE"):  # a cut tail is for the log and its witnesses to show
            assert await break_of(scene, victim) is not None
            assert await other_break_of(roles, victim) is not None
        for author in others:
            assert await break_of(scene, author) is None
            assert await other_break_of(roles, author) is None


async def test_a_run_made_anew_with_every_hash_right_does_not_fit_what_was_signed(
    roles: Roles,
) -> None:
    async with scene_on(roles) as scene:
        victim, *others = await shared(scene, 3)
        forger = scene.author(victim.run_id, victim.run_key)
        forger.head = ChainHead(next_seq=1, chain=(await scene.stored(victim)).records[0].chain)
        sealed = forger.seal(step("step.taken", '"never said"'))
        (forged,), (field,) = sealed.records, sealed.fields
        await attacked(
            roles,
            f"UPDATE record SET header = '\\x{forged.header.hex()}', rc = '\\x{forged.rc.hex()}',"
            f" chain = '\\x{forged.chain.hex()}' WHERE run_id = $1 AND seq = 1",
            f"UPDATE payload SET blob = '\\x{field.blob.hex()}' WHERE run_id = $1 AND seq = 1",
            run_id=victim.run_id,
        )
        wrong = (1, "the entries of a batch do not match its records")
        assert await break_of(scene, victim) == wrong
        assert await other_break_of(roles, victim) == (1, "batch: records")
        assert [await break_of(scene, author) for author in others] == [None, None]


async def test_an_error_that_names_nobody_is_found_by_halves(roles: Roles) -> None:
    async with scene_on(roles) as scene:
        authors = await asyncio.gather(*(scene.begun() for _ in range(33)))
        thief = authors[17]
        done = await asyncio.gather(
            *(scene.write(a, a.seal(), *([a.new_run()] if a is thief else [])) for a in authors),
            return_exceptions=True,
        )
        assert [at for at, told in enumerate(done) if isinstance(told, LedgerError)] == [17]
