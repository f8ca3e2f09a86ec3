"""What the tests of the embedded server look at: processes, holders, and the server's answers."""

import contextlib
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from app.embedded.postgres_binaries import copy_server, installed_binaries

HOLDER = Path(__file__).with_name("server_holder.py")
REPOSITORY = HOLDER.parents[3]
# Long enough for a machine under load; nothing here asserts how long a thing took.
PATIENCE_SECONDS = 60.0


def wait_for(condition: Callable[[], bool], *, what: str) -> None:
    """Fail when the condition does not come true in a bounded time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"gave up waiting for {what}"
        time.sleep(0.02)


async def connect(url: str, *, password: str | None = None) -> asyncpg.Connection:
    """A plain asyncpg connection to what one of the URLs names."""
    parts = make_url(url)
    return await asyncpg.connect(
        host=str(parts.query["host"]),
        user=parts.username,
        password=password or parts.password,
        database=parts.database,
        timeout=PATIENCE_SECONDS,
    )


def processes_of(state_dir: Path) -> dict[int, str]:
    """Every live server process and watchdog of a state directory, with its command line."""
    found: dict[int, str] = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            name = (process / "comm").read_text().strip()
            home = str((process / "cwd").readlink())
        except OSError:
            continue
        is_server = name == "postgres" and home.startswith(f"{state_dir}/")
        is_program = re.search(r"postgres_watchdog|initdb|bin/postgres", words) is not None
        if is_server or (is_program and f"{state_dir}/" in words):
            found[int(process.name)] = words
    return found


def watchdogs_of(state_dir: Path) -> list[int]:
    return [pid for pid, words in processes_of(state_dir).items() if "postgres_watchdog" in words]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Another process that uses the server of a state directory."""

    process: subprocess.Popen[str]

    def told(self) -> dict[str, str]:
        """What the holder says when its server answers, or why there is none."""
        assert self.process.stdout is not None
        parsed: dict[str, str] = json.loads(self.process.stdout.readline())
        return parsed

    def kill(self) -> None:
        """kill -9: no farewell of any kind."""
        if self.process.poll() is None:
            self.process.kill()
        self.close()

    def close(self) -> None:
        """Let it stop in peace."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.wait(PATIENCE_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """As whom, with which Python and from which tree a holder runs."""

    python: str = sys.executable
    tree: Path = REPOSITORY
    user: int | None = None
    group: int | None = None
    home: Path | None = None


CALLER = Runner()


class Holders:
    """Starts holders, and kills those that a test leaves behind."""

    def __init__(self) -> None:
        self._started: list[Holder] = []

    def start(
        self,
        state_dir: Path,
        *,
        runner: Runner = CALLER,
        extra: dict[str, str] | None = None,
        durable: bool = False,
    ) -> Holder:
        """A holder at work; a runner with a user gives up root before the program begins."""
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(runner.tree)} | (extra or {})
        if runner.home is not None:
            environment["HOME"] = str(runner.home)
        program = runner.tree / HOLDER.relative_to(REPOSITORY)
        durability = "durable" if durable else "for tests"
        holder = Holder(
            process=subprocess.Popen(
                [runner.python, "-B", str(program), str(state_dir), durability],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
                cwd="/",
                user=runner.user,
                group=runner.group,
                extra_groups=None if runner.user is None else [],
            )
        )
        self._started.append(holder)
        return holder

    def kill_all(self) -> None:
        for holder in self._started:
            holder.kill()


def plain_user_runner(playground: Path) -> Runner:
    """The caller, or for root a user without power, with its own home and its own copy of the code.

    Root's repository and interpreter may lie where nobody else can look.
    """
    if os.geteuid() != 0:
        return CALLER
    account = pwd.getpwnam("nobody")
    tree = playground / "tree"
    domain = ("__init__.py", "errors.py", "receipt.py")
    for part in ("app/__init__.py", *(f"app/domain/{name}" for name in domain)):
        (tree / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / part, tree / part)
    shutil.copytree(REPOSITORY / "app/embedded", tree / "app/embedded")
    program = tree / HOLDER.relative_to(REPOSITORY)
    program.parent.mkdir(parents=True)
    shutil.copy(HOLDER, program)
    wheel = installed_binaries()[0]
    if wheel.wheel_package is not None:
        copy_server(wheel.wheel_package, wheel.bin_dir.parent, playground / "wheel")
        for package in (playground / "wheel").iterdir():
            package.rename(tree / package.name)
    subprocess.run(["chmod", "-R", "a+rX", str(tree)], check=True)
    home = playground / "home"
    home.mkdir(mode=0o700)
    os.chown(home, account.pw_uid, account.pw_gid)
    for python in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(
                [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"],
                check=True,
                cwd="/",
                user=account.pw_uid,
                group=account.pw_gid,
                extra_groups=[],
            )
            return Runner(
                python=python, tree=tree, user=account.pw_uid, group=account.pw_gid, home=home
            )
    pytest.fail("no CPython >= 3.11 that a user other than root may run")
