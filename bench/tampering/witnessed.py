"""A deployment with a sequencer and a real witness, copied for every trial.

The witness is `meshflow witness serve` in a process of its own, with a key and a memory outside the
database and the key directory: what the attackers of the table have ends there. A trial gets its
own copy of the database and of the witness's memory, is attacked while nothing runs, and then
started: what the deployment and the witness make of each other is read at `/readyz` and from
`meshflow witness evidence`. Where root runs the bench the witness is another user (neither root nor
the database's), and its directory is closed to everybody else; otherwise it is the same user, and
the attacks leave its directory alone. The table says which.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random  # noqa: TID251 - seeded positions
from secrets import token_hex
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import httpx2

from app.main import create_app
from app.wiring import Overrides
from bench.tampering.run_ref import RunRef
from bench.tampering.scene import (
    HoldingProvider,
    Scene,
    machinery,
    populate,
    settings_for,
)
from tests.support.databases import Roles, connect, execute
from tests.support.live_server import serving
from tests.support.other_account import hand_over, other_account, own_directory
from tests.support.small_log import NoteKey, SmallLog
from tests.support.witness_process import WitnessFiles, WitnessProcess, witness_process

PATIENCE_SECONDS = 90.0
_TICK_SECONDS = 0.2
_COSIGNED = """
SELECT max(s.size) FROM cosignature s JOIN tenants t USING (tenant_id) WHERE t.name = '!operator'
"""
# Records of tenants that no cosigned operator checkpoint covers through a tenant's checkpoint.
_RECEIPTS = """
SELECT r.run_id, r.seq, r.chain FROM record r JOIN runs a USING (tenant_id, run_id)
WHERE a.kind <> 'admin'
"""
_UNWITNESSED = """
SELECT count(*) FROM record r JOIN tenants t USING (tenant_id)
LEFT JOIN leaf l USING (tenant_id, run_id, seq)
WHERE t.name <> '!operator' AND NOT EXISTS (
  SELECT 1 FROM checkpoint c
  JOIN leaf a ON a.run_id = c.anchor_run AND a.seq = c.anchor_seq
  JOIN cosignature s ON s.tenant_id = a.tenant_id AND s.size > a.idx
  WHERE c.tenant_id = r.tenant_id AND c.size > l.idx)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A database and a witness's memory of one moment, and what honest readers saw."""

    database: str
    memory: Path
    runs: tuple[RunRef, ...]


@dataclass(slots=True, kw_only=True)
class Deployment:
    """Where everything of the witnessed deployment is."""

    roles: Roles
    directory: Path
    operator: UUID
    origin: str
    log_seed: bytes
    rng: Random
    account: int | None  # the user that its witness is; None: the same as the bench
    witness: WitnessFiles
    early: Snapshot | None = None
    late: Snapshot | None = None
    receipts: frozenset[tuple[UUID, int, bytes]] = frozenset()  # what clients kept, of all runs

    async def stage(self, sql: asyncpg.Connection, roles: Roles, url: str) -> Scene:
        """A scene on a database of this deployment, without runs yet."""
        return Scene(
            roles=roles,
            directory=self.directory,
            url=url,
            superuser=sql,
            rng=self.rng,
            has=await machinery(sql),
        )

    @property
    def watched(self) -> SmallLog:
        """The operator log as a witness knows it."""
        return SmallLog(NoteKey(self.origin, seed=self.log_seed))


async def copy_database(roles: Roles, name: str) -> Roles:
    """A database like `roles`, under another name; nobody may be connected to it."""
    source = urlsplit(roles.superuser).path.lstrip("/")
    server = roles.named("postgres").superuser
    await execute(server, f'CREATE DATABASE "{name}" TEMPLATE "{source}" OWNER mf_owner')
    return roles.named(name)


async def drop_database(roles: Roles) -> None:
    """Whoever is still connected is thrown out."""
    name = urlsplit(roles.superuser).path.lstrip("/")
    server = roles.named("postgres").superuser
    await execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


def copy_memory(source: Path, target: Path) -> None:
    """A copy of a witness's memory while it does not run, with whatever lies beside it."""
    for found in source.parent.glob(f"{source.name}*"):
        shutil.copy2(found, target.with_name(found.name.replace(source.name, target.name)))


@contextmanager
def started(
    deployment: Deployment, roles: Roles, witness: WitnessProcess, *, alone: bool = False
) -> Iterator[str]:
    """The server with its sequencer and its eraser, or `alone`, on a database, with a witness."""
    policy = deployment.directory / f"witnesses-{token_hex(4)}"
    policy.write_text(f"witness w1 {witness.vkey} {witness.url}\nquorum w1\n", encoding="utf-8")
    erasure = deployment.directory / "erasure"
    erasure.mkdir(mode=0o700, exist_ok=True)
    more = {
        "MESHFLOW_SEQUENCER_DATABASE_URL": roles.sequencer,
        "MESHFLOW_ERASER_DATABASE_URL": roles.eraser,
        "MESHFLOW_ERASURE_KEY_FILE": str(erasure / "key"),
    }
    settings = settings_for(
        deployment.directory,
        roles,
        MESHFLOW_WITNESSES=str(policy),
        **({} if alone else more),
    )
    app = create_app(settings, overrides=Overrides(providers={"offline": HoldingProvider()}))
    with serving(app) as url:
        yield url


async def receipts(roles: Roles) -> frozenset[tuple[UUID, int, bytes]]:
    """The chain hash of every record of every run, as readers were shown them."""
    sql = await connect(roles.superuser)
    try:
        return frozenset(
            (UUID(bytes=row["run_id"].bytes), row["seq"], row["chain"])
            for row in await sql.fetch(_RECEIPTS)
        )
    finally:
        await sql.close()


async def cosigned(sql: asyncpg.Connection) -> int:
    """The largest operator checkpoint for which there is a cosignature."""
    return await sql.fetchval(_COSIGNED) or 0


async def until(look: Callable[[], Awaitable[bool]]) -> bool:
    """Whether it came true in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE_SECONDS
    while loop.time() < end:
        if await look():
            return True
        await asyncio.sleep(_TICK_SECONDS)
    return False


async def halted(url: str) -> str | None:
    """Why the deployment says that it is not ready; None when it is."""
    async with httpx2.AsyncClient(base_url=url, timeout=30, trust_env=False) as http:
        answer = await http.get("/readyz")
    return None if answer.status_code == 200 else str(answer.json()["detail"])


async def run_honestly(
    deployment: Deployment, roles: Roles, witness: WitnessProcess, *, each: int
) -> list[RunRef]:
    """Let the deployment work until all of its runs are sequenced and cosigned; the new runs."""
    async with at_work(deployment, roles, witness) as stage:
        await populate(stage, each, 0)
        return stage.runs


@asynccontextmanager
async def at_work(
    deployment: Deployment, roles: Roles, witness: WitnessProcess
) -> AsyncIterator[Scene]:
    """The deployment at work; it ends when everything is sequenced and cosigned."""
    sql = await connect(roles.superuser)
    try:
        with started(deployment, roles, witness) as url:
            stage = await deployment.stage(sql, roles, url)
            yield stage

            async def seen() -> bool:
                return not await sql.fetchval(_UNWITNESSED)

            assert await until(seen), "not everything was cosigned"
    finally:
        await sql.close()


@asynccontextmanager
async def witnessed(
    roles: Roles, directory: Path, rng: Random, *, runs_each: int
) -> AsyncIterator[Deployment]:
    """Build the deployment; it hands out an early and a late snapshot."""
    first = settings_for(directory, roles, MESHFLOW_SEQUENCER_DATABASE_URL=roles.sequencer)
    with serving(create_app(first)):
        pass  # makes the keys and the operator log
    sql = await connect(roles.superuser)
    operator = await sql.fetchval("SELECT tenant_id FROM tenants WHERE name = '!operator'")
    await sql.close()
    made: list[str] = []
    account = other_account()
    with own_directory(account) as place:
        deployment = Deployment(
            roles=roles,
            directory=directory,
            operator=operator,
            origin=f"meshflow.local/ledger/{operator.hex}",
            log_seed=(directory / "keys" / "signing" / "log.1").read_bytes()[:32],
            rng=rng,
            account=account,
            witness=WitnessFiles(directory=place, account=account),
        )
        deployment.witness.keygen()
        try:
            await _snapshots(deployment, roles, made, runs_each)
            yield deployment
        finally:
            for name in made:
                await drop_database(roles.named(name))


async def _snapshots(deployment: Deployment, roles: Roles, made: list[str], runs_each: int) -> None:
    """Work, and take the early snapshot; work on, and take the late one."""
    runs: list[RunRef] = []
    files = deployment.witness
    for name in ("early", "late"):
        with witness_process(files, [deployment.watched]) as witness:
            runs += await run_honestly(deployment, roles, witness, each=runs_each)
        deployment.receipts = await receipts(roles)
        made.append(f"{name}_{token_hex(4)}")
        await copy_database(roles, made[-1])
        memory = deployment.directory / f"memory-{name}"
        memory.mkdir()
        copy_memory(files.state, memory / "state")
        taken = Snapshot(database=made[-1], memory=memory / "state", runs=tuple(runs))
        setattr(deployment, name, taken)


@asynccontextmanager
async def copied(
    deployment: Deployment, database: Snapshot, memory: Snapshot
) -> AsyncIterator[tuple[Roles, WitnessFiles]]:
    """A trial's own database and witness, out of one snapshot or out of two."""
    roles = await copy_database(deployment.roles.named(database.database), f"trial_{token_hex(5)}")
    try:
        with own_directory(deployment.account) as place:
            files = WitnessFiles(directory=place, account=deployment.account)
            shutil.copy2(deployment.witness.key, files.key)
            copy_memory(memory.memory, files.state)
            hand_over(place, deployment.account)
            yield roles, files
    finally:
        await drop_database(roles)
