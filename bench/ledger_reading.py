"""Verifying beside reading: a stream of all records, and one run of a hundred steps."""

import asyncio
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import uuid4

import asyncpg

from app.domain.run import TenantId
from app.embedded.postgres_server import EmbeddedPostgres
from app.ledger.chain import VerifiedChain, verify_run
from app.ledger.chain_walk import ChainWalk
from app.storage.database import Database
from app.storage.ledger_store import LedgerStore
from app.storage.run_store import RunStore
from bench.append_worker import ENROLMENT, StepClient, step_clients

RUNS, STEPS = 400, 50
LONG_STEPS = 100
ROUNDS = 7
STREAM = """
SELECT run_id, seq, epoch, kind, ts, header, rc, chain FROM record
WHERE tenant_id = $1 ORDER BY run_id, seq
"""
_ROWS_AT_ONCE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Metrics for the last line, and what they are measured against."""

    metrics: dict[str, float]
    baseline: dict[str, float]


async def reading_figures(server: EmbeddedPostgres) -> Figures:
    """Ratios of verifying to reading the same rows, and the time for a run of 100 steps."""
    database = Database(server.app_url)
    clients = await step_clients(database, RUNS, "reading")
    for _ in range(STEPS):
        await asyncio.gather(*(client.step() for client in clients))
    tenant_id = await RunStore(database).ensure_tenant("reading")
    pairs, memory = [], []
    for number in range(ROUNDS):
        raw = await _timed(database, tenant_id, lambda _: None)
        walk = ChainWalk(tenant_id.bytes)
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        full = await _timed(database, tenant_id, _checking(walk))
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        pairs.append((raw, full))
        print(f"stream {number}: read {raw:.0f} rows/s, verified {full:.0f}, {full / raw:.2f}")
    print(f"memory grew by {memory[-1] - memory[1]} kB over {2 * ROUNDS - 2} more streams")
    hundred = await _hundred_steps_ms(database)
    await database.close()
    return Figures(
        metrics={
            "verify_ratio": statistics.median(full / raw for raw, full in pairs),
            "verify_100_steps_ms": hundred,
        },
        baseline={"stream_rows_per_second": statistics.median(raw for raw, _ in pairs)},
    )


def _checking(walk: ChainWalk) -> Callable[[Sequence[asyncpg.Record]], object]:
    def check(rows: Sequence[asyncpg.Record]) -> None:
        step = walk.step
        for run, seq, epoch, kind, at, header, rc, chain in rows:
            found = step((run.bytes, seq, epoch, kind, at, header, rc, chain))
            assert found is None, found

    return check


async def _timed(
    database: Database,
    tenant_id: TenantId,
    look: Callable[[Sequence[asyncpg.Record]], object],
) -> float:
    """Rows a second through a cursor; the next rows are on their way while these are looked at."""
    count = 0
    async with database.snapshot(tenant_id) as raw:
        begun = time.perf_counter()
        cursor = await raw.cursor(STREAM, tenant_id)
        rows = await cursor.fetch(_ROWS_AT_ONCE)
        while rows:
            coming = asyncio.ensure_future(cursor.fetch(_ROWS_AT_ONCE))
            await asyncio.sleep(0)  # the request leaves before the work begins
            look(rows)
            count += len(rows)
            rows = await coming
        return count / (time.perf_counter() - begun)


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
