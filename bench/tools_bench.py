"""What a confined call costs beside an unconfined one, and what the corpus of attacks comes to.

Both kinds of call alternate in the same minute, so a busy machine slows both. `--attacks` runs
every corpus of attacks as well, at full counts (bench/tool_attacks.py), and with `--write` writes
docs/tool-attacks.md; a figure that cannot be stood by ends the bench.
"""

import argparse
import asyncio
import logging
import statistics
import time
from pathlib import Path

from app.domain.sandbox_mode import SandboxMode
from app.sandbox.execution import EngineName, ExecStatus
from app.sandbox.tool_runner import ToolRunner
from app.sandbox.workspace import open_workspace_root
from app.tools.calculator import evaluate
from bench.doctor_time import doctor_seconds
from bench.paired import ROOT, report
from bench.tool_attacks import attacked, metrics_of, page
from tests.support.escape_scene import (
    TENANT,
    held,
    monty_runner,
    open_directory,
    request_for,
    runner_for,
)

CALLS = 200
QUICK_CALLS = 2_000
_PROGRAMS = {EngineName.VIRTUAL_SHELL: "echo $((1 + 1)) | cat"}


def main() -> None:
    """Measure; with `--attacks` attack, too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attacks", action="store_true", help="run every corpus as well")
    parser.add_argument("--write", action="store_true", help="write the attacks' page in docs/")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # each unconfined call says that it is one
    metrics, baseline = asyncio.run(measured())
    metrics["doctor_s"], baseline["doctor_s"], metrics["doctor_programs"] = doctor_seconds()
    if arguments.attacks:
        arms = asyncio.run(attacked())
        metrics |= metrics_of(arms)
        if arguments.write:
            (ROOT / "docs" / "tool-attacks.md").write_text(page(arms), encoding="utf-8")
    for name, value in metrics.items():
        print(f"{name:24} {value:10.3f}   {baseline.get(name, '')}")
    report("tools", metrics, baseline)


async def measured() -> tuple[dict[str, float], dict[str, float]]:
    """Medians in milliseconds, and beside them the same without walls."""
    strict, free = runner_for(), runner_for(SandboxMode.OFF_UNSAFE)
    confined: list[tuple[float, float]] = []
    unconfined: list[tuple[float, float]] = []
    shell: list[tuple[float, float]] = []
    free_shell: list[tuple[float, float]] = []
    try:
        with open_directory() as base, held(base) as directory:
            for _ in range(CALLS):
                confined.append(await _call(strict, directory))
                unconfined.append(await _call(free, directory))
                shell.append(await _call(strict, directory, EngineName.VIRTUAL_SHELL))
                free_shell.append(await _call(free, directory, EngineName.VIRTUAL_SHELL))
            monty, made_for_it = await _monty_calls(directory)
            file_ms = _file_ms(base)
    finally:
        await strict.close()
        await free.close()
    pairs = list(zip(confined, unconfined, strict=True))
    metrics = {
        "native_ms": statistics.median(wall for wall, _ in confined),
        "native_p95_ms": statistics.quantiles([wall for wall, _ in confined], n=20)[-1],
        "shell_ms": statistics.median(wall for wall, _ in shell),
        "shell_p95_ms": statistics.quantiles([wall for wall, _ in shell], n=20)[-1],
        "shell_cpu_ms": statistics.median(cpu for _, cpu in shell),
        # Processor time of the worker: the clock of a busy machine tells of the others.
        "confinement_ms": statistics.median(one[1] - other[1] for one, other in pairs),
        "confinement_wall_ms": statistics.median(one[0] - other[0] for one, other in pairs),
        "monty_ms": statistics.median(wall for wall, _ in monty),
        "monty_p95_ms": statistics.quantiles([wall for wall, _ in monty], n=20)[-1],
        "monty_processor_ms": statistics.median(worker for _, worker in monty),
        "calculator_ms": _calculator_ms(),
        "file_ms": file_ms,
    }
    baseline = {
        "native_ms": statistics.median(wall for wall, _ in unconfined),
        "native_p95_ms": statistics.quantiles([wall for wall, _ in unconfined], n=20)[-1],
        "shell_ms": statistics.median(wall for wall, _ in free_shell),
        "shell_p95_ms": statistics.quantiles([wall for wall, _ in free_shell], n=20)[-1],
        # In a worker that is made for the call: what one waits for that has names of files in it.
        "monty_ms": statistics.median(wall for wall, _ in made_for_it),
        "monty_processor_ms": statistics.median(worker for _, worker in made_for_it),
    }
    return metrics, baseline


_Calls = list[tuple[float, float]]


async def _monty_calls(directory: int) -> tuple[_Calls, _Calls]:
    """As an idle service answers, where a worker waits; and with one that is made for the call."""
    waiting, made_for_it = _Calls(), _Calls()
    runner, plain = monty_runner(), monty_runner(makes_ahead=False)
    try:
        for _ in range(CALLS):
            made_for_it.append(await _call(plain, directory, EngineName.MONTY))
            answered = runner.calls_at_once
            found = await _call(runner, directory, EngineName.MONTY)
            if runner.calls_at_once > answered:
                waiting.append(found)
            await runner.until_one_waits(TENANT)
    finally:
        await runner.close()
        await plain.close()
    assert len(waiting) >= CALLS - 10, len(waiting)  # the first, and the first of each zygote
    return waiting, made_for_it


async def _call(
    runner: ToolRunner, directory: int, engine: EngineName = EngineName.NATIVE
) -> tuple[float, float]:
    """Milliseconds by the clock, and of the worker's processor time."""
    program = _PROGRAMS.get(engine, "print(1 + 1)")
    began = time.perf_counter()
    result = await runner.run(request_for(program, directory, engine=engine))
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


if __name__ == "__main__":
    main()
