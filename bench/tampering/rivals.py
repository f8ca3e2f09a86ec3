"""One of many processes that append to the same run at once, and are killed while they do.

Reads its job as JSON from standard input; prints a line for every append that was acknowledged.
Fork or no fork is the database's business: nothing here takes turns.
"""

import asyncio
import json
import sys
from typing import Any
from uuid import UUID

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.tampering.appending import call_append, forged_after
from bench.tampering.forging import OwnWriter
from bench.tampering.run_ref import RunRef

TEXT = b'{"arguments":{"path":"a.txt"},"call_id":"offline_99","name":"read_file"}'
_LAST = """
SELECT * FROM record WHERE tenant_id = $1 AND run_id = $2 ORDER BY seq DESC LIMIT 1
"""
_LIKE = """
SELECT * FROM record WHERE tenant_id = $1 AND run_id = $2 AND kind = 'tool.decided' LIMIT 1
"""


async def contend(job: dict[str, Any]) -> None:
    """Append, over and over, whatever the others do."""
    run = RunRef(tenant=job["tenant"], log=job["log"], run=job["run"])
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(job["seed"]))
    writer = OwnWriter(writer_id=UUID(job["writer"]), private=private)
    session = await asyncpg.connect(job["url"].replace("postgresql+asyncpg://", "postgresql://", 1))
    await session.execute("SELECT set_config('attack.marked', 'on', false)")
    await session.execute("SELECT set_config('app.tenant', $1, false)", str(UUID(run.log)))
    like = dict(await session.fetchrow(_LIKE, *run.ids))
    print("ready", flush=True)
    for _ in range(job["appends"]):
        last = dict(await session.fetchrow(_LAST, *run.ids))
        made = forged_after(
            run, last, like, writer=writer, key=bytes.fromhex(job["key"]), text=TEXT
        )
        try:
            await call_append(session, made)
        except asyncpg.UniqueViolationError:
            continue
        print(f"{made['p_seqs'][0]} {made['p_chains'][0].hex()}", flush=True)


if __name__ == "__main__":
    asyncio.run(contend(json.loads(sys.stdin.readline())))
