"""Hostile programs in a Monty that waits: nothing is reached, whatever names are in them.

No first layer reads them, and nothing runs them a second time: each row has a worker of its own,
made before anybody knew the row. What it does not answer counts as not succeeded, but the outside
is looked at all the same, and enough rows have to be answered. The controls are those of
`test_monty_escapes.py` and `test_language_escapes.py`.
"""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.domain.sandbox_mode import SandboxMode
from app.sandbox.execution import EngineName, ExecResult, ExecStatus
from tests.support.escape_scene import Attempt, corpus, escape_scene, open_directory
from tests.support.language_attack import language_rows
from tests.support.waiting_montys import answered, zygote_of_monty

_LANGUAGE = [row for row in language_rows() if EngineName.MONTY.value in row["engine"]]
ROWS = [
    *corpus("monty"),
    *_LANGUAGE,
    *(row for row in corpus() if row["class"] != "dos"),
]
_DOS = [row for row in corpus() if row["class"] == "dos"]
_NOT_ANSWERED = ExecResult(status=ExecStatus.REFUSED)
_REPOSITORY = Path(__file__).parents[2]


def _attempts(mode: SandboxMode, rows: list[dict[str, Any]]) -> list[tuple[Attempt, bool]]:
    """Each with whether the worker answered it."""

    async def go() -> list[tuple[Attempt, bool]]:
        found = []
        async with zygote_of_monty(mode) as link:
            with escape_scene() as scene:
                for row in rows:
                    scene.fresh()
                    text = scene.payload(row)
                    result = await answered(link, text, wall_seconds=2.0, cpu_seconds=2)
                    attempt = scene.judged(row, result or _NOT_ANSWERED)
                    found.append((attempt, result is not None))
        return found

    return asyncio.run(go())


@pytest.mark.parametrize("mode", list(SandboxMode))
def test_nothing_is_reached(mode: SandboxMode) -> None:
    """Without any wall of the kernel, too: each wall counts alone."""
    attempts = _attempts(mode, ROWS)
    assert [attempt for attempt, _ in attempts if attempt.succeeded] == []
    assert not [attempt for attempt, _ in attempts if attempt.told.startswith("unavailable")]
    alone = sum(is_answered for _, is_answered in attempts)
    print(f"{alone} of {len(attempts)} rows are answered by the worker that waited")
    assert alone >= 150


def test_what_would_exhaust_the_machine_is_ended() -> None:
    async def go() -> list[ExecResult | None]:
        async with zygote_of_monty() as link:
            ends = [
                await answered(link, row["payload"], wall_seconds=0.9, cpu_seconds=2)
                for row in _DOS
            ]
            ends.append(await answered(link, "print(6 * 7)"))
            return ends

    *ends, after = asyncio.run(go())
    assert len(ends) >= 10
    assert after is not None
    assert after.stdout == b"42\n"


# Confined as a worker that waits is; then it tries to read its would-be workspace and a library.
_WITHOUT_FILES = """
import os, sys
from app.sandbox.confinement import build_walls, confine, drop_power
from app.sandbox.execution import ExecLimits
from app.sandbox.kernel_calls import LinuxKernel
from app.sandbox.sandbox_profile import SandboxProfile
from tests.support.escape_scene import worker_account

kernel = LinuxKernel()
place = os.open(sys.argv[1], os.O_PATH)
drop_power(kernel, worker_account())
walls = build_walls(kernel, SandboxProfile(), (), may_become=True, needs_landlock=False)
confine(kernel, walls, workspace_fd=place, limits=ExecLimits())
told = []
for name, flags in (("a", os.O_RDONLY), ("b", os.O_CREAT | os.O_WRONLY)):
    try:
        os.open(sys.argv[1] + "/" + name, flags)
        told.append("opened")
    except PermissionError:
        told.append("refused")
os.write(1, " ".join(told).encode())
os._exit(0)
"""


def test_a_worker_without_files_cannot_reach_even_the_place_it_was_handed() -> None:
    with open_directory() as base:
        (base / "a").write_text("x")
        (base / "a").chmod(0o644)
        base.chmod(0o777)
        told = subprocess.run(
            [sys.executable, "-c", _WITHOUT_FILES, str(base)],
            stdout=subprocess.PIPE,
            check=True,
            cwd=_REPOSITORY,
        )
    assert told.stdout == b"refused refused"
