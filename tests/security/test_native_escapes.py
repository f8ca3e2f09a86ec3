"""Hostile programs in the native engine: what works unconfined reaches nothing from a worker.

Each row of the corpus runs without walls (the control: a payload that never works proves nothing)
and with them, once without any first layer and once behind it.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from app.domain.sandbox_mode import SandboxMode
from app.sandbox import zygote_link
from app.sandbox.execution import EngineName
from app.tools.python_guard import first_objection, load_refusals
from tests.support.escape_scene import (
    Attempt,
    EscapeScene,
    corpus,
    escape_scene,
    runner_for,
)
from tests.support.exhausting_calls import DosEnds, assert_held, ends_of
from tests.support.older_landlock import entry_with_older_landlock

ROWS = corpus()
ATTEMPTS = [row for row in ROWS if row["class"] != "dos"]
DOS = [row for row in ROWS if row["class"] == "dos"]
_MEMBERS = {"id", "class", "engine", "payload", "oracle", "layer", "source"}
_FULL = os.getenv("MESHFLOW_PROOF") == "1"


async def _all(
    rows: list[dict[str, Any]], attempt: Callable[[EscapeScene, dict[str, Any]], Awaitable[Attempt]]
) -> list[Attempt]:
    with escape_scene() as scene:
        return [await attempt(scene, row) for row in rows]


def _run(mode: SandboxMode, rows: list[dict[str, Any]]) -> list[Attempt]:
    async def go() -> list[Attempt]:
        runner = runner_for(mode)
        try:
            return await _all(rows, lambda scene, row: scene.attempt(runner, row))
        finally:
            await runner.close()

    return asyncio.run(go())


def test_the_corpus_is_large_enough_and_every_row_is_whole() -> None:
    assert len(ATTEMPTS) >= 150
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    assert all(row.keys() == _MEMBERS for row in ROWS)


def test_the_control_proves_that_the_payloads_work() -> None:
    attempts = _run(SandboxMode.OFF_UNSAFE, ATTEMPTS)
    worked = [attempt.row_id for attempt in attempts if attempt.succeeded]
    print(f"{len(worked)} of {len(attempts)} payloads work unconfined")
    assert len(worked) >= 80
    classes = {row["class"] for row in ATTEMPTS if row["id"] in worked}
    assert classes == {row["class"] for row in ATTEMPTS}


def test_nothing_escapes_with_every_first_layer_check_off() -> None:
    attempts = _run(SandboxMode.STRICT, ATTEMPTS)
    assert [attempt for attempt in attempts if attempt.succeeded] == []
    # A worker that runs nothing would hold everything, too.
    assert not [attempt for attempt in attempts if attempt.told.startswith("unavailable")]


def test_nothing_escapes_behind_the_first_layer() -> None:
    refusals = load_refusals(None)

    async def go() -> list[Attempt]:
        runner = runner_for()

        async def attempt(scene: EscapeScene, row: dict[str, Any]) -> Attempt:
            scene.fresh()
            objection = first_objection(scene.payload(row), refusals)
            if objection is not None:
                return Attempt(row_id=row["id"], succeeded=False, told=f"refused {objection}")
            return await scene.attempt(runner, row)

        try:
            return await _all(ATTEMPTS, attempt)
        finally:
            await runner.close()

    attempts = asyncio.run(go())
    refused = [attempt for attempt in attempts if attempt.told.startswith("refused")]
    print(f"the first layer refuses {len(refused)} of {len(attempts)} early")
    assert [attempt for attempt in attempts if attempt.succeeded] == []
    assert refused


@pytest.mark.parametrize("abi", [1, 3] if _FULL else [1])
def test_nothing_escapes_where_landlock_is_old(
    abi: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The zygote is told of an older Landlock than there is, and asks only that much of it."""
    monkeypatch.setattr(zygote_link, "_ENTRY", entry_with_older_landlock(abi, tmp_path))
    attempts = _run(SandboxMode.STRICT, ATTEMPTS)
    assert [attempt for attempt in attempts if attempt.succeeded] == []
    assert not [attempt for attempt in attempts if attempt.told.startswith("unavailable")]


@pytest.fixture(scope="module")
def dos_ends() -> DosEnds:
    """How each ends, how the call after it does, and how many names it leaves."""
    return ends_of(DOS, EngineName.NATIVE, 3.0 if _FULL else 0.7)


@pytest.mark.parametrize("row_id", [row["id"] for row in DOS])
def test_what_would_exhaust_the_machine_is_ended_and_the_next_call_works(
    row_id: str, dos_ends: DosEnds
) -> None:
    assert_held(dos_ends[row_id])
