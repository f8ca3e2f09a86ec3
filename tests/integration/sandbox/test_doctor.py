"""`meshflow doctor`: what it says of this machine, of one that lacks something, and of no walls.

The lane that enters a pod runs this file too, and asserts more there.
"""

import asyncio
import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from app.cli.doctor_report import Diagnosis, ToolState, Verdict
from app.domain.sandbox_mode import SandboxMode
from app.sandbox.canary_scene import CanaryEnd, CanaryReport, Held, Listed, try_canaries
from app.sandbox.capabilities import Offer, probe
from app.sandbox.doctor_canaries import (
    LISTED_CANARIES,
    MONTY_CANARIES,
    NATIVE_CANARIES,
    SHELL_CANARIES,
    Oracle,
)
from app.sandbox.execution import EngineName
from app.sandbox.kernel_calls import LinuxKernel
from app.sandbox.python_engine import PythonEngine
from app.sandbox.runner_assembly import build_runner
from app.sandbox.sandbox_settings import SandboxSettings
from app.sandbox.tool_runner import ToolRunner
from tests.support.escape_scene import NUMBERS, monty_runner, worker_account

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "docs" / "doctor-report.schema.json").read_text(encoding="utf-8"))
IN_A_POD = os.getenv("MESHFLOW_POD") == "1"
_LANDLOCK = ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")
_SECRET = "doctor-secret-000000000000000001"
# What no account without power can do anywhere, walls or not.
_NEEDS_POWER = {"mount"}
_OFTEN_REFUSED = {"io_uring", "new namespace", "load a library"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How a doctor ended and what it said."""

    code: int
    report: dict[str, Any]
    errors: str


def _doctor(
    scratch: Path,
    *words: str,
    answers: list[tuple[int, None, int]] | None = None,
    **environ: str,
) -> Told:
    """Run the command; with `answers`, under a kernel that answers so."""
    start = [] if answers is None else ["-m", "tests.support.outer_filter", json.dumps(answers)]
    done = subprocess.run(
        [sys.executable, *start, "app/cli/entry.py", "doctor", "--json", *words],
        cwd=ROOT,
        env={
            "PATH": "/nowhere",
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
            "PYTHONPATH": str(ROOT),
            "MESHFLOW_API_KEYS": _SECRET,
            "MESHFLOW_DATABASE_URL": f"postgresql://u:{_SECRET}@127.0.0.1:9/x",
            **environ,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert _SECRET not in done.stdout + done.stderr
    assert list(scratch.iterdir()) == [], "something was left behind"
    report: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
    if report:
        jsonschema.validate(report, SCHEMA)
    return Told(code=done.returncode, report=report, errors=done.stderr)


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A place that the worker's account can pass through."""
    made = Path("/tmp") / f"mf-doctor-{os.getpid()}-{tmp_path.name}"  # noqa: S108 - see above
    made.mkdir()
    made.chmod(0o711)
    yield made
    made.rmdir()


def _without(*names: str, code: int) -> list[tuple[int, None, int]]:
    return [(NUMBERS[os.uname().machine][name], None, code) for name in names]


def _tool(told: Told, name: str = "python") -> dict[str, Any]:
    (found,) = [tool for tool in told.report["tools"] if tool["name"] == name]
    return dict(found)


def test_on_a_whole_machine_everything_holds(scratch: Path) -> None:
    told = _doctor(scratch)
    assert (told.code, told.report["verdict"]) == (0, "holds"), told
    assert len(told.report["canaries"]) >= 25
    assert {one["result"] for one in told.report["canaries"]} == {"held"}
    assert told.report["ordinary_program"] is True
    assert all(one["held"] for one in told.report["first_layer"])
    assert _tool(told)["engine"] == "native"
    assert told.report["dangers"] == told.report["gaps"] == []
    assert not told.report["machine"]["is_dumpable"]
    if IN_A_POD:
        machine = told.report["machine"]
        assert (machine["uid"], machine["capabilities"]) == (1000, "0x0")
        assert machine["is_root_read_only"]
        assert told.report["warnings"] == []


def test_the_other_interpreter_is_tried_with_its_own_attempts(scratch: Path) -> None:
    told = _doctor(scratch, MESHFLOW_PYTHON_ENGINE="monty")
    assert (told.code, told.report["python_engine"]) == (0, "monty"), told
    assert {one["result"] for one in told.report["canaries"]} == {"held"}


def test_without_landlock_it_says_what_took_over_and_is_1_or_0_where_that_is_accepted(
    scratch: Path,
) -> None:
    answers = _without(*_LANDLOCK, code=errno.ENOSYS)
    told = _doctor(scratch, answers=answers)
    assert (told.code, told.report["verdict"]) == (1, "reduced"), told
    assert "Landlock (ENOSYS)" in told.report["gaps"][0]
    assert _tool(told)["engine"] == "monty"
    assert not told.report["python_has_files"]
    assert told.report["canaries"]
    assert {one["result"] for one in told.report["canaries"]} == {"held"}
    accepted = _doctor(scratch, "--accept-missing", answers=answers)
    assert (accepted.code, accepted.report["verdict"]) == (0, "reduced")


def test_without_a_filter_nothing_is_tried_and_the_tool_is_off(scratch: Path) -> None:
    told = _doctor(scratch, answers=_without("seccomp", code=errno.EPERM))
    assert (told.code, told.report["verdict"]) == (1, "reduced")
    assert "seccomp (EPERM)" in _tool(told)["reason"]
    assert told.report["canaries"] == []
    assert _tool(told, "calculator")["available"]


def test_without_walls_it_is_2_whatever_is_accepted_and_nothing_is_tried(scratch: Path) -> None:
    told = _doctor(scratch, "--accept-missing", MESHFLOW_SANDBOX="off-unsafe")
    assert (told.code, told.report["verdict"]) == (2, "unsafe")
    assert "off-unsafe" in told.report["dangers"][0]
    assert told.report["canaries"] == []


def test_settings_that_are_refused_are_2_with_a_sentence(scratch: Path) -> None:
    told = _doctor(scratch, MESHFLOW_SANDBOX="off")
    assert (told.code, told.report) == (2, {})
    assert "MESHFLOW_SANDBOX" in told.errors


def _built(mode: SandboxMode, engine: EngineName, executable: tuple[str, ...] = ()) -> ToolRunner:
    """The runner that a server with these settings has."""
    asked = SandboxSettings(mode=mode, python_engine=engine)
    return build_runner(asked, account=worker_account(), executable=executable)


def _tried(make: Any, listed: Listed | None = None, **more: Any) -> CanaryReport:
    async def go() -> CanaryReport:
        runner: ToolRunner = make()
        try:
            return await try_canaries(runner, worker_account(), listed, **more)
        finally:
            await runner.close()

    return asyncio.run(go())


def test_without_walls_the_attempts_get_out_and_are_seen() -> None:
    """The control: an oracle that sees nothing would find everything held."""
    report = _tried(lambda: _built(SandboxMode.OFF_UNSAFE, EngineName.NATIVE))
    got_out = {end.name for end in report.ends if end.held is Held.ESCAPED}
    wanted = {canary.name for canary in NATIVE_CANARIES} - _NEEDS_POWER - _OFTEN_REFUSED
    assert report.works
    assert wanted - got_out == set()


def test_with_walls_none_gets_out_of_any_interpreter() -> None:
    strict, no_shell = SandboxMode.STRICT, {EngineName.VIRTUAL_SHELL: "not tried here"}
    for make, tried in (
        (lambda: _built(strict, EngineName.NATIVE), (*NATIVE_CANARIES, *SHELL_CANARIES)),
        (lambda: _built(strict, EngineName.MONTY), (*MONTY_CANARIES, *SHELL_CANARIES)),
        (lambda: monty_runner(has_files=False, gaps=no_shell), MONTY_CANARIES),
    ):
        report = _tried(make)
        assert report.works
        assert [end.name for end in report.ends] == [canary.name for canary in tried]
        assert {end.name for end in report.ends if end.held is Held.ESCAPED} == set()


# What a machine has; a pod may have none of them.
_PROGRAMS = {
    name: f"/usr/bin/{name}" for name in ("cat", "cp", "rm") if Path(f"/usr/bin/{name}").exists()
}
_LISTED = {name: (path,) for name, path in _PROGRAMS.items()}


def _ends(report: CanaryReport, held: Held) -> set[str]:
    return {end.name for end in report.ends if end.held is held and end.name.startswith("exec ")}


def test_listed_programs_are_tried_too(scratch: Path, tmp_path: Path) -> None:
    text = "".join(f'[programs.{name}]\npath = "{path}"\n' for name, path in _PROGRAMS.items())
    (tmp_path / "exec.toml").write_text(text or "[programs]\n")
    told = _doctor(scratch, MESHFLOW_CONFIG_DIR=str(tmp_path))
    if IN_A_POD and not _PROGRAMS:
        assert told.code == 2
        return
    assert (told.code, _tool(told, "shell")["engine"]) == (0, "exec"), told
    listed = [one for one in told.report["canaries"] if one["name"].startswith(("exec ", "exec:"))]
    assert listed, "not even said that there was no time"
    assert {one["result"] for one in listed if one["name"].startswith("exec ")} <= {"held"}


def test_what_listed_programs_do_without_walls_is_seen_and_with_walls_none_does() -> None:
    paths = tuple(_PROGRAMS.values())
    free = _tried(
        lambda: _built(SandboxMode.OFF_UNSAFE, EngineName.NATIVE, paths), _LISTED, listed_seconds=60
    )
    wanted = {
        "exec cat: file of the host",
        "exec cat: workspace of another tenant",
        "exec cat: open above the workspace",
        "exec cp: write outside",
        "exec rm: change or remove outside",
    }
    if _LISTED:
        assert _ends(free, Held.ESCAPED) == wanted
    held = _tried(
        lambda: _built(SandboxMode.STRICT, EngineName.NATIVE, paths), _LISTED, listed_seconds=60
    )
    every = {f"exec {name}: {one.name}" for name in _LISTED for one in LISTED_CANARIES}
    assert _ends(held, Held.HELD) == every
    assert held.not_started == ()


def test_a_listed_program_that_does_not_start_is_named(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/nowhere/interpreter\n")
    script.chmod(0o755)
    listed = {"script": (str(script),)}
    report = _tried(
        lambda: _built(SandboxMode.STRICT, EngineName.NATIVE, (str(script),)),
        listed,
        listed_seconds=60,
    )
    assert report.not_started == ("script",)
    assert _ends(report, Held.HELD) == set()
    diagnosis = _diagnosis(canaries=report)
    assert diagnosis.verdict is Verdict.REDUCED
    assert "the listed program script does not start" in str(diagnosis.as_json()["gaps"])


def test_what_there_is_no_time_for_is_said() -> None:
    report = _tried(
        lambda: _built(SandboxMode.STRICT, EngineName.NATIVE, tuple(_PROGRAMS.values())),
        _LISTED,
        listed_seconds=0,
    )
    left = len(_LISTED) * len(LISTED_CANARIES)
    if left:
        assert [end.held for end in report.ends if f"exec: {left} more" in end.name] == [
            Held.NOT_RUN
        ]


def _diagnosis(**changed: Any) -> Diagnosis:
    end = CanaryEnd(name="fork", oracle=Oracle.APPEARED, held=Held.HELD)
    found = replace(probe(LinuxKernel()), landlock=Offer(value=7), memory_limit_bytes=None)
    whole = Diagnosis(
        version="1",
        mode=SandboxMode.STRICT,
        found=found,
        worker_uid=1000,
        concurrency=4,
        engine=PythonEngine(),
        tools=(ToolState(name="python", reason=None, engine="native"),),
        first_layer=(("python: eval", True),),
        canaries=CanaryReport(works=True, ends=(end,)),
    )
    return replace(whole, **changed)


_ESCAPED = CanaryEnd(name="fork", oracle=Oracle.APPEARED, held=Held.ESCAPED)


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, Verdict.HOLDS),
        ({"canaries": CanaryReport(works=True, ends=(_ESCAPED,))}, Verdict.UNSAFE),
        ({"first_layer": (("python: eval", False),)}, Verdict.UNSAFE),
        ({"mode": SandboxMode.OFF_UNSAFE, "canaries": None}, Verdict.UNSAFE),
        ({"canaries": CanaryReport(works=False, ends=())}, Verdict.REDUCED),
        ({"canaries": None, "problem": "there is no place to try it in"}, Verdict.REDUCED),
        (
            {"tools": (ToolState(name="python", reason="no account", needs_machine=True),)},
            Verdict.REDUCED,
        ),
        ({"tools": (ToolState(name="http_fetch", reason="no host"),)}, Verdict.HOLDS),
    ],
)
def test_the_worst_that_was_found_is_the_verdict(changed: dict[str, Any], verdict: Verdict) -> None:
    diagnosis = _diagnosis(**changed)
    assert diagnosis.verdict is verdict
    jsonschema.validate(diagnosis.as_json(), SCHEMA)
    assert list(diagnosis.lines())[-1] == f"  verdict: {verdict.name.lower()}"


def test_a_memory_limit_that_programs_can_reach_together_is_noted() -> None:
    small = replace(probe(LinuxKernel()), memory_limit_bytes=1 << 30)
    told = _diagnosis(found=small).as_json()["warnings"]
    assert "the container's memory limit (1024 MiB)" in str(told)
