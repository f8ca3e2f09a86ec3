"""What a confined call costs beside an unconfined one, and what the corpus of attacks comes to.

Both kinds of call alternate in the same minute, so a busy machine slows both. `--attacks` runs the
corpus of hostile programs as well; a figure that cannot be stood by ends the bench.
"""

import argparse
import asyncio
import logging
import statistics
import time
from pathlib import Path
from typing import Any

from app.domain.sandbox_mode import SandboxMode
from app.sandbox.execution import ExecStatus
from app.sandbox.tool_runner import ToolRunner
from app.sandbox.workspace import open_workspace_root
from app.tools.calculator import evaluate
from bench.paired import report
from tests.support.escape_scene import (
    corpus,
    escape_scene,
    held,
    monty_runner,
    open_directory,
    request_for,
    runner_for,
)

CALLS = 200
QUICK_CALLS = 2_000
DOS_SECONDS = 2.0
GRACE_SECONDS = 0.5


def main() -> None:
    """Measure; with `--attacks` attack, too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attacks", action="store_true", help="run the corpus as well")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # each unconfined call says that it is one
    metrics, baseline = asyncio.run(measured())
    if arguments.attacks:
        metrics |= asyncio.run(attacked())
    for name, value in metrics.items():
        print(f"{name:24} {value:10.3f}   {baseline.get(name, '')}")
    report("tools", metrics, baseline)


async def measured() -> tuple[dict[str, float], dict[str, float]]:
    """Medians in milliseconds, and beside them the same without walls."""
    strict, free = runner_for(), runner_for(SandboxMode.OFF_UNSAFE)
    confined: list[tuple[float, float]] = []
    unconfined: list[tuple[float, float]] = []
    try:
        with open_directory() as base, held(base) as directory:
            for _ in range(CALLS):
                confined.append(await _call(strict, directory))
                unconfined.append(await _call(free, directory))
            monty = await _monty_calls(directory)
            file_ms = _file_ms(base)
    finally:
        await strict.close()
        await free.close()
    pairs = list(zip(confined, unconfined, strict=True))
    metrics = {
        "native_ms": statistics.median(wall for wall, _ in confined),
        "native_p95_ms": statistics.quantiles([wall for wall, _ in confined], n=20)[-1],
        # Processor time of the worker: the clock of a busy machine tells of the others.
        "confinement_ms": statistics.median(one[1] - other[1] for one, other in pairs),
        "confinement_wall_ms": statistics.median(one[0] - other[0] for one, other in pairs),
        "monty_ms": statistics.median(wall for wall, _ in monty),
        "monty_processor_ms": statistics.median(worker for _, worker in monty),
        "calculator_ms": _calculator_ms(),
        "file_ms": file_ms,
    }
    baseline = {
        "native_ms": statistics.median(wall for wall, _ in unconfined),
        "native_p95_ms": statistics.quantiles([wall for wall, _ in unconfined], n=20)[-1],
    }
    return metrics, baseline


async def _monty_calls(directory: int) -> list[tuple[float, float]]:
    runner = monty_runner()
    try:
        return [await _call(runner, directory) for _ in range(CALLS)]
    finally:
        await runner.close()


async def _call(runner: ToolRunner, directory: int) -> tuple[float, float]:
    """Milliseconds by the clock, and of the worker's processor time."""
    began = time.perf_counter()
    engine = runner.python_engine.name
    result = await runner.run(request_for("print(1 + 1)", directory, engine=engine))
    took = (time.perf_counter() - began) * 1000
    assert (result.status, result.stdout) == (ExecStatus.OK, b"2\n"), result
    return took, result.cpu_seconds * 1000


def _calculator_ms() -> float:
    took = []
    for _ in range(QUICK_CALLS):
        began = time.perf_counter()
        evaluate("2**10 + sqrt(2) * 3")
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def _file_ms(base: Path) -> float:
    root = open_workspace_root(base, forbidden=[])
    workspace = root.for_run("a" * 32, "b" * 32)
    workspace.write_file("a/b.txt", b"x" * 1000)
    took = []
    for _ in range(QUICK_CALLS):
        began = time.perf_counter()
        workspace.read_file("a/b.txt", 4096)
        took.append((time.perf_counter() - began) * 1000)
    workspace.close()
    root.close()
    return statistics.median(took)


async def attacked() -> dict[str, float]:
    """Every row of the corpus with and without walls; what is over its deadline is counted."""
    rows = corpus()
    attempts = [row for row in rows if row["class"] != "dos"]
    dos = [row for row in rows if row["class"] == "dos"]
    strict, free = runner_for(), runner_for(SandboxMode.OFF_UNSAFE)
    controls = escapes = 0
    try:
        with escape_scene() as scene:
            for row in attempts:
                controls += (await scene.attempt(free, row)).succeeded
                attempt = await scene.attempt(strict, row)
                if attempt.succeeded:
                    escapes += 1
                    print(f"ESCAPE {attempt.row_id}: {attempt.told}")
        over = [row["id"] for row in dos if await _is_over_deadline(strict, row)]
    finally:
        await strict.close()
        await free.close()
    print(f"over their deadline: {over}")
    return {
        "escape_attempts": float(len(attempts)),
        "control_succeeded": float(controls),
        "escapes": float(escapes),
        "dos_attempts": float(len(dos)),
        "dos_over_deadline": float(len(over)),
    }


async def _is_over_deadline(runner: ToolRunner, row: dict[str, Any]) -> bool:
    with open_directory() as base, held(base) as directory:
        began = time.monotonic()
        await runner.run(request_for(row["payload"], directory, wall_seconds=DOS_SECONDS))
        return time.monotonic() - began > DOS_SECONDS + GRACE_SECONDS


if __name__ == "__main__":
    main()
