"""Many processes on one run, killed at random points: no fork, and nothing acknowledged is lost."""

import asyncio
import json
import sys

from bench.tampering.attack import AttackClass, Deed
from bench.tampering.hands import Hands
from bench.tampering.run_ref import RunRef

PROCESSES = 16
_APPENDS = 40
_KILLED = 10


async def contend(hands: Hands) -> Deed:
    """16 processes append to one run; most of them are killed with SIGKILL on the way."""
    run = hands.open_run()
    key = await hands.run_key(run)
    started = []
    for _ in range(hands.scene.rivals or PROCESSES):
        writer = await hands.honest_writer()
        job = {
            "url": hands.scene.roles.app,
            "tenant": run.tenant,
            "log": run.log,
            "run": run.run,
            "key": key.hex(),
            "seed": writer.private.private_bytes_raw().hex(),
            "writer": str(writer.writer_id),
            "appends": _APPENDS,
        }
        started.append(await _start(job))
    ready = await asyncio.gather(*(process.stdout.readline() for process in started))  # type: ignore[union-attr]  # a pipe was asked for
    assert all(line == b"ready\n" for line in ready), ready
    for process in hands.rng.sample(started, min(_KILLED, len(started) // 2)):
        await asyncio.sleep(hands.rng.random() * 0.05)
        if process.returncode is None:
            process.kill()
    told = await asyncio.gather(*(process.communicate() for process in started))
    lines = [line for out, _ in told for line in out.decode().splitlines(keepends=True)]
    # What a kill cut off in the middle of a line was not told.
    acknowledged = [line.split() for line in lines if line.endswith("\n")]
    return await _judged(hands, run, {int(seq): chain for seq, chain in acknowledged})


async def _start(job: dict[str, object]) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.tampering.rivals",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(job).encode() + b"\n")
    await process.stdin.drain()
    return process


async def _judged(hands: Hands, run: RunRef, acknowledged: dict[int, str]) -> Deed:
    """Through the public doors: the run verifies and shows every acknowledged record."""
    shown: dict[int, str] = {}
    async with hands.scene.client(run.tenant) as http:
        verdict = (await http.get(f"/v1/runs/{run.public}/verification")).json()
        after = -1
        while True:
            where = {"limit": 200, "after_seq": after}
            page = (await http.get(f"/v1/runs/{run.public}/entries", params=where)).json()
            shown |= {entry["seq"]: entry["chain_hash"] for entry in page.get("data", [])}
            if not page.get("has_more"):
                break
            after = max(shown)
    lost = [seq for seq, chain in acknowledged.items() if shown.get(seq) != chain]
    if verdict["verdict"] != "valid" or lost or not acknowledged:
        return Deed(quiet=f"{verdict['break']}, lost {lost}, {len(acknowledged)} acknowledged")
    return Deed(refused=f"0 forks, 0 lost of {len(acknowledged)} acknowledged")


CLASSES = (
    AttackClass(
        number=40,
        title="16 processes append to one run, killed at random points",
        who="bug",
        named=frozenset({"D1", "D11"}),
        acts=(("contend", contend),),
        guarded=True,
    ),
)
