"""Every corpus of attacks on tools against the tools and against controls, counted for the bench.

One function for each corpus; each counts attempts, those that its control proves to be attacks, and
those that got through. What is counted are facts outside the tool, as in the tests.
"""

import asyncio
import os
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.domain.sandbox_mode import SandboxMode
from app.sandbox.execution import EngineName
from app.sandbox.kernel_calls import LinuxKernel
from app.sandbox.landlock import landlock_abi
from app.sandbox.openat2 import open_by_openat2, open_by_walk
from app.sandbox.python_engine import MONTY_VERSION
from app.sandbox.tool_runner import ToolRunner
from app.tools.shell_guard import load_shell_refusals
from app.tools.shell_guard import refused as shell_refused
from tests.support import calculator_attack, path_attack
from tests.support.escape_scene import (
    corpus,
    escape_scene,
    held,
    lent,
    monty_runner,
    open_directory,
    request_for,
    runner_for,
)
from tests.support.language_attack import attempt, first_layer_refuses, language_rows
from tests.support.shell_control import in_real_bash
from tests.support.ssrf_attack import ssrf_counts

DOS_SECONDS = 2.0
GRACE_SECONDS = 0.5
RACING_OPENS = 100_000
_CONTROL_SECONDS = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What came of one corpus in one engine."""

    name: str
    attempts: int
    proven: int
    escapes: list[str]
    dos_attempts: int = 0
    over_deadline: list[str] = field(default_factory=list)
    first_layer: str = "none"
    metrics: dict[str, float] = field(default_factory=dict)


async def attacked() -> list[Arm]:
    """Every corpus, one after the other."""
    arms = []
    for count in ARMS:
        arms.append(await count())
        print(shown(arms[-1]), flush=True)
        for row in (*arms[-1].escapes, *arms[-1].over_deadline):
            print("   THROUGH OR OVER ITS DEADLINE:", row)
    return arms


async def native() -> Arm:
    """Hostile programs in CPython."""
    rows = [row for row in corpus() if row["class"] != "dos"]
    dos = [row for row in corpus() if row["class"] == "dos"]
    refused = sum(first_layer_refuses(row) for row in rows)
    return Arm(
        name="programs in `native`",
        attempts=len(rows),
        proven=len(await _succeeded(_free(), rows, EngineName.NATIVE)),
        escapes=await _succeeded(runner_for(), rows, EngineName.NATIVE),
        dos_attempts=len(dos),
        over_deadline=await _over_deadline(runner_for(), dos, EngineName.NATIVE),
        first_layer=f"{refused} of {len(rows)}",
    )


async def monty() -> Arm:
    """Programs written for Monty, and those that exhaust something."""
    rows = corpus("monty")
    dos = [row for row in corpus() if row["class"] == "dos"]
    return Arm(
        name="programs in `monty`",
        attempts=len(rows),
        proven=len(await _succeeded(_free(), rows, EngineName.NATIVE)),
        escapes=await _succeeded(monty_runner(), rows, EngineName.MONTY),
        dos_attempts=len(dos),
        over_deadline=await _over_deadline(monty_runner(), dos, EngineName.MONTY),
    )


async def language_native() -> Arm:
    """Ways out of the language, in CPython."""
    rows = language_rows()
    refused = sum(map(first_layer_refuses, rows))
    return Arm(
        name="ways out of Python in `native`",
        attempts=len(rows),
        proven=len(await _succeeded(_free(), rows, EngineName.NATIVE)),
        escapes=await _succeeded(runner_for(), rows, EngineName.NATIVE),
        first_layer=f"{refused} of {len(rows)}",
    )


async def language_monty() -> Arm:
    """The same in Monty; what they do in CPython is counted above and not again."""
    rows = language_rows()
    return Arm(
        name="ways out of Python in `monty`",
        attempts=len(rows),
        proven=0,
        escapes=await _succeeded(monty_runner(), rows, EngineName.MONTY),
    )


async def shell() -> Arm:
    """Hostile commands in the virtual shell; the control is a real bash."""
    rows = [row for row in corpus("shell") if row["class"] != "dos"]
    dos = [row for row in corpus("shell") if row["class"] == "dos"]
    refusals = load_shell_refusals(None)
    with escape_scene() as scene:
        proven = sum(in_real_bash(scene, row).succeeded for row in rows)
        texts = [scene.payload(row) for row in rows]
    refused = sum(shell_refused(text, refusals) is not None for text in texts)
    return Arm(
        name="commands in the virtual shell",
        attempts=len(rows),
        proven=proven,
        escapes=await _succeeded(runner_for(), rows, EngineName.VIRTUAL_SHELL),
        dos_attempts=len(dos),
        over_deadline=await _over_deadline(runner_for(), dos, EngineName.VIRTUAL_SHELL),
        first_layer=f"{refused} of {len(rows)}",
    )


async def calculator() -> Arm:
    """Hostile expressions; a hang would end the bench."""
    rows = calculator_attack.corpus()
    with tempfile.TemporaryDirectory(prefix="mf-calculator-") as made:
        canary = Path(made) / "canary"
        arm = await asyncio.to_thread(calculator_attack.evaluated, rows, canary)
        wrote = canary.exists()
        harms = await asyncio.to_thread(calculator_attack.harmed, rows, canary, _CONTROL_SECONDS)
    valued = [
        one.row["id"]
        for one in arm.evaluated
        if one.value is not None and one.row["class"] != "work"
    ]
    return Arm(
        name="expressions for the calculator",
        attempts=len(rows),
        proven=sum(map(bool, harms.values())),
        escapes=[*valued, *(["something was written"] if wrote else [])],
    )


async def paths() -> Arm:
    """Paths for every file tool, with both ways of opening, and the race."""
    counts = await path_attack.path_counts((open_by_openat2, open_by_walk), RACING_OPENS)
    return Arm(
        name="paths for the file tools",
        attempts=counts.attempts,
        proven=counts.control_succeeded,
        escapes=counts.escapes,
        metrics={
            "race_opens": float(counts.race_opens),
            "race_leaks": float(counts.race_leaks),
            "race_control_leaks": float(counts.race_control_leaks),
        },
    )


async def ssrf() -> Arm:
    """URLs for the egress client. They are told as figures of their own."""
    counts = await ssrf_counts()
    return Arm(
        name="URLs for `http_fetch`",
        attempts=counts.ssrf_urls,
        proven=counts.control_leaked,
        escapes=[f"{counts.ssrf_leaks} URLs"] if counts.ssrf_leaks else [],
        metrics={
            "ssrf_urls": float(counts.ssrf_urls),
            "ssrf_leaks": float(counts.ssrf_leaks),
            "ssrf_control_leaks": float(counts.control_leaked),
        },
    )


ARMS: Sequence[Callable[[], Awaitable[Arm]]] = (
    native,
    monty,
    language_native,
    language_monty,
    shell,
    calculator,
    paths,
    ssrf,
)


def metrics_of(arms: Sequence[Arm]) -> dict[str, float]:
    """The sums, and what an arm tells beside them; URLs are counted apart."""
    added = [arm for arm in arms if "ssrf_urls" not in arm.metrics]
    metrics = {
        "escape_attempts": float(sum(arm.attempts for arm in added)),
        "control_succeeded": float(sum(arm.proven for arm in added)),
        "escapes": float(sum(len(arm.escapes) for arm in added)),
        "dos_attempts": float(sum(arm.dos_attempts for arm in added)),
        "dos_over_deadline": float(sum(len(arm.over_deadline) for arm in added)),
    }
    for arm in arms:
        metrics |= arm.metrics
    return metrics


def shown(arm: Arm) -> str:
    """One row of the table."""
    dos = f"{len(arm.over_deadline)} of {arm.dos_attempts}" if arm.dos_attempts else "-"
    cells = (arm.name, arm.attempts, arm.proven, len(arm.escapes), dos, arm.first_layer)
    return "| " + " | ".join(map(str, cells)) + " |"


def page(arms: Sequence[Arm]) -> str:
    """docs/tool-attacks.md."""
    metrics = metrics_of(arms)
    account = "root, whose workers are nobody" if os.geteuid() == 0 else "a user"
    machine = (
        f"{os.cpu_count()} CPUs ({platform.machine()}, Linux {platform.release()}, Landlock ABI "
        f"{landlock_abi(LinuxKernel())}, Python {platform.python_version()}, Monty "
        f"{MONTY_VERSION}), workspaces on {_file_system()}, {account}"
    )
    race = (
        f"Racing opens: {metrics['race_opens']:,.0f}, of which {metrics['race_leaks']:,.0f} got "
        f"outside; {RACING_OPENS:,} that resolve before they open: "
        f"{metrics['race_control_leaks']:,.0f} got outside."
    )
    ran = f"Run of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: {machine}."
    return "\n".join([_HEAD, ran, "", *_COLUMNS, *map(shown, arms), "", race]) + "\n"


def _file_system() -> str:
    """What kind the temporary directory is on: how fast a flooded workspace is emptied is its."""
    place = Path(tempfile.gettempdir()).resolve()
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    above = [mount for mount in mounts if place.is_relative_to(mount[1])]
    return max(above, key=lambda mount: len(mount[1]))[2]


_COLUMNS = (
    "| corpus | attempts | the control succeeds | succeed | late | the first layer refuses |",
    "|---|---|---|---|---|---|",
)
_HEAD = """\
# Attacks on tools

Written by `make bench-tools ARGS="--attacks --write"`. Each corpus is a file of
`tests/security/corpus/`; the tests of `tests/security/` run the same rows. *Attempts* run with
every check of the first layer switched off. *The control succeeds*: the same rows against the same
tool without walls or guard, so that it is known that they are attacks (for `monty` in CPython).
*Succeed* is decided by facts outside the tool: a canary that was read or changed, a listener that
heard, a file that should not be. *Late*: programs that exhaust something and ended later than 0.5 s
after their time. The first layer is **not a boundary**: its column says how much of the corpus it
would catch alone.
"""


def _free() -> ToolRunner:
    return runner_for(SandboxMode.OFF_UNSAFE)


async def _succeeded(
    runner: ToolRunner, rows: Sequence[dict[str, Any]], engine: EngineName
) -> list[str]:
    try:
        with escape_scene() as scene:
            ends = [await attempt(scene, runner, row, engine) for row in rows]
    finally:
        await runner.close()
    lost = [end.row_id for end in ends if end.told.startswith("unavailable")]
    if lost:
        sys.exit(f"these did not run, and prove nothing: {lost}")
    return [end.row_id for end in ends if end.succeeded]


async def _over_deadline(
    runner: ToolRunner, rows: Sequence[dict[str, Any]], engine: EngineName
) -> list[str]:
    over = []
    try:
        with open_directory() as base, held(base) as directory:
            # The first call also starts the interpreter that the others are forked from.
            await runner.run(request_for("1", directory, engine=engine))
        for row in rows:
            with lent() as (workspace, directory, _):
                request = request_for(
                    row["payload"],
                    directory,
                    engine=engine,
                    workspace=workspace,
                    wall_seconds=DOS_SECONDS,
                )
                began = time.monotonic()
                await runner.run(request)
                if time.monotonic() - began > DOS_SECONDS + GRACE_SECONDS:
                    over.append(row["id"])
    finally:
        await runner.close()
    return over
