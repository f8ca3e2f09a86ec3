"""A term begins where an earlier one has verified to, and what was changed beneath is not signed.

Threat: Ledger tampering
"""

import asyncio
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.administration.admin_log import AdminLog, AdminPage
from app.domain.errors import ChainBreak, KeyStoreError
from app.domain.run import TenantId
from app.keys.signing_keys import SigningKey, SigningKeys
from app.ledger.chain import Resume
from app.sequencing.anchor_file import AnchorFile
from app.sequencing.verified_start import Standing, VerifiedStart
from app.storage.database import Database
from tests.integration.sequencing.keeper_scene import (
    Watch,
    continuity_of,
    eventually,
    exists,
    start_of,
    watch_on,
)
from tests.integration.sequencing.log_scene import PATIENCE_SECONDS, origin_of
from tests.integration.sequencing.test_continuity import (
    ATTACKS,
    HALTED,
    Act,
    checkpoints_of,
    done_by_superuser,
    goes_on,
    recovered,
    renumbered,
    written,
)
from tests.support.databases import DatabaseServer, Roles

pytestmark = pytest.mark.anyio


@pytest.fixture
async def fresh(postgres: DatabaseServer) -> Roles:
    return await asyncio.to_thread(postgres.new_database)


class NotedAdminLog(AdminLog):
    """The real one; notes from where it is read."""

    def __init__(self, inner: AdminLog) -> None:
        super().__init__(inner._parts)
        self.begun_at: list[int] = []

    async def read_on(
        self, tenant_id: TenantId, after: Resume | None, enrolment: Collection[bytes]
    ) -> AdminPage | ChainBreak | None:
        self.begun_at.append(0 if after is None else after.next_seq)
        return await super().read_on(tenant_id, after, enrolment)


async def _standing(watch: Watch) -> Standing:
    assert watch.start is not None
    found = await watch.start.load()
    assert found is not None, "no start was kept"
    return found


async def _first_read(watch: Watch, roles: Roles) -> int:
    """At which record a new term begins to read."""
    noted = NotedAdminLog(watch.admin_log)
    database = Database(roles.sequencer, pool_size=1)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), database.driver() as raw:
            made = continuity_of(watch.signing, noted, watch.operator, watch.start)
            assert await made.read_on(raw) is True
    finally:
        await database.close()
    return noted.begun_at[0]


async def test_a_term_reads_on_from_where_an_earlier_one_stood(
    fresh: Roles, tmp_path: Path
) -> None:
    await written(fresh, tmp_path, AnchorFile(tmp_path / "anchor"), save_every=1)
    async with watch_on(fresh, tmp_path, save_every=1) as watch:
        standing = await _standing(watch)
        assert await _first_read(watch, fresh) == standing.head.next_seq > 0
        assert standing.tree.size + len(standing.loose) == standing.head.next_seq
        assert await _first_read(replace(watch, start=None), fresh) == 0


async def test_a_start_is_kept_only_once_there_is_enough_that_is_new(
    fresh: Roles, tmp_path: Path
) -> None:
    await written(fresh, tmp_path, AnchorFile(tmp_path / "anchor"), save_every=1000)
    async with watch_on(fresh, tmp_path, save_every=1) as watch:
        assert watch.start is not None
        assert await watch.start.load() is None
        assert not watch.start.is_due(5, 5, 0)
        assert watch.start.is_due(6, 5, 1)
        assert not watch.start.is_due(8, 5, 4), "a file of many notes is not written for a few"


@pytest.mark.parametrize(("act", "reason"), ATTACKS)
async def test_a_tenants_log_that_was_changed_beneath_the_start_is_halted_and_not_signed(
    fresh: Roles, tmp_path: Path, act: Act, reason: str
) -> None:
    """The notes that say so were read in an earlier term."""
    log, operator = await written(fresh, tmp_path, AnchorFile(tmp_path / "anchor"), save_every=1)
    await done_by_superuser(fresh, log, act)
    async with watch_on(fresh, tmp_path, save_every=1) as watch:
        assert origin_of(log.bytes) in (await _standing(watch)).newest
        own = await checkpoints_of(fresh, operator)
        async with watch.running():
            await eventually(exists(HALTED), fresh)
    assert await checkpoints_of(fresh, log) == 0, reason
    assert await checkpoints_of(fresh, operator) == own


async def _rewrite(raw: asyncpg.Connection, log: UUID) -> None:
    await raw.execute(
        "UPDATE record SET chain = sha256(chain) WHERE tenant_id = $1 AND seq = 1", log
    )
    await renumbered(raw, log)


async def _cut(raw: asyncpg.Connection, log: UUID) -> None:
    """The operator log ends with its second record, as if it had never been longer."""
    for table in ("payload", "record"):
        await raw.execute(f"DELETE FROM {table} WHERE tenant_id = $1 AND seq > 1", log)
    await renumbered(raw, log)


@pytest.mark.parametrize("grows", [False, True])
@pytest.mark.parametrize("act", [_rewrite, _cut])
async def test_an_operator_log_that_was_changed_beneath_the_start_is_not_signed_without_any_anchor(
    fresh: Roles, tmp_path: Path, act: Act, *, grows: bool
) -> None:
    """Nobody outside has seen it and no row says how it was: the start does."""
    _, operator = await written(fresh, tmp_path, AnchorFile(tmp_path / "anchor"), save_every=1)
    await done_by_superuser(fresh, operator, act)
    async with watch_on(fresh, tmp_path, save_every=1) as watch:
        if grows:
            standing = await _standing(watch)
            for _ in range(standing.head.next_seq):
                told = {"from": None, "to": "2"}
                await watch.admin_log.append(watch.operator, "schema.change", {**told})
        async with watch.running():
            await eventually(exists(HALTED), fresh)
    assert await checkpoints_of(fresh, operator) == 0


async def test_after_a_recovery_all_is_read_anew_by_the_leader_that_halted(
    fresh: Roles, tmp_path: Path
) -> None:
    """A backup was restored, and no anchor remembers more: somebody has to own up to it."""
    _, operator = await written(fresh, tmp_path, AnchorFile(tmp_path / "anchor"), save_every=1)
    await done_by_superuser(fresh, operator, _cut)
    async with watch_on(fresh, tmp_path, save_every=1) as watch, watch.running():
        await eventually(exists(HALTED), fresh)
        await recovered(watch, fresh)
        name = f"{origin_of(watch.scene.tenant_id.bytes)}/r1"
        await goes_on(watch, fresh, name, 8)


async def test_a_start_that_the_log_key_did_not_sign_is_none(fresh: Roles, tmp_path: Path) -> None:
    await written(fresh, tmp_path, AnchorFile(tmp_path / "anchor"), save_every=1)
    async with watch_on(fresh, tmp_path, save_every=1) as watch:
        standing, signing, start = await _standing(watch), watch.signing, watch.start
        assert start is not None
        path = tmp_path / "keys" / "verified" / watch.operator.hex
        assert path.stat().st_mode & 0o777 == 0o600
        whole = path.read_bytes()
        for at in (0, 63, 64, 200, len(whole) - 1):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            assert await start.load() is None
        for torn in (b"", whole[:63], whole[:-1]):
            path.write_bytes(torn)
            assert await start.load() is None
        await _forger(tmp_path, watch.operator).save(standing)
        assert path.read_bytes() != whole
        assert await start.load() is None
        assert await _first_read(watch, fresh) == 0
        other = TenantId(uuid4())
        path.with_name(other.hex).write_bytes(whole)
        assert await start_of(tmp_path, signing, other, 1).load() is None


def _forger(directory: Path, operator: TenantId) -> VerifiedStart:
    key = SigningKey(bytes(32))
    return VerifiedStart(
        directory / "keys",
        operator,
        signing_key=lambda: key,
        public_keys=lambda: [key.public_key],
    )


async def test_a_start_that_cannot_be_taken_away_is_told(tmp_path: Path) -> None:
    """A recovery must not seem to be over while the leader still begins at what it gave up."""
    start = _forger(tmp_path, TenantId(uuid4()))
    await start.forget()  # there is none
    start._path.mkdir(parents=True)
    with pytest.raises(KeyStoreError, match="cannot be removed"):
        await start.forget()
    assert await start.load() is None


async def test_an_older_start_leads_to_the_same_end(fresh: Roles, tmp_path: Path) -> None:
    anchor = AnchorFile(tmp_path / "anchor")
    log, _ = await written(fresh, tmp_path, anchor, save_every=1)
    async with watch_on(fresh, tmp_path, [anchor], save_every=1) as watch, watch.running():
        path = tmp_path / "keys" / "verified" / watch.operator.hex
        older = path.read_bytes()
        await goes_on(watch, fresh, origin_of(log.bytes), 8)
    path.write_bytes(older)
    async with watch_on(fresh, tmp_path, [anchor], save_every=1) as watch, watch.running():
        await goes_on(watch, fresh, origin_of(log.bytes), 10)


async def test_a_start_outlives_a_rotation_of_the_log_key(fresh: Roles, tmp_path: Path) -> None:
    await written(fresh, tmp_path, AnchorFile(tmp_path / "anchor"), save_every=1)
    SigningKeys(tmp_path / "keys", lambda count: b"\7" * count).add("log")
    async with watch_on(fresh, tmp_path, save_every=1) as watch:
        assert (await _standing(watch)).head.next_seq


async def test_where_nothing_can_be_written_a_term_reads_all_and_goes_on(
    fresh: Roles, tmp_path: Path
) -> None:
    (tmp_path / "keys").mkdir(mode=0o700)
    (tmp_path / "keys" / "verified").write_bytes(b"")  # a file where the directory would be
    anchor = AnchorFile(tmp_path / "anchor")
    log, _ = await written(fresh, tmp_path, anchor, save_every=1)
    async with watch_on(fresh, tmp_path, [anchor], save_every=1) as watch, watch.running():
        await goes_on(watch, fresh, origin_of(log.bytes), 8)
