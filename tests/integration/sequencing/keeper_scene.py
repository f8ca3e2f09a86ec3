"""A keeper on a real database, with whatever anchors a test gives it."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import asyncpg

from app.administration.admin_log import AdminLog, AdminParts
from app.domain.run import TenantId
from app.keys.key_store import FileKeyStore
from app.keys.signing_keys import LOG, SigningKey, SigningKeys
from app.ledger.chain import VerifiedChain, verify_run
from app.ledger.key_statements import KeyChange
from app.runs.run_keys import RunKeys
from app.sequencing.anchoring import Anchor, Anchoring
from app.sequencing.checkpoints import CheckpointMaker
from app.sequencing.continuity import Continuity
from app.sequencing.log_keeper import KeeperParts, LogKeeper
from app.sequencing.log_signer import LogSigner
from app.sequencing.signed_history import SignedHistory
from app.sequencing.verified_start import VerifiedStart
from app.storage.database import Database
from tests.integration.sequencing.log_scene import PATIENCE_SECONDS, origin_of
from tests.integration.storage.append_scene import ENROLMENT, Scene, scene_on
from tests.support.databases import Roles, connect

ERASURE_SEED = bytes(range(32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """A process with a keeper, and what a test looks at."""

    scene: Scene
    roles: Roles
    admin_log: AdminLog
    run_keys: RunKeys
    log_key: SigningKey
    signing: SigningKeys
    operator: TenantId
    database: Database
    keeper: LogKeeper
    anchors: Sequence[Anchor]
    start: VerifiedStart | None

    def continuity(self) -> Continuity:
        """One that reads all, as a recovery does."""
        return continuity_of(self.signing, self.admin_log, self.operator)

    def checkpoints(self) -> CheckpointMaker:
        return CheckpointMaker(
            admin_log=self.admin_log,
            operator=self.operator,
            signer=signer_of(self.signing, self.admin_log, self.operator),
            continuity=self.continuity(),
            now=lambda: datetime.now(UTC),
        )

    async def operator_chain(self) -> VerifiedChain:
        """The operator log's administration run, which must hold."""
        found = await self.scene.store.admin_run(self.operator)
        assert found is not None
        async with self.scene.database.snapshot(self.operator) as raw:
            row = await self.scene.runs.find(raw, self.operator, found.run_id)
            assert row is not None
            stored, key = await self.scene.store.read(raw, row)
        key_in_clear = self.run_keys.open(self.operator, found.run_id, key)
        checked = verify_run(stored, key_in_clear, ENROLMENT)
        assert isinstance(checked, VerifiedChain), checked
        return checked

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The keeper at work."""
        self.keeper.may_write.set()
        task = asyncio.create_task(self.keeper.run_forever())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _enrolment() -> Collection[bytes]:
    return ENROLMENT


async def _no_rotations() -> Sequence[KeyChange]:
    return ()


def signer_of(signing: SigningKeys, admin_log: AdminLog, operator: TenantId) -> LogSigner:
    """A signer of the first key, which nothing has followed."""
    return LogSigner(
        signing=signing, admin_log=admin_log, operator=operator, recorded=_no_rotations
    )


def start_of(
    directory: Path, signing: SigningKeys, operator: TenantId, save_every: int
) -> VerifiedStart:
    """The verified start that processes with the keys of `directory` share."""
    return VerifiedStart(
        directory / "keys",
        operator,
        signing_key=lambda: signing.current(LOG),
        public_keys=lambda: [key.public_key for key in signing.every(LOG)],
        save_every=save_every,
    )


def continuity_of(
    signing: SigningKeys,
    admin_log: AdminLog,
    operator: TenantId,
    start: VerifiedStart | None = None,
) -> Continuity:
    """What shows that logs continue; tenants are deleted by the key of `ERASURE_SEED`."""
    return Continuity(
        SignedHistory(
            admin_log=admin_log,
            operator=operator,
            enrolment=ENROLMENT,
            erasure_keys=lambda: {SigningKey(ERASURE_SEED).public_key},
            opened=signer_of(signing, admin_log, operator).opened,
            changes=_no_rotations,
        ),
        start,
    )


@asynccontextmanager
async def watch_on(
    roles: Roles,
    directory: Path,
    anchors: Sequence[Anchor] = (),
    *,
    save_every: int | None = None,
) -> AsyncIterator[Watch]:
    """A process on this database; its keys are those of `directory`.

    With `save_every` it keeps a verified start after so many records.
    """
    database = Database(roles.sequencer, pool_size=4)
    clock = count(0.0, 6.0)  # every look at the clock finds a checkpoint due
    try:
        async with scene_on(roles) as scene:
            keys = RunKeys(FileKeyStore(directory / "keys", os.urandom), os.urandom)
            signing = SigningKeys(directory / "keys", os.urandom)
            log_key = signing.current(LOG)
            admin_log = AdminLog(
                AdminParts(
                    ledger=scene.store,
                    runs=scene.runs,
                    keys=keys,
                    writer=scene.writer,
                    now=lambda: datetime.now(UTC),
                    entropy=os.urandom,
                )
            )
            operator = await admin_log.operator_log_id()
            start = None
            if save_every is not None:
                start = start_of(directory, signing, operator, save_every)
            parts = KeeperParts(
                database=database,
                admin_log=admin_log,
                enrolment=_enrolment,
                origin_of=origin_of,
                anchoring_of=lambda log: Anchoring(anchors, database, log),
                checkpoints_of=lambda log: CheckpointMaker(
                    admin_log=admin_log,
                    operator=log,
                    signer=signer_of(signing, admin_log, log),
                    continuity=continuity_of(signing, admin_log, log, start),
                    now=lambda: datetime.now(UTC),
                ),
                appended=scene.store.appended,
                monotonic=lambda: next(clock),
            )
            yield Watch(
                scene=scene,
                roles=roles,
                admin_log=admin_log,
                run_keys=keys,
                log_key=log_key,
                signing=signing,
                operator=operator,
                database=database,
                keeper=LogKeeper(parts),
                anchors=anchors,
                start=start,
            )
    finally:
        await database.close()


async def eventually(look: Callable[[asyncpg.Connection], Awaitable[bool]], roles: Roles) -> None:
    """Returns when the database looks like that; fails when it never does."""
    raw = await connect(roles.superuser)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await look(raw):  # noqa: ASYNC110 - another process's rows set no event
                await asyncio.sleep(0.02)
    finally:
        await raw.close()


def exists(query: str, *arguments: object) -> Callable[[asyncpg.Connection], Awaitable[bool]]:
    """Whether the query has a row."""

    async def look(raw: asyncpg.Connection) -> bool:
        return bool(await raw.fetch(query, *arguments))

    return look
