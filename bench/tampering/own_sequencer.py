"""A sequencer of the scene's own, which runs only while nothing is attacked.

The server under attack has none, so that what an attacker wrote and the bench took back never gets
into a log: reads check against the checkpoints that were signed before the attacks.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.tampering.scene import Scene
from tests.e2e.server_process import ENTRY, PATIENCE_SECONDS, surroundings

_TICK_SECONDS = 0.2
_UNCOVERED = """
SELECT count(*) FROM record r JOIN tenants t USING (tenant_id)
LEFT JOIN leaf l USING (tenant_id, run_id, seq)
WHERE t.name <> '!operator' AND NOT EXISTS (
  SELECT 1 FROM checkpoint c WHERE c.tenant_id = r.tenant_id AND c.size > l.idx)
"""


@asynccontextmanager
async def sequencing(scene: Scene) -> AsyncIterator[None]:
    """Sequence while the block runs, and go on until every record is under a signed checkpoint."""
    names = {
        "MESHFLOW_DATABASE_URL": scene.roles.app,
        "MESHFLOW_SEQUENCER_DATABASE_URL": scene.roles.sequencer,
        "MESHFLOW_LEDGER_KEY_DIR": str(scene.directory / "keys"),
        "MESHFLOW_LOG_LEVEL": "error",
    }
    log = scene.directory / "sequencer.log"
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *ENTRY,
            "sequencer",
            env=surroundings(scene.directory / "sequencer", **names),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
        )
    try:
        yield
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE_SECONDS
        while await scene.superuser.fetchval(_UNCOVERED):
            said = log.read_text(encoding="utf-8")
            assert process.returncode is None, said
            assert loop.time() < end, f"not everything is under a checkpoint: {said}"
            await asyncio.sleep(_TICK_SECONDS)
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), PATIENCE_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
