"""A deployment with a sequencer and a real witness, copied for every trial.

The witness is `meshflow witness serve` in a process of its own, with a key and a memory outside the
database and the key directory: what the attackers of the table have ends there. A trial gets its
own copy of the database and of the witness's memory, is attacked while nothing runs, and then
started: what the deployment and the witness make of each other is read at `/readyz` and from
`meshflow witness evidence`. Where root may start programs as somebody else the witness could be
another user; here it is the same one, and the attacks leave its directory alone.
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
from tests.support.small_log import NoteKey, SmallLog
from tests.support.witness_process import WitnessFiles, WitnessProcess, witness_process

PATIENCE_SECONDS = 90.0
_TICK_SECONDS = 0.2
_COSIGNED = """
SELECT max(s.size) FROM cosignature s JOIN tenants t USING (tenant_id) WHERE t.name = '!operator'
"""
# Records of tenants that no cosigned operator checkpoint covers through a tenant's checkpoint.
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
    early: Snapshot | None = None
    late: Snapshot | None = None

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
def started(deployment: Deployment, roles: Roles, witness: WitnessProcess) -> Iterator[str]:
    """The server, with its sequencer, on a database and with a witness."""
    policy = deployment.directory / f"witnesses-{token_hex(4)}"
    policy.write_text(f"witness w1 {witness.vkey} {witness.url}\nquorum w1\n", encoding="utf-8")
    settings = settings_for(
        deployment.directory,
        roles,
        MESHFLOW_SEQUENCER_DATABASE_URL=roles.sequencer,
        MESHFLOW_WITNESSES=str(policy),
    )
    app = create_app(settings, overrides=Overrides(providers={"offline": HoldingProvider()}))
    with serving(app) as url:
        yield url


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
    deployment: Deployment, roles: Roles, files: WitnessFiles, runs: list[RunRef], *, each: int
) -> list[RunRef]:
    """Let the deployment work until all of its runs are sequenced and cosigned; all its runs."""
    sql = await connect(roles.superuser)
    try:
        with (
            witness_process(files, [deployment.watched]) as witness,
            started(deployment, roles, witness) as url,
        ):
            stage = Scene(
                roles=roles,
                directory=deployment.directory,
                url=url,
                superuser=sql,
                rng=deployment.rng,
                has=await machinery(sql),
            )
            await populate(stage, each, 0)

            async def seen() -> bool:
                return not await sql.fetchval(_UNWITNESSED)

            assert await until(seen), "not everything was cosigned"
            return [*runs, *stage.runs]
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
    deployment = Deployment(
        roles=roles,
        directory=directory,
        operator=operator,
        origin=f"meshflow.local/ledger/{operator.hex}",
        log_seed=(directory / "keys" / "signing" / "log.1").read_bytes()[:32],
        rng=rng,
    )
    files = WitnessFiles(directory=directory / "witness")
    files.directory.mkdir()
    files.keygen()
    made: list[str] = []
    try:
        runs: list[RunRef] = []
        for name in ("early", "late"):
            runs = await run_honestly(deployment, roles, files, runs, each=runs_each)
            made.append(f"{name}_{token_hex(4)}")
            await copy_database(roles, made[-1])
            memory = directory / f"memory-{name}"
            memory.mkdir()
            copy_memory(files.state, memory / "state")
            taken = Snapshot(database=made[-1], memory=memory / "state", runs=tuple(runs))
            setattr(deployment, name, taken)
        yield deployment
    finally:
        for name in made:
            await drop_database(roles.named(name))


@asynccontextmanager
async def copied(
    deployment: Deployment, database: Snapshot, memory: Snapshot
) -> AsyncIterator[tuple[Roles, WitnessFiles]]:
    """A trial's own database and witness, out of one snapshot or out of two."""
    roles = await copy_database(deployment.roles.named(database.database), f"trial_{token_hex(5)}")
    place = deployment.directory / f"witness-{token_hex(5)}"
    place.mkdir()
    shutil.copy2(deployment.directory / "witness" / "witness.key", place / "witness.key")
    copy_memory(memory.memory, place / "state")
    try:
        yield roles, WitnessFiles(directory=place)
    finally:
        await drop_database(roles)
        shutil.rmtree(place)
