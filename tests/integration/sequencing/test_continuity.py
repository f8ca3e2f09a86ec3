"""Who cuts or rewrites a log beneath the operator log gets no signature for what is left of it."""

import asyncio
import json
from base64 import b64decode
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import asyncpg
import pytest

from app.domain.erasure import ErasureAction
from app.domain.run import JsonObject
from app.keys.signing_keys import SigningKey
from app.ledger.chain import VerifiedChain
from app.ledger.erasure_statement import ErasureStatement, signed_note
from app.ledger.hashing import leaf_hash
from app.sequencing.anchor_file import AnchorFile
from app.sequencing.anchoring import Anchoring
from app.sequencing.recovery import Recovery, RecoveryDesk
from app.storage.database import Database
from app.transparency.checkpoint import Checkpoint, sign_checkpoint
from app.transparency.merkle_tree import tree_root
from app.transparency.tiles import grown
from tests.integration.sequencing.keeper_scene import (
    ERASURE_SEED,
    Watch,
    eventually,
    exists,
    watch_on,
)
from tests.integration.sequencing.log_scene import led, origin_of
from tests.integration.storage.append_scene import Author, scene_on
from tests.support.databases import DatabaseServer, Roles, connect

pytestmark = pytest.mark.anyio

Act: TypeAlias = Callable[[asyncpg.Connection, UUID], Awaitable[None]]
TABLES = ("record", "payload", "batch", "leaf", "tile", "log_head", "checkpoint", "cosignature")
HALTED = "SELECT 1 FROM tenants WHERE halted IS NOT NULL"
SIGNED = "SELECT 1 FROM checkpoint WHERE tenant_id = $1 AND origin = $2 AND size >= $3"


@pytest.fixture
async def fresh(postgres: DatabaseServer) -> Roles:
    return await asyncio.to_thread(postgres.new_database)


async def written(
    roles: Roles, directory: Path, anchor: AnchorFile, *, save_every: int | None = None
) -> tuple[UUID, UUID]:
    """Two runs of three records each, signed and anchored; the log and the operator log."""
    async with (
        watch_on(roles, directory, [anchor], save_every=save_every) as watch,
        AsyncExitStack() as stack,
    ):
        log = watch.scene.tenant_id
        told: JsonObject = {"from": None, "to": "1"}
        await watch.admin_log.append(watch.operator, "schema.change", told)
        await stack.enter_async_context(watch.running())
        for _ in range(2):
            author = await watch.scene.begun()
            for _ in range(2):
                await watch.scene.write(author, author.seal())
        await eventually(exists(SIGNED, log, origin_of(log.bytes), 6), roles)
        operator = watch.operator
        own = exists(
            "SELECT 1 FROM checkpoint o JOIN checkpoint t ON t.anchor_seq < o.size"
            " WHERE o.tenant_id = $1 AND t.tenant_id = $2 AND t.size = 6",
            operator,
            log,
        )
        await eventually(own, roles)
        async with asyncio.timeout(60):
            while await anchor.newest(origin_of(operator.bytes)) is None:  # noqa: ASYNC110 - a file sets no event
                await asyncio.sleep(0)
    return log, operator


async def done_by_superuser(roles: Roles, log: UUID, act: Act) -> None:
    raw = await connect(roles.superuser)
    try:
        for table in (*TABLES, "leaf_default", "tile_default"):
            await raw.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        await act(raw, log)
    finally:
        await raw.close()


async def renumbered(
    raw: asyncpg.Connection, log: UUID, *, emptied: tuple[str, ...] = ("checkpoint",)
) -> None:
    """Make the log one of the records that are there, and leave no checkpoint of it."""
    rows = await raw.fetch(
        "SELECT l.run_id, l.seq, r.chain FROM leaf l JOIN record r USING (tenant_id, run_id, seq)"
        " WHERE l.tenant_id = $1 ORDER BY l.idx",
        log,
    )
    hashes = [leaf_hash(log.bytes, row["run_id"].bytes, row["seq"], row["chain"]) for row in rows]
    for table in ("leaf", "tile", *emptied):
        await raw.execute(f"DELETE FROM {table} WHERE tenant_id = $1", log)
    for index, row in enumerate(rows):
        await raw.execute(
            "INSERT INTO leaf (tenant_id, idx, run_id, seq) VALUES ($1, $2, $3, $4)",
            log,
            index,
            row["run_id"],
            row["seq"],
        )
    for place, data in grown(0, {}, hashes).items():
        await raw.execute(
            "INSERT INTO tile (tenant_id, level, n, data) VALUES ($1, $2, $3, $4)",
            log,
            place.level,
            place.n,
            data,
        )
    await raw.execute(
        "UPDATE log_head SET size = $2, root = $3 WHERE tenant_id = $1",
        log,
        len(rows),
        tree_root(hashes),
    )


async def _cut(raw: asyncpg.Connection, log: UUID) -> None:
    """The last two records are gone, as if they had never been."""
    last = "(SELECT run_id, seq FROM leaf WHERE tenant_id = $1 AND idx >= 4)"
    for table in ("payload", "record"):
        await raw.execute(
            f"DELETE FROM {table} WHERE tenant_id = $1 AND (run_id, seq) IN {last}", log
        )
    await raw.execute(
        "DELETE FROM batch b WHERE tenant_id = $1 AND NOT EXISTS (SELECT 1 FROM record r"
        " WHERE r.tenant_id = b.tenant_id AND r.batch_id = b.batch_id)",
        log,
    )
    await renumbered(raw, log)


async def _rewrite(raw: asyncpg.Connection, log: UUID) -> None:
    """Another record in the place of one, as somebody who has a writer's key could make it."""
    await _rewrite_beside_checkpoints(raw, log)
    await raw.execute("DELETE FROM checkpoint WHERE tenant_id = $1", log)


async def _rewrite_beside_checkpoints(raw: asyncpg.Connection, log: UUID) -> None:
    """The same, and the rows of its checkpoints stay."""
    await raw.execute(
        "UPDATE record SET chain = sha256(chain) WHERE tenant_id = $1 AND (run_id, seq)"
        " = (SELECT run_id, seq FROM leaf WHERE tenant_id = $1 AND idx = 2)",
        log,
    )
    await renumbered(raw, log, emptied=())


async def _free_of_a_run(raw: asyncpg.Connection, log: UUID) -> None:
    """The first run was never there."""
    run = await raw.fetchval("SELECT run_id FROM leaf WHERE tenant_id = $1 AND idx = 0", log)
    for table in ("payload", "record"):
        await raw.execute(f"DELETE FROM {table} WHERE tenant_id = $1 AND run_id = $2", log, run)
    await raw.execute(
        "DELETE FROM batch b WHERE tenant_id = $1 AND NOT EXISTS (SELECT 1 FROM record r"
        " WHERE r.tenant_id = b.tenant_id AND r.batch_id = b.batch_id)",
        log,
    )
    await renumbered(raw, log)


async def _vanish(raw: asyncpg.Connection, log: UUID) -> None:
    """As after the deletion of a tenant."""
    for table in TABLES:
        await raw.execute(f"DELETE FROM {table} WHERE tenant_id = $1", log)


async def _rename(raw: asyncpg.Connection, log: UUID) -> None:
    """Under a name that nobody signed it would begin without a past."""
    await raw.execute("DELETE FROM checkpoint WHERE tenant_id = $1", log)
    await raw.execute("UPDATE log_head SET origin = origin || '/r1' WHERE tenant_id = $1", log)


async def checkpoints_of(roles: Roles, log: UUID) -> int:
    raw = await connect(roles.superuser)
    found: int = await raw.fetchval("SELECT count(*) FROM checkpoint WHERE tenant_id = $1", log)
    await raw.close()
    return found


def _notes(chain: VerifiedChain, kind: str) -> list[dict[str, object]]:
    return [json.loads(record.fields["note"]) for record in chain.records if record.kind == kind]


ATTACKS = [
    (_cut, "6 leaves were signed of the log, and it has 4"),
    (_rewrite, "6 leaves were signed of the log, and it has another history"),
    (_free_of_a_run, "6 leaves were signed of the log, and it has 3"),
    (_vanish, "6 leaves were signed of the log, and it is gone"),
    (_rename, "6 leaves were signed of the log, and it is gone"),
]


@pytest.mark.parametrize(("act", "reason"), ATTACKS)
async def test_a_log_that_was_changed_while_the_sequencer_was_away_is_halted_and_not_signed(
    fresh: Roles, tmp_path: Path, act: Act, reason: str
) -> None:
    anchor = AnchorFile(tmp_path / "anchor")
    log, operator = await written(fresh, tmp_path, anchor)
    await done_by_superuser(fresh, log, act)
    before = await anchor.newest(origin_of(operator.bytes))
    async with watch_on(fresh, tmp_path, [anchor]) as watch:
        known = _notes(await watch.operator_chain(), "checkpoint.tenant")
        own = await checkpoints_of(fresh, operator)
        async with watch.running():
            await eventually(exists(HALTED), fresh)
        chain = await watch.operator_chain()
    assert _notes(chain, "checkpoint.tenant") == known, "the operator log took it in"
    assert await checkpoints_of(fresh, log) == 0, "it was signed"
    assert await checkpoints_of(fresh, operator) == own
    assert await anchor.newest(origin_of(operator.bytes)) == before
    told = f"log {log.hex}: {reason}"
    assert _notes(chain, "integrity.alarm") == [
        {"log": log.hex, "run": None, "seq": None, "reason": told}
    ]


async def test_a_log_that_grew_past_its_old_size_is_halted_if_it_does_not_continue(
    fresh: Roles, tmp_path: Path
) -> None:
    """The end that was cut off is replaced by other records before the sequencer signs again."""
    anchor = AnchorFile(tmp_path / "anchor")
    log, operator = await written(fresh, tmp_path, anchor)
    await done_by_superuser(fresh, log, _cut)
    async with watch_on(fresh, tmp_path, [anchor]) as watch:
        author: Author = await watch.scene.begun()
        for _ in range(4):
            await watch.scene.write(author, author.seal())
        own = await checkpoints_of(fresh, operator)
        async with watch.running():
            await eventually(exists(HALTED), fresh)
    assert await checkpoints_of(fresh, log) == 0
    assert await checkpoints_of(fresh, operator) == own


async def test_a_change_of_the_operator_logs_records_is_halted(
    fresh: Roles, tmp_path: Path
) -> None:
    """Without the notes at its end, the operator log would bless a log that was cut."""
    anchor = AnchorFile(tmp_path / "anchor")
    log, operator = await written(fresh, tmp_path, anchor)

    async def cut_both(raw: asyncpg.Connection, log: UUID) -> None:
        await _cut(raw, log)
        first = await raw.fetchval(
            "SELECT min(seq) FROM record WHERE tenant_id = $1 AND kind = 'checkpoint.tenant'",
            operator,
        )
        for table in ("payload", "record"):
            await raw.execute(
                f"DELETE FROM {table} WHERE tenant_id = $1 AND seq >= $2", operator, first
            )

    await done_by_superuser(fresh, log, cut_both)
    async with watch_on(fresh, tmp_path, [anchor]) as watch:
        own = await checkpoints_of(fresh, operator)
        async with watch.running():
            await eventually(exists(HALTED), fresh)
        (alarm,) = _notes(await watch.operator_chain(), "integrity.alarm")
    assert alarm["log"] == operator.hex
    assert str(alarm["reason"]).endswith("its tree is not that of its records")
    assert await checkpoints_of(fresh, log) == 0
    assert await checkpoints_of(fresh, operator) == own


async def test_a_tile_of_the_operator_log_that_is_another_is_halted_though_nothing_is_to_be_signed(
    fresh: Roles, tmp_path: Path
) -> None:
    anchor = AnchorFile(tmp_path / "anchor")
    _, operator = await written(fresh, tmp_path, anchor)

    async def change(raw: asyncpg.Connection, log: UUID) -> None:
        changed = "UPDATE tile SET data = sha256('other') || substr(data, 33) WHERE tenant_id = $1"
        assert await raw.execute(changed, log) == "UPDATE 1"

    await done_by_superuser(fresh, operator, change)
    async with watch_on(fresh, tmp_path) as watch, watch.running():
        await eventually(exists(HALTED), fresh)


async def goes_on(watch: Watch, roles: Roles, origin: str, size: int) -> None:
    """The log is signed further."""
    author = await watch.scene.begun()
    await watch.scene.write(author, author.seal())
    await eventually(exists(SIGNED, watch.scene.tenant_id, origin, size), roles)
    raw = await connect(roles.superuser)
    assert not await raw.fetch(HALTED)
    await raw.close()


async def test_a_clean_restart_goes_on(fresh: Roles, tmp_path: Path) -> None:
    anchor = AnchorFile(tmp_path / "anchor")
    log, _ = await written(fresh, tmp_path, anchor)
    for size in (8, 10):
        async with watch_on(fresh, tmp_path, [anchor]) as watch, watch.running():
            await goes_on(watch, fresh, origin_of(log.bytes), size)


async def _named_by(case: str, watch: Watch, log: UUID) -> str | None:
    """The checkpoint that a statement of this case names."""
    own = origin_of(log.bytes)
    notes = _notes(await watch.operator_chain(), "checkpoint.tenant")
    honest = next(str(n["checkpoint"]) for n in notes if str(n["checkpoint"]).startswith(own))
    if case == "an unsigned checkpoint":
        size, root = honest.splitlines()[1:3]
        forged = Checkpoint(origin=own, size=int(size), root=b64decode(root))
        return sign_checkpoint(forged, bytes(32)).decode()
    if case == "another log's checkpoint":
        origin = origin_of(watch.operator.bytes)
        other = Checkpoint(origin=origin, size=1, root=bytes(32))
        return sign_checkpoint(other, watch.log_key.seed).decode()
    return honest if case == "its checkpoint" else None


@pytest.mark.parametrize(
    ("case", "is_lawful"),
    [
        ("no checkpoint", True),
        ("its checkpoint", True),
        ("a stranger's key", False),
        ("an unsigned checkpoint", False),
        ("another log's checkpoint", False),
    ],
)
async def test_only_a_deletion_that_the_erasure_key_signed_explains_that_a_log_is_gone(
    fresh: Roles, tmp_path: Path, case: str, *, is_lawful: bool
) -> None:
    anchor = AnchorFile(tmp_path / "anchor")
    log, _ = await written(fresh, tmp_path, anchor)
    key = SigningKey(bytes(32) if case == "a stranger's key" else ERASURE_SEED)
    async with watch_on(fresh, tmp_path, [anchor]) as watch:
        statement = ErasureStatement(
            action=ErasureAction.DELETE_TENANT,
            log=log.bytes,
            run=None,
            at=datetime.now(UTC),
            actor="operator",
            legal_basis="gdpr.17",
            request_ref=bytes(32),
            items=None,
            checkpoint=await _named_by(case, watch, log),
        )
        note = signed_note(statement.encode(), public_key=key.public_key, sign=key.sign)
        await watch.admin_log.append(watch.operator, "erasure.delete_tenant", note)
        await done_by_superuser(fresh, log, _vanish)
        async with scene_on(fresh, tenant="other") as other, watch.running():
            if is_lawful:
                author = await other.begun()
                await other.write(author, author.seal())
                origin = origin_of(other.tenant_id.bytes)
                await eventually(exists(SIGNED, other.tenant_id, origin, 2), fresh)
            else:
                await eventually(exists(HALTED), fresh)
    assert await checkpoints_of(fresh, log) == 0


async def recovered(watch: Watch, roles: Roles) -> Recovery:
    owner = Database(roles.owner, pool_size=2)
    try:
        return await RecoveryDesk(
            owner=owner,
            admin_log=watch.admin_log,
            anchoring=Anchoring(watch.anchors, owner, watch.operator),
            continuity=watch.continuity(),
            operator=watch.operator,
            start=watch.start,
        ).open(None)
    finally:
        await owner.close()


@pytest.mark.parametrize("act", [_cut, _rewrite, _rewrite_beside_checkpoints])
async def test_after_a_recovery_the_log_goes_on_under_its_new_name_and_what_is_lost_is_told(
    fresh: Roles, tmp_path: Path, act: Act
) -> None:
    anchor = AnchorFile(tmp_path / "anchor")
    log, _ = await written(fresh, tmp_path, anchor)
    await done_by_superuser(fresh, log, act)
    new = f"{origin_of(log.bytes)}/r1"
    async with watch_on(fresh, tmp_path, [anchor]) as watch:
        newest = _notes(await watch.operator_chain(), "checkpoint.tenant")[-1]["checkpoint"]
        async with watch.running():
            await eventually(exists(HALTED), fresh)
            done = await recovered(watch, fresh)
            await goes_on(watch, fresh, new, 5)
        told = _notes(await watch.operator_chain(), "log.recovery")
    assert [(item.log, item.note) for item in done.given_up] == [(log.bytes, newest)]
    assert {
        "origin": new,
        "old_origin": origin_of(log.bytes),
        "old_checkpoint": newest,
        "lost": None,
    } in told
    async with watch_on(fresh, tmp_path, [anchor]) as watch, watch.running():
        await goes_on(watch, fresh, new, 7)


async def test_batches_that_are_longer_than_a_page_are_read_whole(
    fresh: Roles, tmp_path: Path
) -> None:
    async with watch_on(fresh, tmp_path) as watch:
        for count in (255, 700, 1):
            notes: list[JsonObject] = [{"at": number} for number in range(count)]
            await watch.admin_log.append_all(watch.operator, "integrity.alarm", notes)
        async with watch.running():
            await goes_on(watch, fresh, origin_of(watch.scene.tenant_id.bytes), 2)


async def test_the_operator_log_does_not_get_shorter_within_a_term(
    fresh: Roles, tmp_path: Path
) -> None:
    """No anchor is asked and no row is left that says how long it was: the leader remembers."""
    async with watch_on(fresh, tmp_path) as watch, led(fresh) as (leader, sequencer):
        maker, operator = watch.checkpoints(), watch.operator
        for _ in range(3):
            await watch.admin_log.append(operator, "schema.change", {"from": None, "to": "1"})
        await sequencer.tick()
        assert await maker.sign_operator(leader) is not None

        async def cut_end(raw: asyncpg.Connection, log: UUID) -> None:
            end = "tenant_id = $1 AND seq = 3"
            await raw.execute(f"DELETE FROM payload WHERE {end}", log)
            await raw.execute(f"DELETE FROM record WHERE {end}", log)
            await renumbered(raw, log)

        await done_by_superuser(fresh, operator, cut_end)
        assert await maker.sign_operator(leader) is None
        assert maker.discontinuity is not None
        assert maker.discontinuity.log == operator.bytes
