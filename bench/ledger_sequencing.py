"""How fast one process puts records into the log, and how old checkpoints get meanwhile."""

import asyncio
import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

from app.administration.admin_log import AdminLog, AdminParts
from app.domain.run import TenantId
from app.embedded.postgres_server import EmbeddedPostgres
from app.keys.key_store import FileKeyStore
from app.keys.signing_keys import SigningKeys
from app.ledger.key_statements import KeyChange
from app.runs.run_keys import RunKeys
from app.sequencing.anchoring import Anchoring
from app.sequencing.checkpoints import CheckpointMaker
from app.sequencing.continuity import Continuity
from app.sequencing.log_keeper import KeeperParts, LogKeeper
from app.sequencing.log_signer import LogSigner
from app.sequencing.sequencer import Sequencer
from app.sequencing.signed_history import SignedHistory
from app.storage.database import Database
from app.storage.ledger_store import LedgerStore
from app.storage.run_store import RunStore
from app.storage.sequencer_store import leading
from bench.append_worker import ENROLMENT, new_writer
from bench.ledger_reading import Figures

AGE_SECONDS = 20.0
AGE_TENANT = "bench-age"
_LOOK_SECONDS = 0.2
Load = Callable[[], Sequence["subprocess.Popen[bytes]"]]


async def sequencing_figures(server: EmbeddedPostgres, load: Load) -> Figures:
    """What the appending rounds left is sequenced; then a keeper works beside 64 clients."""
    app, sequencing = Database(server.app_url), Database(server.sequencer_url, pool_size=4)
    try:
        per_second = await _sequenced_per_second(app, sequencing)
        age = await _checkpoint_age(app, sequencing, load)
    finally:
        await app.close()
        await sequencing.close()
    return Figures(
        metrics={"sequence_per_second": per_second, "checkpoint_age_seconds": age}, baseline={}
    )


def _origin_of(log: bytes) -> str:
    return f"bench.local/ledger/{log.hex()}"


async def _sequenced_per_second(app: Database, sequencing: Database) -> float:
    operator = await RunStore(app).ensure_tenant("!operator")
    leaves, begun = 0, time.perf_counter()
    async with leading(sequencing, operator) as leader:
        assert leader is not None, "somebody else leads"
        sequencer = await Sequencer.start(leader, {ENROLMENT.public_key}, _origin_of)
        has_more = True
        while has_more:
            tick = await sequencer.tick()
            assert tick.left_out == 0, "a good run was left out"
            leaves, has_more = leaves + tick.leaves, tick.has_more
    taken = time.perf_counter() - begun
    print(f"sequenced {leaves} records in {taken:.1f} s")
    return leaves / taken


async def _checkpoint_age(app: Database, sequencing: Database, load: Load) -> float:
    """The greatest age that the newest checkpoint of a log reaches while its runs go on."""
    runs = RunStore(app)
    tenant_id = await runs.ensure_tenant(AGE_TENANT)
    with tempfile.TemporaryDirectory() as directory:
        keeper = await _keeper(app, sequencing, Path(directory))
        keeping = asyncio.create_task(keeper.run_forever())
        working = await asyncio.to_thread(load)
        oldest = await _oldest(app, tenant_id)
        for process in working:
            await asyncio.to_thread(process.communicate)
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
    return oldest


async def _oldest(app: Database, tenant_id: TenantId) -> float:
    query = "SELECT extract(epoch FROM now() - max(created_at))::float8 FROM checkpoint"
    begun = time.perf_counter()
    oldest = 0.0
    while (passed := time.perf_counter() - begun) < AGE_SECONDS:
        async with app.snapshot(tenant_id) as raw:
            age = await raw.fetchval(f"{query} WHERE tenant_id = $1", tenant_id)
        oldest = max(oldest, passed if age is None else age)
        await asyncio.sleep(_LOOK_SECONDS)
    return oldest


async def _no_changes() -> Sequence[KeyChange]:
    return ()


def _checkpoints(admin_log: AdminLog, signing: SigningKeys, log: TenantId) -> CheckpointMaker:
    signer = LogSigner(signing=signing, admin_log=admin_log, operator=log, recorded=_no_changes)
    history = SignedHistory(
        admin_log=admin_log,
        operator=log,
        enrolment={ENROLMENT.public_key},
        erasure_keys=frozenset,
        opened=signer.opened,
        changes=_no_changes,
    )
    return CheckpointMaker(
        admin_log=admin_log,
        operator=log,
        signer=signer,
        continuity=Continuity(history),
        now=lambda: datetime.now(UTC),
    )


async def _enrolment() -> Collection[bytes]:
    return {ENROLMENT.public_key}


async def _keeper(app: Database, sequencing: Database, directory: Path) -> LogKeeper:
    runs, store = RunStore(app), LedgerStore(app)
    keys = FileKeyStore(directory / "keys", os.urandom)
    signing = SigningKeys(directory / "keys", os.urandom)
    admin_log = AdminLog(
        AdminParts(
            ledger=store,
            runs=runs,
            keys=RunKeys(keys, os.urandom),
            writer=await new_writer(runs),
            now=lambda: datetime.now(UTC),
            entropy=os.urandom,
        )
    )
    await admin_log.operator_log_id()
    keeper = LogKeeper(
        KeeperParts(
            database=sequencing,
            admin_log=admin_log,
            enrolment=_enrolment,
            origin_of=_origin_of,
            anchoring_of=lambda log: Anchoring((), sequencing, log),
            checkpoints_of=lambda log: _checkpoints(admin_log, signing, log),
            appended=store.appended,
            monotonic=time.monotonic,
        )
    )
    keeper.may_write.set()
    return keeper
