"""One client process of the ledger bench: raw INSERTs, or whole steps; the same loop around both.

Arguments: kind, clients, seconds, tenant; the URL is the first line it reads. Says `ready`, waits
for a line, and answers with how many steps it committed and how long each one took, under what
settings its own sessions ran, and how many bytes it wrote a step.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg

from app.domain.run import RunId, RunKind, RunStatus, TenantId
from app.domain.verdict import Scrubbed, ScrubBlock
from app.keys.signing_keys import SigningKey
from app.ledger.enrolment import writer_statement
from app.ledger.writing import ChainHead, Draft, RunWriter, SealedAppend, WriterKey
from app.storage.companions import NewRun, WrappedKey
from app.storage.database import Database
from app.storage.ledger_store import LedgerStore
from app.storage.run_store import RunStore

WARM_UP_SECONDS = 1.0
ROW_BYTES = 1024
FIELD_BYTES = 512
# What decides how durable a commit is and what it costs the server.
SETTINGS = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_level",
    "wal_sync_method",
    "commit_delay",
    "shared_buffers",
    "max_connections",
    "default_transaction_isolation",
    "default_transaction_read_only",
)
ENROLMENT = SigningKey(b"enrolment of the ledger's bench.")
RAW_TABLE = (
    "CREATE TABLE bench_raw (run_id uuid, seq bigint, body bytea NOT NULL,"
    " PRIMARY KEY (run_id, seq)); ALTER TABLE bench_raw ALTER body SET STORAGE EXTERNAL;"
    " GRANT INSERT ON bench_raw TO mf_app"
)
RAW_INSERT = "INSERT INTO bench_raw (run_id, seq, body) VALUES ($1, $2, $3)"
Step = Callable[[], Awaitable[int]]  # the bytes that it wrote


def block() -> ScrubBlock:
    """What the scrubber says of a payload in which it found nothing."""
    return ScrubBlock(
        engine="meshflow/1",
        rules="sha256:" + "0" * 64,
        policy="default",
        mode="mask",
        status="ok",
        counts={"secret": 0},
        unscanned=0,
    )


def draft() -> Draft:
    """A step: two payload fields, as a tool's call and result have them."""
    said = {
        name: Scrubbed(value=os.urandom(FIELD_BYTES // 2).hex().encode(), block=block())
        for name in ("call", "result")
    }
    return Draft(kind="tool.finished", actor="tool", outcome="ok", tool="calculator", fields=said)


async def raw_client(database: Database, stack: AsyncExitStack) -> Step:
    """One row, one commit, on a connection of its own."""
    raw = await stack.enter_async_context(database.driver())
    statement = await raw.prepare(RAW_INSERT)
    run_id, body, seq = uuid4(), os.urandom(ROW_BYTES), iter(range(1 << 60))

    async def step() -> int:
        await statement.fetch(run_id, next(seq), body)
        return len(body)

    return step


class StepClient:
    """One run and its owner."""

    def __init__(self, store: LedgerStore, tenant_id: TenantId, writer: WriterKey) -> None:
        self._store, self.tenant_id = store, tenant_id
        self.run_id, self.run_key = RunId(uuid4()), os.urandom(32)
        self._writer = RunWriter(
            log=tenant_id.bytes,
            run=self.run_id.bytes,
            run_key=self.run_key,
            writer=writer,
            entropy=os.urandom,
        )
        self._head = ChainHead.empty(tenant_id.bytes, self.run_id.bytes)
        self._draft = draft()

    async def open(self) -> None:
        """The run's row and first record."""
        now = datetime.now(UTC)
        new_run = NewRun(
            kind=RunKind.AGENT,
            status=RunStatus.RUNNING,
            provider="offline",
            model="offline",
            agent=None,
            policy_digest="0" * 64,
            created_at=now,
            key=WrappedKey(kek_id="bench", wrapped=self.run_key),
        )
        sealed = self._writer.seal(self._head, [self._draft], epoch=1, at=now)
        await self._store.append(self.tenant_id, self.run_id, sealed, [new_run])
        self._head = sealed.head

    async def step(self) -> int:
        """Everything between a draft and a receipt."""
        now = datetime.now(UTC)
        sealed = self._writer.seal(self._head, [self._draft], epoch=1, at=now)
        await self._store.append(self.tenant_id, self.run_id, sealed)
        self._head = sealed.head
        return bytes_of(sealed)


def bytes_of(sealed: SealedAppend) -> int:
    """What of an append is written: headers, hashes and sealed fields; its batch is shared."""
    return sum(len(one.header + one.rc + one.chain) for one in sealed.records) + sum(
        len(one.blob) for one in sealed.fields
    )


async def new_writer(runs: RunStore) -> WriterKey:
    """A writer whom the bench's enrolment key certified."""
    writer = WriterKey(os.urandom(32), uuid4().bytes)
    certificate = ENROLMENT.sign(writer_statement(writer.writer_id, writer.public_key))
    await runs.register_writer(UUID(bytes=writer.writer_id), writer.public_key, certificate)
    return writer


async def step_clients(database: Database, clients: int, tenant: str) -> list[StepClient]:
    """Opened runs of one tenant."""
    runs, store = RunStore(database), LedgerStore(database)
    writer, tenant_id = await new_writer(runs), await runs.ensure_tenant(tenant)
    made = [StepClient(store, tenant_id, writer) for _ in range(clients)]
    await asyncio.gather(*(client.open() for client in made))
    return made


async def measured(steps: list[Step], seconds: float) -> dict[str, object]:
    """Every client does one step after the other; what ended in the measured time counts."""
    clock = time.perf_counter
    begin = clock() + WARM_UP_SECONDS
    end = begin + seconds
    taken: list[float] = []
    least = 1 << 30

    async def client(step: Step) -> None:
        nonlocal least
        while (started := clock()) < end:
            least = min(least, await step())
            if begin <= (done := clock()) < end:
                taken.append(round((done - started) * 1000, 3))

    cpu = time.process_time()
    await asyncio.gather(*(client(step) for step in steps))
    spent = time.process_time() - cpu
    return {"taken_ms": taken, "cpu_seconds": spent, "bytes_a_step": least}


async def session(database: Database) -> dict[str, object]:
    """What a statement of this process runs under, as the server says to one of its sessions."""
    async with database.driver() as raw:
        return {name: await raw.fetchval(f"SHOW {name}") for name in SETTINGS}


async def main(kind: str, url: str, clients: int, seconds: float, tenant: str) -> None:
    pool = clients if kind == "baseline" else 16
    database = Database(url, pool_size=pool)
    async with AsyncExitStack() as stack:
        if kind == "baseline":
            steps = [await raw_client(database, stack) for _ in range(clients)]
        else:
            steps = [client.step for client in await step_clients(database, clients, tenant)]
        told: dict[str, object] = {
            "clients": len(steps),
            "loop": type(asyncio.get_running_loop()).__name__,
            "driver": f"asyncpg {asyncpg.__version__}",
            "warm_up_seconds": WARM_UP_SECONDS,
            "seconds": seconds,
        }
        print("ready", flush=True)
        sys.stdin.readline()
        found = await measured(steps, seconds)
    # After it: every connection of the pool may be a client's until then.
    told |= await session(database)
    print(json.dumps({**found, "ran_under": told}), flush=True)
    await database.close()


if __name__ == "__main__":
    _, KIND, CLIENTS, LASTING, TENANT = sys.argv
    URL = sys.stdin.readline().strip()  # it holds a password: not among the arguments
    asyncio.run(main(KIND, URL, int(CLIENTS), float(LASTING), TENANT))
