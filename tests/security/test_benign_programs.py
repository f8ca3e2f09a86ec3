"""Ordinary programs behave in a confined worker as they do without walls: same words, same end."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.domain.sandbox_mode import SandboxMode
from app.sandbox.execution import ExecResult, ExecStatus
from app.sandbox.tool_runner import ToolRunner
from app.tools.python_guard import first_objection, load_refusals
from tests.support.escape_scene import held, open_directory, request_for, runner_for

CORPUS = Path(__file__).parent / "corpus" / "benign.jsonl"
ROWS = {row["id"]: row for row in map(json.loads, CORPUS.read_text(encoding="utf-8").splitlines())}
PROGRAMS: dict[str, str] = {name: row["program"] for name, row in ROWS.items()}
# What differs from call to call whatever confines it.
_VARIES = re.compile(rb"0x[0-9a-f]+|line \d+, in <lambda>|at \d+\.\d+s")


Ends = dict[str, tuple[ExecResult, ExecResult]]


@pytest.fixture(scope="module")
def ends() -> Ends:
    """How each program ends, without walls and with them."""

    async def go() -> Ends:
        free, strict = runner_for(SandboxMode.OFF_UNSAFE), runner_for()
        try:
            return {
                name: (await _end(free, text), await _end(strict, text))
                for name, text in PROGRAMS.items()
            }
        finally:
            await free.close()
            await strict.close()

    return asyncio.run(go())


async def _end(runner: ToolRunner, text: str) -> ExecResult:
    with open_directory() as base, held(base) as directory:
        return await runner.run(request_for(text, directory))


def _told(result: ExecResult) -> tuple[Any, ...]:
    return (
        result.status,
        result.exit_code,
        _VARIES.sub(b"", result.stdout),
        _VARIES.sub(b"", result.stderr),
    )


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_an_ordinary_program_does_the_same_with_and_without_walls(name: str, ends: Ends) -> None:
    free, confined = ends[name]
    assert _told(confined) == _told(free)
    assert (confined.status is ExecStatus.OK) is not ROWS[name]["fails"], confined


def test_what_is_left_open_at_the_end_is_written() -> None:
    async def go() -> bytes:
        runner = runner_for()
        try:
            with open_directory() as base, held(base) as directory:
                await runner.run(request_for(PROGRAMS["unflushed"], directory))
                return (
                    await runner.run(request_for("print(open('late.txt').read())", directory))
                ).stdout
        finally:
            await runner.close()

    assert asyncio.run(go()) == b"written at the end\n"


def test_the_first_layer_lets_nearly_all_of_them_pass() -> None:
    refusals = load_refusals(None)
    refused = {name for name, text in PROGRAMS.items() if first_objection(text, refusals)}
    assert refused == {"mmap", "pickle", "pipes", "signals"}
