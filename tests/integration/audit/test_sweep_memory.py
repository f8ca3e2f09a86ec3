"""A sweep reads a log page by page: what it holds at a time does not grow with the log."""

import asyncio
import tracemalloc
from pathlib import Path

import pytest

from app.audit.sweep import Pins, Sweep
from app.storage import sweep_store
from app.storage.database import Database
from app.transparency.note import ED25519, verifier_key
from app.transparency.witness_policy import parse_policy
from tests.integration.sequencing.keeper_scene import Watch, watch_on
from tests.integration.sequencing.log_scene import led, origin_of
from tests.integration.storage.append_scene import ENROLMENT, Author, step
from tests.support.databases import DatabaseServer

pytestmark = pytest.mark.anyio
TOGETHER = 400


def _pins(watch: Watch) -> Pins:
    operator = origin_of(watch.operator.bytes)
    log = verifier_key(operator, ED25519, watch.log_key.public_key).encode()
    (key,) = ENROLMENT
    enrolment = verifier_key("test.local/enrolment", ED25519, key).encode()
    policy = f"log {log}\n#meshflow/v1 enrolment {enrolment}\nquorum none\n"
    return Pins.of(parse_policy(policy.encode()))


async def _grown(watch: Watch, author: Author, times: int) -> None:
    for _ in range(times):
        await watch.scene.write(author, author.seal(*[step()] * TOGETHER))
    async with led(watch.roles) as (leader, sequencer):
        for _ in range(2):
            while (await sequencer.tick()).has_more:
                pass
            await watch.checkpoints().sign_tenants(leader)


async def _peak(watch: Watch) -> tuple[int, int]:
    """How many records were swept, and how many bytes were held at most."""
    database = Database(watch.roles.audit, pool_size=1)
    tracemalloc.start()
    try:
        reports = await Sweep(database, _pins(watch), lambda *_: None).run(None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        await database.close()
    assert not [report.findings for report in reports if report.broken]
    return sum(report.records for report in reports), peak


async def test_what_a_sweep_holds_does_not_grow_with_the_log(
    postgres: DatabaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_store, "PAGE", 32)  # fewer than there are, of batches too
    roles = await asyncio.to_thread(postgres.new_database)
    async with watch_on(roles, tmp_path) as watch:
        author = await watch.scene.begun()
        await _grown(watch, author, 5)
        few, least = await _peak(watch)
        await _grown(watch, author, 15)
        many, most = await _peak(watch)
    assert many > 3 * few
    assert most < 1.5 * least, (few, least, many, most)
