"""Ten thousand calls leave the server as it was: memory flat, nothing open, no child, no zombie.

The calls are made in a process of their own, which does nothing else, so that what grows is theirs.
MESHFLOW_PROOF=1 raises their number from 200 to 10,000.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

CALLS = 10_000 if os.getenv("MESHFLOW_PROOF") == "1" else 200
MOST_GROWTH_BYTES = 5 * 1024 * 1024
REPOSITORY = Path(__file__).parents[3]
# Ordinary ends, a crash, too much output, a workspace over its quota, a deadline now and then.
_SERVER = """
import asyncio, gc, json, os, sys
from pathlib import Path
from app.sandbox.zygote_pool import PoolLimits
from tests.support.escape_scene import held, open_directory, request_for, runner_for
from tests.support.processes import beneath

calls = int(sys.argv[1])
texts = ("print(6 * 7)", "1 / 0", "import os\\nos._exit(3)", "import ctypes\\nctypes.string_at(0)")
seldom = (
    "print('x' * 2_000_000)",
    "for n in range(2100):\\n    open(f'f{n}', 'w').close()",
    "import time\\ntime.sleep(9)",
)

def facts():
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "bytes": pages * os.sysconf("SC_PAGE_SIZE"),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }

async def main():
    runner = runner_for(pool=PoolLimits(calls_per_zygote=max(calls // 20, 20)))
    with open_directory() as base, held(base) as workspace:
        async def some(first, last):
            for number in range(first, last, 4):
                asked = [request_for(text, workspace) for text in texts]
                if number % 100 == 0:
                    text = seldom[number // 100 % 3]
                    asked.append(request_for(text, workspace, wall_seconds=0.3))
                await asyncio.gather(*map(runner.run, asked))
        warm = calls // 4
        await some(0, warm)
        before = facts()
        await some(warm, calls)
        after = facts()
        await runner.close()
    async with asyncio.timeout(20):
        while beneath(os.getpid()):  # a zygote that was just replaced is waited for a moment later
            await asyncio.sleep(0.01)
    print(json.dumps({"before": before, "after": after, "left": len(beneath(os.getpid()))}))

asyncio.run(main())
"""


def test_the_server_is_as_it_was_after_many_calls() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SERVER, str(CALLS)],
        stdout=subprocess.PIPE,
        check=True,
        cwd=REPOSITORY,
    )
    told = json.loads(done.stdout)
    grown = told["after"]["bytes"] - told["before"]["bytes"]
    print(f"{CALLS} calls: {grown / 1024 / 1024:.2f} MB more than after a quarter of them; {told}")
    assert grown <= MOST_GROWTH_BYTES
    # Of a zygote that is just being replaced.
    assert told["after"]["descriptors"] <= told["before"]["descriptors"] + 2
    assert told["left"] == 0
