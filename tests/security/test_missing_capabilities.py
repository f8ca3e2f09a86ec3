"""The table of what is refused where something is missing, line by line, as a caller sees it.

For what the kernel can be made to refuse, the whole server runs under a filter that answers in the
kernel's place; only an older Landlock and another system are put in place of this one's answers.
"""

import asyncio
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from app import roster
from app.domain.errors import ConfigurationError
from app.embedded.postgres_server import start_embedded_postgres
from app.sandbox import runner_assembly, zygote_link
from app.sandbox.capabilities import Capabilities, Offer, probe
from app.sandbox.execution import ExecStatus
from app.sandbox.kernel_calls import Kernel
from app.sandbox.syscall_tables import Architecture
from tests.e2e.server_process import ServerProcess, serving, surroundings
from tests.support.databases import DatabaseServer, database_server
from tests.support.escape_scene import (
    NUMBERS,
    escape_scene,
    held,
    open_directory,
    request_for,
    runner_for,
)
from tests.support.live_server import live_server
from tests.support.older_landlock import entry_with_older_landlock

ROOT = Path(__file__).parents[2]
Answers = list[tuple[int, int | None, int]]
_LANDLOCK = ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")
_NO_NEW_PRIVS = (38, 39)  # prctl: set and asked
# What needs no worker is there whatever is missing.
_ALWAYS = {
    "calculator",
    "current_time",
    "json_query",
    "read_file",
    "write_file",
    "list_files",
    "search_files",
}


def _without(*names: str, code: int) -> Answers:
    return [(NUMBERS[os.uname().machine][name], None, code) for name in names]


def _without_prctl(*options: int, code: int) -> Answers:
    return [(NUMBERS[os.uname().machine]["prctl"], option, code) for option in options]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the table: what is missing, and what `python` is then."""

    answers: Answers
    engine: str | None  # None: not offered
    reason: tuple[str, ...] = ()
    files: bool = True
    forced: str | None = None
    shell: bool = True  # whether the shell is offered
    shell_files: bool = True


_LINES = {
    "nothing": Line(answers=[], engine="native"),
    **{
        f"Landlock {errno.errorcode[code]}": Line(
            answers=_without(*_LANDLOCK, code=code), engine="monty", files=False, shell_files=False
        )
        for code in (errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP)
    },
    **{
        f"Landlock {errno.errorcode[code]}, native wanted": Line(
            answers=_without(*_LANDLOCK, code=code),
            engine=None,
            reason=(f"the kernel offers no Landlock ({errno.errorcode[code]})", "lsm="),
            forced="native",
            shell_files=False,
        )
        for code in (errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP)
    },
    **{
        f"seccomp {errno.errorcode[code]}{', monty wanted' if forced else ''}": Line(
            answers=_without("seccomp", code=code),
            engine=None,
            reason=(f"the kernel offers no seccomp ({errno.errorcode[code]})",),
            forced=forced,
            shell=False,
        )
        for code, forced in (
            (errno.ENOSYS, None),
            (errno.EPERM, None),
            (errno.EPERM, "monty"),
        )
    },
    "no_new_privs": Line(
        answers=_without_prctl(*_NO_NEW_PRIVS, code=errno.EINVAL),
        engine=None,
        reason=("the kernel offers no no_new_privs (EINVAL)",),
        shell=False,
    ),
    "openat2 ENOSYS": Line(answers=_without("openat2", code=errno.ENOSYS), engine="native"),
    "openat2 EPERM": Line(answers=_without("openat2", code=errno.EPERM), engine="native"),
    "openat2 and Landlock": Line(
        answers=_without("openat2", *_LANDLOCK, code=errno.ENOSYS),
        engine="monty",
        files=False,
        shell_files=False,
    ),
    "everything": Line(
        answers=_without("openat2", "seccomp", *_LANDLOCK, code=errno.ENOSYS),
        engine=None,
        reason=("the kernel offers no seccomp (ENOSYS)",),
        shell=False,
    ),
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Path]:
    """A directory with a database that the servers start on one after the other."""
    directory = Path(tempfile.mkdtemp(prefix="mf-missing-")).resolve()
    directory.chmod(0o711)
    server = start_embedded_postgres(directory / "data" / "postgres")
    yield directory
    server.stop()
    shutil.rmtree(directory)


def _served(stage: Path, line: Line) -> Any:
    """A server process under a kernel that answers so."""
    chosen = {} if line.forced is None else {"MESHFLOW_PYTHON_ENGINE": line.forced}
    under = [sys.executable, "-m", "tests.support.outer_filter", json.dumps(line.answers)]
    return serving(
        "--dev",
        environ=surroundings(stage / "data", PYTHONPATH=str(ROOT), **chosen),
        log=stage / "server.log",
        entry=[*under, str(ROOT / "app" / "cli" / "entry.py")],
    )


def _tools(client: Any) -> dict[str, dict[str, Any]]:
    return {
        tool["name"]: tool for tool in client.get("/v1/tools").raise_for_status().json()["data"]
    }


def _output(server: ServerProcess, task: str) -> str:
    with server.client(server.submit_key) as client:
        answer = client.post("/v1/runs", json={"task": task}, headers={"Prefer": "wait=30"})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["output"])


@pytest.mark.parametrize("name", sorted(_LINES))
def test_what_is_offered_and_why_not_is_what_the_table_says(name: str, stage: Path) -> None:
    line = _LINES[name]
    with _served(stage, line) as server:
        with server.client(server.submit_key) as client:
            tools = _tools(client)
        python, shell = tools["python"], tools["shell"]
        assert shell["available"] is line.shell, shell["reason"]
        if line.shell:
            assert ("its files lie in memory" not in shell["description"]) is line.shell_files
            wish = 'run the shell command "echo kept > f; cat f; cat /etc/hostname; ls / | wc -l"'
            assert "kept" in _output(server, wish)
        else:
            assert "docs/operations/sandbox.md" in shell["reason"]
        assert {tool for tool in _ALWAYS if tools[tool]["available"]} == _ALWAYS
        assert "6*7 = 42" in _output(server, "Calculate 6*7 and write it to answer.txt")
        if line.engine is None:
            assert not python["available"]
            assert all(part in python["reason"] for part in line.reason), python["reason"]
            assert "docs/operations/sandbox.md" in python["reason"]
            return
        assert python["available"], python["reason"]
        assert f"(engine: {line.engine}," in python["description"]
        assert ("there are no files" not in python["description"]) is line.files
        assert "The program wrote: 42" in _output(server, "run python: `print(6 * 7)`")


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_without_openat2_every_path_case_still_holds(code: int) -> None:
    """The cases of the workspace, run again by a process whose kernel has no such call."""
    program = f"import sys, pytest; sys.exit(pytest.main({_PATH_CASES!r}))"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.support.outer_filter"),
            json.dumps(_without("openat2", code=code)),
            str(ROOT / "tests" / "support" / "run_text.py"),
            program,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


_PATH_CASES = [
    "-q",
    "-p",
    "tests.support.no_skips",
    "tests/security/test_workspace_confinement.py",
    "-k",
    "either",
]


_OUTSIDE = [
    {
        "id": "truncate",
        "payload": "import os\nos.truncate('{KEPT}', 0)",
        "oracle": {"kind": "changed", "path": "{KEPT}"},
    },
    {
        "id": "truncating open",
        "payload": "import os\nos.open('{KEPT}', os.O_RDONLY | os.O_TRUNC)",
        "oracle": {"kind": "changed", "path": "{KEPT}"},
    },
    {
        "id": "kill",
        "payload": "import os\nos.kill({VICTIM}, 9)",
        "oracle": {"kind": "victim"},
    },
    {
        "id": "stop",
        "payload": "import os\nos.kill({VICTIM}, 19)",
        "oracle": {"kind": "victim"},
    },
]
_INSIDE = """
import os
with open("a", "w") as file:
    file.write("abc")
    file.flush()
    os.ftruncate(file.fileno(), 1)
print(open("a").read())
try:
    os.truncate("a", 0)
    print("truncated")
except PermissionError:
    print("refused")
"""


@pytest.mark.parametrize("abi", [1, 2, 3, 5])
def test_an_older_landlock_is_enough_and_the_filter_takes_over_what_it_cannot_judge(
    abi: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygote_link, "_ENTRY", entry_with_older_landlock(abi, tmp_path))

    async def go() -> tuple[list[str], bytes]:
        runner = runner_for()
        try:
            with escape_scene() as scene:
                attempts = [await scene.attempt(runner, row) for row in _OUTSIDE]
            assert not [one for one in attempts if one.told.startswith("unavailable")]
            with open_directory() as base, held(base) as directory:
                inside = await runner.run(request_for(_INSIDE, directory))
            assert inside.status is ExecStatus.OK, inside
            return [one.row_id for one in attempts if one.succeeded], inside.stdout
        finally:
            await runner.close()

    escaped, told = asyncio.run(go())
    assert escaped == []
    # Where Landlock cannot tell the workspace's files from others, the filter refuses both.
    assert told == (b"a\nrefused\n" if abi <= 2 else b"a\ntruncated\n")


@pytest.fixture(scope="module")
def databases() -> Iterator[DatabaseServer]:
    with database_server() as server:
        yield server


def _listed(
    databases: DatabaseServer, monkeypatch: pytest.MonkeyPatch, **changed: Any
) -> dict[str, dict[str, Any]]:
    """The tools of a server that found this machine to differ so."""

    def found(kernel: Kernel) -> Capabilities:
        return replace(probe(kernel), **changed)

    monkeypatch.setattr(runner_assembly, "probe", found)
    with live_server(databases.new_database()) as live, live.client() as client:
        return _tools(client)


@pytest.mark.parametrize("abi", [1, 2, 3, 6])
def test_an_older_landlock_keeps_every_tool(
    abi: int, databases: DatabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = _listed(databases, monkeypatch, landlock=Offer(value=abi))
    assert "engine: native" in tools["python"]["description"]
    assert {name for name in _ALWAYS if tools[name]["available"]} == _ALWAYS


def test_a_machine_whose_calls_are_not_known_runs_no_program(
    databases: DatabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = _listed(databases, monkeypatch, architecture="riscv64", is_known_architecture=False)
    assert not tools["python"]["available"]
    assert "the system calls of riscv64 are not known" in tools["python"]["reason"]
    assert {name for name in _ALWAYS if tools[name]["available"]} == _ALWAYS


class _ElsewhereKernel:
    """What is no Linux: it has no table, and none of the calls."""

    architecture: Architecture | None = None

    def call(self, name: str, *arguments: int) -> int:
        raise OSError(errno.ENOSYS, f"{name} {arguments}")

    def prctl(self, option: int, argument: int = 0) -> int:
        raise OSError(errno.ENOSYS, f"{option} {argument}")


def test_another_system_than_linux_runs_no_program_in_either_interpreter(
    databases: DatabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_assembly, "LinuxKernel", _ElsewhereKernel)
    for forced in ("native", "monty"):
        with (
            live_server(databases.new_database(), MESHFLOW_PYTHON_ENGINE=forced) as live,
            live.client() as client,
        ):
            tools = _tools(client)
        assert not tools["python"]["available"]
        assert "are not known to the sandbox" in tools["python"]["reason"]
        assert {name for name in _ALWAYS if tools[name]["available"]} == _ALWAYS


def test_root_without_an_account_for_its_workers_runs_no_program(
    databases: DatabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one it serves, with a warning, and workers become that account: decision 5."""

    def nobody() -> Any:
        raise ConfigurationError("there is no such account")

    monkeypatch.setattr(roster, "choose_server_account", nobody)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with live_server(databases.new_database()) as live, live.client() as client:
        tools = _tools(client)
    assert not tools["python"]["available"]
    assert "the server is root, and no account without power exists" in tools["python"]["reason"]
