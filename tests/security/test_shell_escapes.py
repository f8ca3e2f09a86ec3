"""Hostile commands in the virtual shell: what works in a real bash reaches nothing from a worker.

Each row of the corpus runs with the first layer and without. Then again in a shell whose own file
system is the whole machine, so that nothing but the kernel's walls is left; without those walls
the same shell is the control of that. `test_shell_control.py` is the control in a real bash.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from app.domain.sandbox_mode import SandboxMode
from app.sandbox import zygote_link
from app.sandbox.execution import EndedBy, EngineName, ExecStatus
from app.sandbox.tool_runner import ToolRunner
from app.tools.shell_guard import load_shell_refusals, refused
from tests.support.escape_scene import (
    Attempt,
    EscapeScene,
    corpus,
    escape_scene,
    runner_for,
)
from tests.support.exhausting_calls import DosEnds, assert_held, ends_of

ROWS = corpus("shell")
ATTEMPTS = [row for row in ROWS if row["class"] != "dos"]
DOS = [row for row in ROWS if row["class"] == "dos"]
_MEMBERS = {"id", "class", "engine", "payload", "oracle", "layer", "source"}
_FULL = os.getenv("MESHFLOW_PROOF") == "1"
# Landlock hides no metadata: that a process exists can be asked. The shell's own walls hide it.
_METADATA = {"shell-process-seen"}


def _run(mode: SandboxMode, rows: list[dict[str, Any]], **options: Any) -> list[Attempt]:
    async def go() -> list[Attempt]:
        runner = runner_for(mode, **options)
        try:
            with escape_scene() as scene:
                return [await scene.attempt(runner, row) for row in rows]
        finally:
            await runner.close()

    return asyncio.run(go())


def _escaped(attempts: list[Attempt]) -> list[Attempt]:
    """Those that reached something. A worker that runs nothing would hold everything, too."""
    assert not [attempt for attempt in attempts if attempt.told.startswith("unavailable")]
    return [attempt for attempt in attempts if attempt.succeeded]


def test_the_corpus_is_large_enough_and_every_row_is_whole() -> None:
    assert len(ATTEMPTS) >= 60
    assert len(DOS) >= 50
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    assert all(row.keys() == _MEMBERS for row in ROWS)
    assert {row["engine"] for row in ROWS} == {EngineName.VIRTUAL_SHELL.value}


def test_nothing_escapes_with_every_first_layer_check_off() -> None:
    assert _escaped(_run(SandboxMode.STRICT, ATTEMPTS)) == []


def test_nothing_escapes_behind_the_first_layer() -> None:
    refusals = load_shell_refusals(None)

    async def attempt(runner: ToolRunner, scene: EscapeScene, row: dict[str, Any]) -> Attempt:
        scene.fresh()
        objection = refused(scene.payload(row), refusals)
        if objection is not None:
            return Attempt(row_id=row["id"], succeeded=False, told=f"refused {objection}")
        return await scene.attempt(runner, row)

    async def go() -> list[Attempt]:
        runner = runner_for()
        try:
            with escape_scene() as scene:
                return [await attempt(runner, scene, row) for row in ATTEMPTS]
        finally:
            await runner.close()

    attempts = asyncio.run(go())
    early = [attempt for attempt in attempts if attempt.told.startswith("refused")]
    print(f"the first layer refuses {len(early)} of {len(attempts)} early")
    assert _escaped(attempts) == []
    assert early


_OPEN_SHELL = """
import os, sys
os.environ.clear()
sys.path.insert(0, {root!r})
from app.sandbox import engine_choice, zygote
from app.sandbox.kernel_calls import LinuxKernel
class Old(LinuxKernel):
    def call(self, name, *arguments):
        if {abi} < 0 and name.startswith("landlock_"):
            raise OSError(38, "there is none")
        if {abi} and name == "landlock_create_ruleset" and arguments[2] == 1:
            return {abi}
        return super().call(name, *arguments)
def load_engine(configured, kernel, load=engine_choice.load_engine):
    engine = load(configured, kernel)
    from app.sandbox import virtual_shell
    Bash, FileSystem = virtual_shell.Bash, virtual_shell.FileSystem
    class Open:
        def __init__(self, **words):
            self.shell = Bash(**words | dict(cwd=os.getcwd()))
        def mount(self, place, files):
            self.shell.mount("/", FileSystem.real("/", writable=True))
        def mkdir(self, place, recursive):
            self.mount(place, None)
        def execute_sync(self, text, take):
            return self.shell.execute_sync(text, take)
    if {opens}:
        virtual_shell.Bash = Open
    return engine
zygote.load_engine = load_engine
zygote.LinuxKernel = Old
sys.path.pop(0)
zygote.serve_zygote(int(sys.argv[1]), sys.argv[2])
"""


def _open_shell(
    place: Path, monkeypatch: pytest.MonkeyPatch, abi: int, *, opens: bool = True
) -> None:
    """From here on the shell's file system is the machine's: as if its own walls had a hole.

    `abi` -1: there is no Landlock.
    """
    entry = place / "open_shell.py"
    entry.write_text(_OPEN_SHELL.format(root=str(Path(__file__).parents[2]), abi=abi, opens=opens))
    monkeypatch.setattr(zygote_link, "_ENTRY", entry)


@pytest.mark.parametrize("abi", [0, 1, 3] if _FULL else [0])
def test_the_kernel_holds_where_the_shell_has_no_walls_of_its_own(
    abi: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _open_shell(tmp_path, monkeypatch, abi)
    free = [
        attempt.row_id for attempt in _run(SandboxMode.OFF_UNSAFE, ATTEMPTS) if attempt.succeeded
    ]
    print(f"{len(free)} of {len(ATTEMPTS)} commands work in a shell without any walls")
    assert len(free) >= 60
    escaped = _escaped(_run(SandboxMode.STRICT, ATTEMPTS))
    assert {attempt.row_id for attempt in escaped} - _METADATA == set(), escaped


@pytest.mark.parametrize("opens", [False, True], ids=["as it is", "its own walls have a hole"])
def test_nothing_escapes_without_landlock_where_files_lie_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, opens: bool
) -> None:
    """The filter opens nothing at all, whatever the shell's own file system is."""
    _open_shell(tmp_path, monkeypatch, -1, opens=opens)
    escaped = _escaped(_run(SandboxMode.STRICT, ATTEMPTS, shell_has_files=False))
    assert {attempt.row_id for attempt in escaped} - _METADATA == set(), escaped


def test_without_landlock_a_shell_with_files_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the one above: that Landlock is missed where it is needed."""
    _open_shell(tmp_path, monkeypatch, -1, opens=False)
    told = [attempt.told for attempt in _run(SandboxMode.STRICT, ATTEMPTS[:1])]
    assert [text.split()[0] for text in told] == ["unavailable"]


@pytest.fixture(scope="module")
def dos_ends() -> DosEnds:
    """How each ends, how the call after it does, and how many names it leaves."""
    return ends_of(DOS, EngineName.VIRTUAL_SHELL, 3.0 if _FULL else 0.7)


@pytest.mark.parametrize("row_id", [row["id"] for row in DOS])
def test_what_would_exhaust_the_machine_is_ended_and_the_next_call_works(
    row_id: str, dos_ends: DosEnds
) -> None:
    assert_held(dos_ends[row_id])


def test_an_interpreter_that_dies_of_its_stack_is_one_failed_call(dos_ends: DosEnds) -> None:
    hostile, after, _ = dos_ends["shell-dos-eval-recursion"]
    assert (hostile.status, hostile.ended_by) == (ExecStatus.KILLED, EndedBy.SIGNAL)
    assert after.status is ExecStatus.OK
