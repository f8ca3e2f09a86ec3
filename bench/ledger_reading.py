"""Sweeping beside reading: a stream of all records, and one run of a hundred steps."""

import asyncio
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg

from app.audit.run_sweep import RunSweep
from app.audit.sweep_report import LogReport
from app.domain.run import TenantId
from app.embedded.postgres_server import EmbeddedPostgres
from app.ledger.chain import VerifiedChain, verify_run
from app.storage.database import Database
from app.storage.ledger_store import LedgerStore
from app.storage.run_store import RunStore
from app.storage.sweep_store import Snapshot, SweptPage, pages_of_records, sweeping
from bench.append_worker import ENROLMENT, StepClient, step_clients
from bench.paired import same_or_fail
from tests.support.databases import connect

RUNS, STEPS = 400, 50
LONG_STEPS = 100
ROUNDS = 9
TENANT = "reading"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Metrics for the last line, and what they are measured against."""

    metrics: dict[str, float]
    baseline: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stream:
    """One pass over all records, and what it cost a row."""

    rows_per_second: float
    client_us: float
    server_us: float
    arm: dict[str, object]  # what it ran with

    @property
    def cpu_us(self) -> float:
        """Both sides together."""
        return self.client_us + self.server_us


async def reading_figures(server: EmbeddedPostgres) -> Figures:
    """Ratios of sweeping to reading the same rows, and the time for a run of 100 steps."""
    database = Database(server.app_url)
    clients = await step_clients(database, RUNS, TENANT)
    for _ in range(STEPS):
        await asyncio.gather(*(client.step() for client in clients))
    tenant_id = await RunStore(database).ensure_tenant(TENANT)
    await _settle(server.owner_url)
    pairs = await _streams(server.audit_url, tenant_id)
    middle = statistics.median
    cpu_ratio = middle(raw.cpu_us / full.cpu_us for raw, full in pairs)
    least = [min(column, key=lambda found: found.cpu_us) for column in zip(*pairs, strict=True)]
    for name, found in zip(("read", "swept"), least, strict=True):
        print(
            f"{name}, least of {ROUNDS}: {found.client_us:.2f} us of the client's CPU a row,"
            f" {found.server_us:.2f} of the server's"
        )
    print(f"CPU of both sides, read by swept: {cpu_ratio:.2f}")
    hundred = await _hundred_steps_ms(database)
    await database.close()
    return Figures(
        metrics={
            "verify_ratio": middle(
                full.rows_per_second / raw.rows_per_second for raw, full in pairs
            ),
            "verify_100_steps_ms": hundred,
        },
        baseline={
            "stream_rows_per_second": middle(raw.rows_per_second for raw, _ in pairs),
            "verify_cpu_ratio": cpu_ratio,
        },
    )


async def _streams(url: str, tenant_id: TenantId) -> list[tuple[_Stream, _Stream]]:
    """Both arms in turns over one connection, in the snapshot and by the statement of an audit."""
    database = Database(url, pool_size=1)
    pairs, memory = [], []
    async with sweeping(database) as raw:
        for number in range(ROUNDS):
            plain = await _timed(raw, tenant_id, _reading)
            report = LogReport(log=tenant_id.bytes, tenant=TENANT)
            sweep = RunSweep(tenant_id.bytes, report, may_be_erased=False)
            full = await _timed(raw, tenant_id, sweep.add)
            sweep.end()
            assert (report.broken, report.records) == (0, RUNS * (STEPS + 1)), report
            if number == 0:
                same_or_fail(plain.arm, full.arm)
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            pairs.append((plain, full))
            print(
                f"stream {number}: read {plain.rows_per_second:.0f} rows/s,"
                f" swept {full.rows_per_second:.0f},"
                f" {full.rows_per_second / plain.rows_per_second:.2f}"
            )
    print(f"memory grew by {memory[-1] - memory[0]} kB over {2 * ROUNDS - 2} more streams")
    await database.close()
    return pairs


async def _settle(url: str) -> None:
    """A table just written is slow to read, and what is slow to read looks quick to verify."""
    raw = await connect(url)
    for table in ("record", "payload", "batch", "runs", "leaf"):
        await raw.execute(f"VACUUM (ANALYZE) {table}")
    await raw.close()


async def _server_settings(raw: Snapshot) -> dict[str, object]:
    names = ("shared_buffers", "work_mem", "jit", "max_parallel_workers_per_gather")
    settings = {name: await raw.fetchval(f"SHOW {name}") for name in names}
    return settings | {"role": await raw.fetchval("SELECT current_user")}


def _reading(page: SweptPage) -> None:
    """The rows are here, one column beside the other: that is all."""
    assert len(page)


async def _timed(
    raw: Snapshot, tenant_id: TenantId, look: Callable[[SweptPage], object]
) -> _Stream:
    count, pages = 0, 0
    server, settings = await raw.fetchval("SELECT pg_backend_pid()"), await _server_settings(raw)
    theirs, own, begun = _ran_seconds(server), time.process_time(), time.perf_counter()
    async for page in pages_of_records(raw, tenant_id):
        look(page)
        count, pages = count + len(page), pages + 1
    return _Stream(
        rows_per_second=count / (time.perf_counter() - begun),
        client_us=(time.process_time() - own) * 1e6 / count,
        server_us=(_ran_seconds(server) - theirs) * 1e6 / count,
        arm={
            "connection": server,
            "processes": 1,
            "rows": count,
            "pages": pages,
            "loop": type(asyncio.get_running_loop()).__name__,
            "driver": f"asyncpg {asyncpg.__version__}",
            "server": settings,
        },
    )


def _ran_seconds(pid: int) -> float:
    """The CPU time of another process, in nanoseconds and not in ticks."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


async def _hundred_steps_ms(database: Database) -> float:
    """Chain, columns and all content of one run that is under a checkpoint, once it is read.

    Signatures of batches are checked before that, by the sequencer, and by whoever reads records
    that no checkpoint covers yet; what they cost for all of the run is printed.
    """
    (client, *others) = await step_clients(database, 8, f"hundred{uuid4().hex}")
    for _ in range(LONG_STEPS - 1):
        await asyncio.gather(*(each.step() for each in (client, *others)))
    return await _verified_ms(database, client)


async def _verified_ms(database: Database, client: StepClient) -> float:
    runs, store = RunStore(database), LedgerStore(database)
    async with database.snapshot(client.tenant_id) as raw:
        row = await runs.find(raw, client.tenant_id, client.run_id)
        assert row is not None
        stored, _ = await store.read(raw, row)
    assert len(stored.records) == LONG_STEPS
    taken: dict[str, list[float]] = {"whole": [], "placed": []}
    for _ in range(30):
        for name, placed in (("whole", 0), ("placed", LONG_STEPS)):
            begun = time.perf_counter()
            checked = verify_run(stored, client.run_key, {ENROLMENT.public_key}, placed=placed)
            taken[name].append((time.perf_counter() - begun) * 1000)
            assert isinstance(checked, VerifiedChain)
    print(f"100 steps with every batch's signature: {statistics.median(taken['whole']):.1f} ms")
    return statistics.median(taken["placed"])
