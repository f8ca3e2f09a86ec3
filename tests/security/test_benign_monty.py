"""Ordinary programs in the part of Python that Monty knows say there what they say in CPython."""

import asyncio

import pytest

from app.domain.sandbox_mode import SandboxMode
from app.sandbox.execution import ExecStatus
from app.sandbox.tool_runner import ToolRunner
from app.tools.monty_output import without_marks
from tests.support.escape_scene import (
    corpus,
    held,
    monty_runner,
    open_directory,
    request_for,
    runner_for,
)

PROGRAMS = {row["id"]: row["program"] for row in corpus("benign_monty")}
Told = tuple[ExecStatus, str, str]


async def _told(runner: ToolRunner, text: str) -> Told:
    with open_directory() as base, held(base) as directory:
        result = await runner.run(request_for(text, directory, engine=runner.python_engine.name))
    shown = without_marks(result)
    return shown.status, shown.stdout.decode(), shown.stderr.decode()


@pytest.fixture(scope="module")
def told() -> dict[str, tuple[Told, Told, Told]]:
    """What each says in CPython, in Monty, and in Monty without walls."""

    async def go() -> dict[str, tuple[Told, Told, Told]]:
        runners = (runner_for(), monty_runner(), monty_runner(SandboxMode.OFF_UNSAFE))
        try:
            return {
                name: (
                    await _told(runners[0], text),
                    await _told(runners[1], text),
                    await _told(runners[2], text),
                )
                for name, text in PROGRAMS.items()
            }
        finally:
            for runner in runners:
                await runner.close()

    return asyncio.run(go())


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_a_program_says_the_same_in_both_interpreters_and_without_walls(
    name: str, told: dict[str, tuple[Told, Told, Told]]
) -> None:
    native, confined, free = told[name]
    assert confined == native
    assert confined == free
    assert native[0] is ExecStatus.OK
