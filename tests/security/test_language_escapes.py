"""Ways out of Python as a language: they work unconfined, and no engine lets one reach the host.

Each row is run without walls (the control), in each engine without any first layer, and in each
behind it. How many the first layer alone would refuse is printed, and published as what it is: no
boundary.
"""

import asyncio
import os
from typing import Any

import pytest

from app.domain.sandbox_mode import SandboxMode
from app.sandbox.execution import EngineName
from app.sandbox.tool_runner import ToolRunner
from tests.support.escape_scene import Attempt, escape_scene, monty_runner, runner_for
from tests.support.language_attack import attempt, first_layer_refuses, language_rows

ROWS = language_rows()
_MEMBERS = {"id", "class", "engine", "payload", "oracle", "layer", "source"}
_ORACLES = {"prints", "file", "listener", "accept"}
_FULL = os.getenv("MESHFLOW_PROOF") == "1"
EACH = pytest.mark.parametrize("engine", [EngineName.NATIVE, EngineName.MONTY])


def _runner(engine: EngineName) -> ToolRunner:
    return monty_runner() if engine is EngineName.MONTY else runner_for()


def _run(runner: ToolRunner, rows: list[dict[str, Any]], engine: EngineName) -> list[Attempt]:
    async def go() -> list[Attempt]:
        try:
            with escape_scene() as scene:
                return [await attempt(scene, runner, row, engine) for row in rows]
        finally:
            await runner.close()

    return asyncio.run(go())


@EACH
def test_the_corpus_is_large_enough_for_each_engine_and_every_row_is_whole(
    engine: EngineName,
) -> None:
    assert sum(engine.value in row["engine"] for row in ROWS) >= 120
    assert len({row["id"] for row in ROWS}) == len({row["payload"] for row in ROWS}) == len(ROWS)
    assert all(row.keys() == _MEMBERS for row in ROWS)
    # Facts outside the program, never a word that it only has to say.
    assert {row["oracle"]["kind"] for row in ROWS} == _ORACLES


def test_the_control_proves_that_the_ways_out_work() -> None:
    attempts = _run(runner_for(SandboxMode.OFF_UNSAFE), ROWS, EngineName.NATIVE)
    worked = {one.row_id for one in attempts if one.succeeded}
    print(f"{len(worked)} of {len(ROWS)} language payloads work unconfined")
    assert len(worked) >= 80
    assert {row["class"] for row in ROWS if row["id"] in worked} == {row["class"] for row in ROWS}


@EACH
def test_none_reaches_the_host_with_the_first_layer_off(engine: EngineName) -> None:
    attempts = _run(_runner(engine), ROWS, engine)
    assert [one for one in attempts if one.succeeded] == []
    # A worker that runs nothing would hold everything, too.
    assert not [one for one in attempts if one.told.startswith("unavailable")]


@EACH
def test_none_reaches_the_host_behind_the_first_layer(engine: EngineName) -> None:
    passed = [row for row in ROWS if not first_layer_refuses(row)]
    refused = len(ROWS) - len(passed)
    print(f"the first layer alone would refuse {refused} of {len(ROWS)}: it is no boundary")
    assert 0 < refused < len(ROWS)
    attempts = _run(_runner(engine), passed, engine)
    assert [one for one in attempts if one.succeeded] == []


@pytest.mark.parametrize("with_files", [True, False] if _FULL else [False])
def test_none_reaches_the_host_from_monty_where_there_is_no_landlock(*, with_files: bool) -> None:
    """Without Landlock it has no files; here also with them, at full counts."""
    attempts = _run(monty_runner(has_files=with_files), ROWS, EngineName.MONTY)
    assert [one for one in attempts if one.succeeded] == []
