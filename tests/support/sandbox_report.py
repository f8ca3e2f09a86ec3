"""A program for `outer_filter`: says as JSON what the sandbox finds and what a call comes to."""

import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from app.domain.sandbox_mode import SandboxMode
from app.sandbox.capabilities import probe
from app.sandbox.execution import EngineName
from app.sandbox.kernel_calls import LinuxKernel
from app.sandbox.openat2 import open_beneath
from app.sandbox.runner_assembly import build_runner, engine_gaps
from app.sandbox.sandbox_settings import SandboxSettings
from app.sandbox.workspace import open_workspace_root
from tests.support.escape_scene import (
    held,
    open_directory,
    request_for,
    runner_for,
    worker_account,
)


async def report() -> dict[str, object]:
    """What was found, why there is no engine, and what happens to who asks all the same."""
    found = probe(LinuxKernel())
    mode = SandboxMode(sys.argv[1])
    asked_for = SandboxSettings(mode=mode, python_engine=EngineName.NATIVE)
    built = build_runner(asked_for, account=worker_account())
    blind = runner_for(mode)  # as if nobody had asked the machine
    with open_directory() as base, held(base) as directory:
        asked = await built.run(request_for("print(6 * 7)", directory))
        forced = await blind.run(request_for("print(6 * 7)", directory))
        root = open_workspace_root(base, forbidden=[], opener=open_beneath)
        workspace = root.for_run("a" * 32, "b" * 32)
        workspace.write_file("there.txt", b"text")
        text = workspace.read_file("there.txt", 99).decode()
        workspace.close()
        root.close()
    await built.close()
    await blind.close()
    return {
        "gap": engine_gaps(found, mode).get(EngineName.NATIVE),
        "openat2": found.openat2.seen,
        "asked": [asked.status, asked.stdout.decode(), asked.reason],
        "forced": [forced.status, forced.stdout.decode(), forced.reason],
        "file": text,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(report())))
