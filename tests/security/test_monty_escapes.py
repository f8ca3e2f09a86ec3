"""Hostile programs in Monty: nothing is reached, with Landlock behind it and without any.

Its own rows, which are written in the part of Python that it knows, then every row of the native
engine: what is Python there is refused or bounded here. The control of both is the native engine
without walls, in `test_native_escapes.py`; of the own rows the ones that CPython can do run here.
"""

import asyncio
from typing import Any

import pytest

from app.domain.sandbox_mode import SandboxMode
from app.sandbox.execution import EndedBy, EngineName, ExecResult, ExecStatus
from tests.support.escape_scene import (
    CORPORA,
    Attempt,
    corpus,
    escape_scene,
    held,
    monty_runner,
    open_directory,
    request_for,
    runner_for,
)

OWN = corpus(CORPORA / "monty.jsonl")
NATIVE = corpus()
ATTEMPTS = [*OWN, *(row for row in NATIVE if row["class"] != "dos")]
DOS = [row for row in NATIVE if row["class"] == "dos"]
_DOS_OF_ITS_OWN = {
    "power": "x = 9 ** 9 ** 9",
    "gcd": "import math\nprint(math.gcd(3 ** 600000, 7 ** 400000))",
    "text": "x = 'a'\nwhile True: x += x",
    "recursion": "def f(n): return f(n + 1)\nf(0)",
    "nested": "x = []\nfor n in range(10 ** 9): x = [x]",
    "pattern": "import re\nre.match('(a*)*$', 'a' * 50000 + 'b')",
    "output": "while True: print('x' * 1000)",
    "sleep": "import time\nwhile True: time.sleep(1)",
    "sorted": "while True: sorted(range(1000000))",
    "brackets": "(" * 20000,
    "json": "import json\njson.loads('[' * 1000000)",
}


def _attempts(
    mode: SandboxMode, rows: list[dict[str, Any]], *, has_files: bool, is_native: bool = False
) -> list[Attempt]:
    async def go() -> list[Attempt]:
        runner = runner_for(mode) if is_native else monty_runner(mode, has_files=has_files)
        try:
            with escape_scene() as scene:
                return [await scene.attempt(runner, row) for row in rows]
        finally:
            await runner.close()

    return asyncio.run(go())


def test_the_control_proves_that_the_rows_of_its_own_work_elsewhere() -> None:
    attempts = _attempts(SandboxMode.OFF_UNSAFE, OWN, has_files=True, is_native=True)
    worked = [attempt.row_id for attempt in attempts if attempt.succeeded]
    print(f"{len(worked)} of {len(attempts)} rows work in CPython without walls")
    assert len(worked) >= 40


@pytest.mark.parametrize("has_files", [True, False])
def test_nothing_escapes(has_files: bool) -> None:
    attempts = _attempts(SandboxMode.STRICT, ATTEMPTS, has_files=has_files)
    assert [attempt for attempt in attempts if attempt.succeeded] == []
    assert not [attempt for attempt in attempts if attempt.told.startswith("unavailable")]


def test_the_language_alone_holds_its_own_rows() -> None:
    """No wall of the kernel is up: what holds is the interpreter, and each wall counts alone."""
    attempts = _attempts(SandboxMode.OFF_UNSAFE, OWN, has_files=True)
    assert [attempt for attempt in attempts if attempt.succeeded] == []


Ends = dict[str, tuple[ExecResult, ExecResult]]
_ENDLESS = {row["id"]: row["payload"] for row in DOS} | _DOS_OF_ITS_OWN


@pytest.fixture(scope="module")
def ends() -> Ends:
    async def go() -> Ends:
        runner, found = monty_runner(), {}
        try:
            for name, text in _ENDLESS.items():
                with open_directory() as base, held(base) as directory:
                    monty = EngineName.MONTY
                    hostile = await runner.run(
                        request_for(text, directory, engine=monty, wall_seconds=0.9, cpu_seconds=2)
                    )
                    after = request_for("print(6 * 7)", directory, engine=monty)
                    found[name] = (hostile, await runner.run(after))
        finally:
            await runner.close()
        return found

    return asyncio.run(go())


@pytest.mark.parametrize("name", sorted(_ENDLESS))
def test_what_would_exhaust_the_machine_is_ended_and_the_next_call_works(
    name: str, ends: Ends
) -> None:
    hostile, after = ends[name]
    limits = {EndedBy.DEADLINE, EndedBy.CPU_LIMIT, EndedBy.OUTPUT_LIMIT, EndedBy.SIGNAL}
    limits |= {EndedBy.WORKSPACE_QUOTA}
    own_end = hostile.status in (ExecStatus.OK, ExecStatus.ERROR)
    assert own_end or hostile.ended_by in limits, hostile
    assert hostile.peak_memory_bytes < 400 * 1024 * 1024
    assert (after.status, after.stdout) == (ExecStatus.OK, b"42\n")
