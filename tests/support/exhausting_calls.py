"""Programs that exhaust something: how each ends, what it leaves, and how the next call does."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from app.sandbox.execution import EndedBy, EngineName, ExecResult, ExecStatus
from app.sandbox.tool_runner import ToolRunner
from tests.support.escape_scene import held, lent, open_directory, request_for, runner_for

# The hostile call, the one after it, and how many names the first left in its workspace.
DosEnds = dict[str, tuple[ExecResult, ExecResult, int]]
_LIMITS = {
    EndedBy.DEADLINE,
    EndedBy.CPU_LIMIT,
    EndedBy.OUTPUT_LIMIT,
    EndedBy.WORKSPACE_QUOTA,
    EndedBy.SIGNAL,
}
# A program of each engine that prints 42.
_AFTER = {EngineName.NATIVE: "print(6 * 7)", EngineName.VIRTUAL_SHELL: "echo $((6 * 7))"}


def ends_of(rows: Sequence[Mapping[str, Any]], engine: EngineName, wall_seconds: float) -> DosEnds:
    """Each row in one runner, one after the other."""

    async def go() -> DosEnds:
        runner = runner_for()
        try:
            return {
                row["id"]: await _exhausted(runner, row["payload"], engine, wall_seconds)
                for row in rows
            }
        finally:
            await runner.close()

    return asyncio.run(go())


def assert_held(ends: tuple[ExecResult, ExecResult, int]) -> None:
    """It was ended by a limit or by itself within its time, and the next call works."""
    hostile, after, left = ends
    ended_by_itself = hostile.status in (ExecStatus.OK, ExecStatus.ERROR)
    assert hostile.ended_by in _LIMITS or ended_by_itself, hostile
    assert len(hostile.stdout) <= 1024 * 1024
    assert len(hostile.stderr) <= 64 * 1024
    assert hostile.peak_memory_bytes < 700 * 1024 * 1024
    assert left <= 2_000
    assert (after.status, after.stdout) == (ExecStatus.OK, b"42\n")


async def _exhausted(
    runner: ToolRunner, text: str, engine: EngineName, wall_seconds: float
) -> tuple[ExecResult, ExecResult, int]:
    with lent() as (workspace, directory, place):
        hostile = await runner.run(
            request_for(
                text,
                directory,
                engine=engine,
                workspace=workspace,
                wall_seconds=wall_seconds,
                cpu_seconds=2,
            )
        )
        left = len(list(place.iterdir()))
    with open_directory() as base, held(base) as directory:
        after = await runner.run(request_for(_AFTER[engine], directory, engine=engine))
        return hostile, after, left
