"""Ten thousand calls leave the server as it was: memory flat, nothing open, no child, no zombie.

The calls are made in a process of their own, which does nothing else, so that what grows is theirs.
MESHFLOW_PROOF=1 raises their number from 200 to 10,000.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.sandbox.execution import EngineName

CALLS = 10_000 if os.getenv("MESHFLOW_PROOF") == "1" else 200
MOST_GROWTH_BYTES = 5 * 1024 * 1024
REPOSITORY = Path(__file__).parents[3]
# Ordinary ends, a crash, too much output, a workspace over its quota, a deadline now and then.
_SERVER = """
import asyncio, gc, json, os, sys
from pathlib import Path
from app.sandbox.zygote_pool import PoolLimits
from app.sandbox.execution import EngineName
from tests.support.escape_scene import (
    TENANT, held, monty_runner, open_directory, request_for, runner_for
)
from tests.support.processes import beneath

calls, engine = int(sys.argv[1]), EngineName(sys.argv[2])
is_monty = engine is EngineName.MONTY
texts = ("print(6 * 7)", "1 / 0", "import os\\nos._exit(3)", "import ctypes\\nctypes.string_at(0)")
seldom = (
    "print('x' * 2_000_000)",
    "for n in range(2100):\\n    open(f'f{n}', 'w').close()",
    "import time\\ntime.sleep(9)",
)
if is_monty:  # by a worker that waited, by one that was made for it, by both in turn, an error
    texts = ("print(6 * 7)", "open('f', 'w').write('x')", "exec('op' + 'en')", "1 / 0")
    seldom = (seldom[0], "while True: print('x' * 9000)", seldom[2])

def facts():
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "bytes": pages * os.sysconf("SC_PAGE_SIZE"),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }

async def main():
    build = monty_runner if is_monty else runner_for
    runner = build(pool=PoolLimits(calls_per_zygote=max(calls // 20, 20)))
    with open_directory() as base, held(base) as workspace:
        async def some(first, last):
            for number in range(first, last, 4):
                asked = [request_for(text, workspace, engine=engine) for text in texts]
                if number % 100 == 0:
                    text = seldom[number // 100 % 3]
                    asked.append(request_for(text, workspace, engine=engine, wall_seconds=0.3))
                if is_monty:
                    for request in asked:
                        await runner.until_one_waits(TENANT)
                        await runner.run(request)
                else:
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


@pytest.mark.parametrize("engine", [EngineName.NATIVE, EngineName.MONTY])
def test_the_server_is_as_it_was_after_many_calls(engine: EngineName) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SERVER, str(CALLS), engine.value],
        stdout=subprocess.PIPE,
        check=True,
        cwd=REPOSITORY,
    )
    told = json.loads(done.stdout)
    grown = told["after"]["bytes"] - told["before"]["bytes"]
    print(f"{CALLS} calls: {grown / 1024 / 1024:.2f} MB more than after a quarter of them; {told}")
    assert grown <= MOST_GROWTH_BYTES
    # Of a zygote that is just being replaced, and of workers that were just dismissed.
    assert told["after"]["descriptors"] <= told["before"]["descriptors"] + 4
    assert told["left"] == 0
