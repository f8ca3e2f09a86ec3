"""What is signed is durable and follows from what was signed; what was lost is not written over."""

import asyncio
import json
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from app.domain.errors import ConfigurationError, LedgerUnavailableError
from app.ledger.hashing import leaf_hash
from app.sequencing.anchor_file import AnchorFile
from app.sequencing.anchoring import Anchoring
from app.sequencing.log_keeper import _Term
from app.sequencing.recovery import RecoveryDesk
from app.sequencing.writer_retirement import WriterRetirement
from app.storage.database import Database
from app.transparency.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from app.transparency.merkle_tree import hash_leaf, tree_root
from app.transparency.note import ED25519, verifier_key
from tests.integration.sequencing.keeper_scene import Watch, eventually, exists, watch_on
from tests.integration.sequencing.log_scene import (
    PATIENCE_SECONDS,
    assert_logs_whole,
    integrated,
    led,
    origin_of,
)
from tests.integration.sequencing.test_sequencer import forge
from tests.integration.storage.append_scene import scene_on, step
from tests.support.databases import DatabaseServer, Roles, connect, execute

pytestmark = pytest.mark.anyio


@pytest.fixture
async def fresh(postgres: DatabaseServer) -> Roles:
    return await asyncio.to_thread(postgres.new_database)


def covered(size: int, log: UUID) -> tuple[str, UUID, int]:
    return "SELECT 1 FROM checkpoint WHERE tenant_id = $1 AND size >= $2", log, size


async def test_a_tenants_checkpoint_is_signed_and_stands_in_the_operator_log_that_is_anchored(
    fresh: Roles, tmp_path: Path
) -> None:
    anchor = AnchorFile(tmp_path / "anchor")
    async with watch_on(fresh, tmp_path, [anchor]) as watch, watch.running():
        author = await watch.scene.begun()
        await watch.scene.write(author, author.seal(step(), step()))
        await eventually(exists(*covered(3, watch.scene.tenant_id)), fresh)
        await eventually(exists(*covered(2, watch.operator)), fresh)
        raw = await connect(fresh.superuser)
        rows = await raw.fetch("SELECT * FROM checkpoint WHERE anchor_run IS NOT NULL")
        leaves = await raw.fetch(
            "SELECT r.run_id, r.seq, r.chain FROM leaf l JOIN record r"
            " USING (tenant_id, run_id, seq) WHERE l.tenant_id = $1 ORDER BY idx",
            watch.scene.tenant_id,
        )
        await raw.close()
        chain = await watch.operator_chain()
        newest = None
        async with asyncio.timeout(PATIENCE_SECONDS):
            while newest is None:
                newest = await anchor.newest(origin_of(watch.operator.bytes))
                await asyncio.sleep(0)
    log = watch.scene.tenant_id.bytes
    hashes = [leaf_hash(log, row["run_id"].bytes, row["seq"], row["chain"]) for row in leaves]
    for row in rows:
        key = verifier_key(row["origin"], ED25519, watch.log_key.public_key)
        found = open_checkpoint(row["note"].encode(), key)
        assert found.origin == origin_of(log)
        assert (found.size, found.root) == (row["size"], tree_root(hashes[: found.size]))
        record = chain.records[row["anchor_seq"]]
        assert record.kind == "checkpoint.tenant"
        assert json.loads(record.fields["note"]) == {"checkpoint": row["note"]}
    assert newest.size >= 2


async def test_a_head_that_does_not_follow_from_what_was_signed_is_not_signed(
    fresh: Roles, tmp_path: Path
) -> None:
    """Who rewrites a log in the database must not get the log key's signature for it."""
    async with watch_on(fresh, tmp_path) as watch:
        author = await watch.scene.begun()
        maker = watch.checkpoints()
        async with led(fresh) as (leader, sequencer):
            await sequencer.tick()
            assert await maker.sign_tenants(leader) == 1
            await watch.scene.write(author, author.seal())
            await sequencer.tick()
            await execute(
                fresh.superuser,
                "ALTER TABLE tile DISABLE TRIGGER ALL",
                "ALTER TABLE log_head DISABLE TRIGGER ALL",
                "UPDATE tile SET data = sha256('forged') || substr(data, 33)",
                "UPDATE log_head SET root = sha256('\\x01'::bytea || data) FROM tile"
                " WHERE tile.tenant_id = log_head.tenant_id AND level = 0 AND size = 2",
            )
            assert await maker.sign_tenants(leader) == 0
        raw = await connect(fresh.superuser)
        assert await raw.fetchval("SELECT max(size) FROM checkpoint WHERE anchor_run NOTNULL") == 1
        await raw.close()


async def test_a_log_that_was_renamed_is_not_signed_anew(fresh: Roles, tmp_path: Path) -> None:
    """Under another name it would begin without a past that it has to follow from."""
    async with watch_on(fresh, tmp_path) as watch:
        author = await watch.scene.begun()
        maker = watch.checkpoints()
        async with led(fresh) as (leader, sequencer):
            await sequencer.tick()
            assert await maker.sign_tenants(leader) == 1
            await watch.scene.write(author, author.seal())
            await sequencer.tick()
            own = origin_of(watch.scene.tenant_id.bytes)
            for name in ("other.test/ledger/" + watch.scene.tenant_id.hex, own + "x"):
                await execute(
                    fresh.superuser,
                    "ALTER TABLE log_head DISABLE TRIGGER ALL",
                    f"UPDATE log_head SET origin = '{name}' WHERE origin = '{own}'",
                )
                assert await maker.sign_tenants(leader) == 0
                await execute(
                    fresh.superuser, f"UPDATE log_head SET origin = '{own}' WHERE origin = '{name}'"
                )
            assert await watch.checkpoints().sign_tenants(leader) == 1


@pytest.mark.parametrize(
    "change",
    ["root = sha256('forged')", "origin = 'test.local/ledger/' || repeat('0', 32)"],
    ids=["another root", "the name of another log"],
)
async def test_of_a_log_that_was_changed_before_its_first_signature_nothing_is_signed(
    fresh: Roles, tmp_path: Path, change: str
) -> None:
    """Nothing was signed of it that it would have to follow from."""
    async with watch_on(fresh, tmp_path) as watch:
        await watch.scene.begun()
        async with led(fresh) as (leader, sequencer):
            await sequencer.tick()
            own = f"tenant_id = '{watch.scene.tenant_id}'"
            await execute(
                fresh.superuser,
                "ALTER TABLE log_head DISABLE TRIGGER ALL",
                f"CREATE TABLE kept AS SELECT origin, root FROM log_head WHERE {own}",
                f"UPDATE log_head SET {change} WHERE {own}",
            )
            assert await watch.checkpoints().sign_tenants(leader) == 0
            await execute(
                fresh.superuser,
                f"UPDATE log_head SET (origin, root) = (SELECT origin, root FROM kept) WHERE {own}",
            )
            assert await watch.checkpoints().sign_tenants(leader) == 1


@pytest.mark.parametrize(
    ("size", "told"),
    [(1, "has seen another history"), (2, "has seen another history"), (9, "has seen 9 leaves")],
)
async def test_a_leader_whose_witness_has_seen_something_else_halts_the_ledger(
    fresh: Roles, tmp_path: Path, size: int, told: str
) -> None:
    """Somebody leads another copy of the log; nobody knew of it when this term began."""
    path = tmp_path / "anchor"
    async with watch_on(fresh, tmp_path, [AnchorFile(path)]) as watch:
        await watch.scene.begun()
        async with led(fresh) as (leader, sequencer):
            term = _Term(watch.keeper._parts, leader, watch.operator, asyncio.Event())
            await sequencer.tick()
            await term._compare()
            other = Checkpoint(
                origin=origin_of(watch.operator.bytes), size=size, root=hash_leaf(b"other")
            )
            note = sign_checkpoint(other, bytes(32)).decode()
            path.write_text(json.dumps({"checkpoint": note}) + "\n", encoding="utf-8")
            await term._sign(sequencer)
            assert term._publishing is not None
            await asyncio.wait([term._publishing])
            await term._collect()
            assert told in str(await leader.raw.fetchval("SELECT max(halted) FROM tenants"))


async def test_what_is_left_out_is_alarmed_once(fresh: Roles, tmp_path: Path) -> None:
    async with watch_on(fresh, tmp_path) as watch:
        victim = await watch.scene.begun()
        await forge(watch.scene, victim, victim.seal())
        for _ in range(2):  # the second keeper begins anew and knows of the first one's alarm
            async with watch.running():
                await watch.scene.write(victim, victim.seal())
                other = await watch.scene.begun()
                in_log = "SELECT 1 FROM leaf WHERE run_id = $1"
                await eventually(exists(in_log, other.run_id), fresh)
                await eventually(exists("SELECT 1 FROM left_out WHERE alarm_seq >= 0"), fresh)
        chain = await watch.operator_chain()
    alarms = [json.loads(r.fields["note"]) for r in chain.records if r.kind == "integrity.alarm"]
    assert alarms == [
        {
            "log": watch.scene.tenant_id.hex,
            "run": victim.run_id.hex,
            "seq": 1,
            "reason": "the signature of a batch does not hold",
        }
    ]


async def test_a_writer_that_stood_still_is_retired_with_the_sizes_of_all_logs(
    fresh: Roles, tmp_path: Path
) -> None:
    now = 0.0
    async with watch_on(fresh, tmp_path) as watch, scene_on(fresh, tenant="gone") as gone:
        await gone.begun()
        retirement = WriterRetirement(watch.admin_log, watch.operator, lambda: now)
        async with led(fresh) as (leader, sequencer):
            for _ in range(95):
                await watch.scene.runs.beat(UUID(bytes=watch.scene.writer.writer_id))
                await sequencer.tick()
                await retirement.look(leader)
                now += 10.0
        chain = await watch.operator_chain()
        told = [json.loads(r.fields["note"]) for r in chain.records if r.kind == "key.retired"]
        assert told == [
            {"writer_id": gone.writer.writer_id.hex(), "sizes": {gone.tenant_id.hex: 1}}
        ]
        await watch.scene.begun()


async def test_a_pause_of_the_database_retires_nobody(fresh: Roles, tmp_path: Path) -> None:
    now = 0.0
    async with watch_on(fresh, tmp_path) as watch, scene_on(fresh, tenant="quiet") as quiet:
        await quiet.begun()
        retirement = WriterRetirement(watch.admin_log, watch.operator, lambda: now)
        async with led(fresh) as (leader, sequencer):
            for pause in (0.0, 10.0, 5000.0, 10.0):
                now += pause
                await sequencer.tick()
                await retirement.look(leader)
        author = quiet.author()
        await quiet.write(author, author.seal(), author.new_run())


async def _copy(roles: Roles, name: str) -> Roles:
    """The database as it is now, as from a backup."""
    source = urlsplit(roles.superuser).path[1:]
    make = f'CREATE DATABASE "{name}" TEMPLATE "{source}" OWNER mf_owner'
    await execute(roles.named("postgres").superuser, make)
    return roles.named(name)


async def _count(roles: Roles, table: str) -> int:
    raw = await connect(roles.superuser)
    found: int = await raw.fetchval(f"SELECT count(*) FROM {table}")
    await raw.close()
    return found


async def _reached(watch: Watch, size: int) -> None:
    """Until the anchor has seen so many leaves."""
    async with asyncio.timeout(60):
        while True:
            newest = await watch.anchors[0].newest(origin_of(watch.operator.bytes))
            if newest is not None and newest.size >= size:
                return
            author = await watch.scene.begun()
            await watch.scene.write(author, author.seal())
            await asyncio.sleep(0.02)


async def test_a_database_that_was_set_back_is_not_written_until_a_recovery_is_opened(
    fresh: Roles, tmp_path: Path
) -> None:
    anchor = AnchorFile(tmp_path / "anchor")
    async with watch_on(fresh, tmp_path, [anchor]) as watch, watch.running():
        await _reached(watch, 3)
    restored = await _copy(fresh, f"mf_restored_{watch.operator.hex[:8]}")
    async with watch_on(fresh, tmp_path, [anchor]) as watch, watch.running():
        await _reached(watch, 12)

    async with watch_on(restored, tmp_path, [anchor]) as watch:
        author = await watch.scene.begun()
        signed = await _count(restored, "checkpoint")
        async with watch.running():
            await eventually(exists("SELECT 1 FROM tenants WHERE halted IS NOT NULL"), restored)
            assert await _count(restored, "checkpoint") == signed, "signed before it compared"
            with pytest.raises(LedgerUnavailableError):
                await watch.scene.write(author, author.seal())
            owner = Database(restored.owner, pool_size=2)
            desk = RecoveryDesk(
                owner=owner,
                admin_log=watch.admin_log,
                anchoring=Anchoring([anchor], owner, watch.operator),
                continuity=watch.continuity(),
                operator=watch.operator,
            )
            loss = await desk.known_loss()
            assert loss is not None
            lost = loss.seen.size - loss.held
            assert lost > 0
            for wrong in (None, lost + 1):
                with pytest.raises(ConfigurationError, match="name what is lost"):
                    await desk.open(wrong)
            opened = await desk.open(lost)
            await owner.close()
            assert opened.origin == origin_of(watch.operator.bytes) + "/r1"
            await watch.scene.write(author, author.seal())
            new = "SELECT 1 FROM checkpoint WHERE tenant_id = $1 AND origin = $2"
            await eventually(exists(new, watch.operator, opened.origin), restored)
            async with asyncio.timeout(60):
                while await anchor.newest(opened.origin) is None:
                    await watch.scene.write(author, author.seal())
        chain = await watch.operator_chain()
    told = [json.loads(r.fields["note"]) for r in chain.records if r.kind == "log.recovery"]
    assert {note["origin"] for note in told} >= {opened.origin}
    assert told[0]["lost"] == lost
    assert told[0]["old_origin"] == origin_of(watch.operator.bytes)
    await integrated(restored)
    await assert_logs_whole(restored)
    drop = f'DROP DATABASE "mf_restored_{watch.operator.hex[:8]}" WITH (FORCE)'
    await execute(fresh.superuser, drop)
