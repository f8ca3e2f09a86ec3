"""A place for hostile programs: canaries, victims and listeners around a confined worker.

Every oracle is a fact outside the program (a file, a listener's accept, a victim's state, a canary
that only lies outside) or, for a kernel call that gives nothing else, a word the program can only
print after the call succeeded.
"""

import json
import os
import secrets
import selectors
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.domain.sandbox_mode import SandboxMode
from app.sandbox.execution import (
    EngineName,
    ExecLimits,
    ExecRequest,
    ExecResult,
    LentWorkspace,
    SourceText,
)
from app.sandbox.python_engine import PYTHON_ENGINES, PythonEngine, installed_monty
from app.sandbox.runner_assembly import bashkit_place
from app.sandbox.sandbox_profile import SandboxProfile, WorkerAccount
from app.sandbox.tool_runner import RunnerOptions, ToolRunner
from app.sandbox.workspace import Workspace, open_workspace_root

CORPORA = Path(__file__).parents[1] / "security" / "corpus"
NUMBERS = json.loads((Path(__file__).parent / "libseccomp_numbers.json").read_text())
TENANT, RUN, OTHER_TENANT, OTHER_RUN = ("a" * 32, "b" * 32, "c" * 32, "d" * 32)
_SHELLCODE = {
    "x86_64": b"\xb8\x2a\x00\x00\x00\xc3",
    "aarch64": b"\x40\x05\x80\x52\xc0\x03\x5f\xd6",
}
_SHARED_PLACES = (Path("/tmp"), Path("/dev/shm"))  # noqa: S108 - where an escape would write
_APP = Path(__file__).parents[2] / "app"


def worker_account() -> WorkerAccount | None:
    """As whom root runs workers in tests: nobody. Without root there is no change of account."""
    return WorkerAccount(uid=65534, gid=65534) if os.geteuid() == 0 else None


def runner_for(mode: SandboxMode = SandboxMode.STRICT, **options: Any) -> ToolRunner:
    """A runner as wiring builds one, with the tests' account."""
    profile = SandboxProfile(mode=mode, executable=options.pop("executable", ()))
    library = bashkit_place()
    assert library is not None, "the extra `shell` is not installed"
    libraries = {EngineName.VIRTUAL_SHELL: (library,)}
    return ToolRunner(
        RunnerOptions(profile=profile, account=worker_account(), libraries=libraries, **options)
    )


def corpus(name: str = "native") -> list[dict[str, Any]]:
    """Every row of a corpus."""
    lines = (CORPORA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@contextmanager
def open_directory() -> Iterator[Path]:
    """A temporary directory that the worker's account can reach and owns."""
    base = Path(tempfile.mkdtemp(prefix="mf-sandbox-"))
    base.chmod(0o755)
    give(base)
    try:
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


def give(path: Path) -> Path:
    """Make it the worker's own."""
    account = worker_account()
    if account is not None:
        os.chown(path, account.uid, account.gid)
    return path


@contextmanager
def held(path: Path) -> Iterator[int]:
    """A descriptor of a directory, as a workspace lends it."""
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def lent() -> Iterator[tuple[Workspace, int, Path]]:
    """A run's workspace as a tool has it: itself, a descriptor that it lends, and its place."""
    with open_directory() as base:
        root = open_workspace_root(base, forbidden=[], owner=worker_account())
        workspace = root.for_run(TENANT, RUN)
        try:
            with workspace.lend() as descriptor:
                yield workspace, descriptor, base / TENANT / RUN
        finally:
            workspace.close()
            root.close()


def monty_runner(
    mode: SandboxMode = SandboxMode.STRICT, *, has_files: bool = True, **options: Any
) -> ToolRunner:
    """A runner whose Python is Monty."""
    found = installed_monty()
    assert not found.problem, found.problem
    python = PythonEngine(name=EngineName.MONTY, has_files=has_files, interpreter=found.path)
    return runner_for(mode, python=python, **options)


def request_for(
    text: str,
    workspace_fd: int,
    tenant_hex: str = TENANT,
    engine: EngineName = EngineName.NATIVE,
    workspace: LentWorkspace | None = None,
    **limits: Any,
) -> ExecRequest:
    """A call of an engine that takes text."""
    return ExecRequest(
        engine=engine,
        program=SourceText(text=text),
        tenant_hex=tenant_hex,
        run_hex=RUN,
        workspace_fd=workspace_fd,
        workspace=workspace,
        limits=ExecLimits(**limits),
    )


class Listeners:
    """Real listeners in a thread: what was accepted and what was said to them."""

    def __init__(self, base: Path) -> None:
        self.heard: list[bytes] = []
        self.accepts = 0
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, "wake")
        tcp = self._listening(socket.AF_INET, ("127.0.0.1", 0))
        udp = self._bound(socket.AF_INET, ("127.0.0.1", 0))
        self.abstract = f"mf-{secrets.token_hex(8)}"
        self._listening(socket.AF_UNIX, f"\0{self.abstract}")
        self.unix = base / "u"
        self.unix_dgram = base / "g"
        self._listening(socket.AF_UNIX, str(self.unix))
        self._bound(socket.AF_UNIX, str(self.unix_dgram))
        for path in (self.unix, self.unix_dgram):
            path.chmod(0o777)
        self.tcp_port: int = tcp.getsockname()[1]
        self.udp_port: int = udp.getsockname()[1]
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listening(self, family: int, address: Any) -> socket.socket:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.bind(address)
        listener.listen(32)
        self._selector.register(listener, selectors.EVENT_READ, "accept")
        return listener

    def _bound(self, family: int, address: Any) -> socket.socket:
        receiver = socket.socket(family, socket.SOCK_DGRAM)
        receiver.bind(address)
        self._selector.register(receiver, selectors.EVENT_READ, "receive")
        return receiver

    def _listen(self) -> None:
        while True:
            for key, _ in self._selector.select():
                source = key.fileobj
                assert isinstance(source, socket.socket)
                if key.data == "wake":
                    if source.recv(1) == b"q":
                        return
                elif key.data == "accept":
                    self.accepts += 1
                    self._selector.register(source.accept()[0], selectors.EVENT_READ, "receive")
                else:
                    with suppress(OSError):
                        data = source.recv(4096)
                        self.heard.append(data)
                        if not data and source.type == socket.SOCK_STREAM:
                            self._selector.unregister(source)
                            source.close()

    def settled(self) -> tuple[int, bytes]:
        """Accepts and all that was heard, after everything already sent has been taken."""
        # What a program sent lies in a buffer before the program's end is told: ask once more.
        with socket.create_connection(("127.0.0.1", self.tcp_port)) as last:
            last.sendall(b"last-word")
            while b"last-word" not in b"".join(self.heard):
                pass
        found = (self.accepts - 1, b"".join(self.heard))
        self.heard.clear()
        self.accepts = 0
        return found

    def close(self) -> None:
        self._wake.send(b"q")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            source = key.fileobj
            assert isinstance(source, socket.socket)
            source.close()
        self._selector.close()
        self._wake.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of one row in one arm."""

    row_id: str
    succeeded: bool
    told: str


def _sleeper() -> list[str]:
    """Something that waits: the interpreter may be out of reach, or /bin missing."""
    if Path("/bin/sleep").exists():
        return ["/bin/sleep", "600"]
    return [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]


class EscapeScene:
    """The directory tree and what stands in it; made again for every attempt."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.listeners = Listeners(base)
        self.workspace = base / "w" / TENANT / RUN
        self.token = ""
        self._own_adjustment = int(Path("/proc/self/oom_score_adj").read_text())
        self._victim: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        self._end_victim()
        self.listeners.close()

    def fresh(self) -> None:
        """Everything anew, with a new canary."""
        self.token = f"canary{secrets.token_hex(12)}"
        for name in ("w", "out"):
            shutil.rmtree(self.base / name, ignore_errors=True)
        other = self.base / "w" / OTHER_TENANT / OTHER_RUN
        out = self.base / "out"
        for path in (self.workspace, other, out / "empty"):
            path.mkdir(parents=True)
        for path in (self.base / "w", *(self.base / "w").rglob("*"), out, out / "empty"):
            give(path)
        for path in (self.base / "secret.txt", other / "secret.txt", self.base / "kept.txt"):
            path.unlink(missing_ok=True)
            path.write_text(self.token)
            path.chmod(0o600)
            give(path)
        database = self.base / "secret.db"
        database.unlink(missing_ok=True)
        with sqlite3.connect(database) as connection:
            connection.execute("create table t(a)")
            connection.execute("insert into t values (?)", (self.token,))
        connection.close()
        give(database)
        self._kept = (self.base / "kept.txt").stat()

    def victim(self) -> int:
        """A process of the worker's account, with the canary in its environment and behind it."""
        self._end_victim()
        place = self.base / "hidden"
        place.write_text(self.token)
        place.chmod(0o600)
        give(place)
        descriptor = os.open(place, os.O_RDWR)
        place.unlink()
        account = worker_account()
        self._victim = subprocess.Popen(
            _sleeper(),
            env={"MESHFLOW_API_KEYS": self.token},
            pass_fds=(descriptor,),
            start_new_session=True,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
        )
        os.close(descriptor)
        return self._victim.pid

    def _end_victim(self) -> None:
        if self._victim is not None:
            self._victim.kill()
            self._victim.wait()
            self._victim = None

    def payload(self, row: Mapping[str, Any]) -> str:
        """The program of a row, with this scene's names filled in."""
        text: str = row["payload"]
        words = {
            "SECRETDB": self.base / "secret.db",
            "SECRET": self.base / "secret.txt",
            "KEPT": self.base / "kept.txt",
            "OTHER": self.base / "w" / OTHER_TENANT / OTHER_RUN,
            "ROOT": self.base / "w",
            "OUT": self.base / "out",
            "TOKEN": self.token,
            "TCP": self.listeners.tcp_port,
            "UDP": self.listeners.udp_port,
            "UNIXDGRAM": self.listeners.unix_dgram,
            "UNIX": self.listeners.unix,
            "ABSTRACT": self.listeners.abstract,
            "APPROOT": _APP.parent,
            "APP": _APP / "settings.py",
            "SHELLCODE": _SHELLCODE[os.uname().machine],
        }
        if "{VICTIM}" in text:
            words["VICTIM"] = self.victim()
        for name, value in words.items():
            text = text.replace("{" + name + "}", str(value))
        for name, number in NUMBERS[os.uname().machine].items():
            text = text.replace("{NR_" + name + "}", str(number))
        return text

    def succeeded(self, row: Mapping[str, Any], output: str) -> bool:
        """Whether the oracle of the row says that the attempt reached what it should not."""
        oracle = row["oracle"]
        path = Path(
            str(oracle.get("path", "/"))
            .replace("{OUT}", str(self.base / "out"))
            .replace("{OTHER}", str(self.base / "w" / OTHER_TENANT / OTHER_RUN))
            .replace("{KEPT}", str(self.base / "kept.txt"))
            .replace("{TOKEN}", self.token)
        )
        match oracle["kind"]:
            case "prints":
                return self.token in output
            case "says":
                return f"did-{self.token}" in output
            case "file":
                return os.path.lexists(path)
            case "gone":
                return not os.path.lexists(path)
            case "changed":
                return self._changed(path)
            case "listener":
                return self.token.encode() in self.listeners.settled()[1]
            case "accept":
                return self.listeners.settled()[0] > 0
            case "victim":
                return self._victim_harmed()
        raise AssertionError(oracle)

    def _changed(self, path: Path) -> bool:
        if not path.exists():
            return True
        facts, text = path.stat(), path.read_text(errors="replace")
        kept = self._kept
        same = (facts.st_ino, facts.st_mode, facts.st_mtime_ns, facts.st_size) == (
            kept.st_ino,
            kept.st_mode,
            kept.st_mtime_ns,
            kept.st_size,
        )
        return not same or text != self.token or bool(os.listxattr(path))

    def _victim_harmed(self) -> bool:
        assert self._victim is not None
        with suppress(subprocess.TimeoutExpired):
            self._victim.wait(0.05)
        if self._victim.poll() is not None:
            return True
        place = Path("/proc") / str(self._victim.pid)
        fields = (place / "stat").read_text().rpartition(")")[2].split()
        state, nice, policy = fields[0], int(fields[16]), int(fields[38])
        limits = (place / "limits").read_text()
        opened = next(line for line in limits.splitlines() if line.startswith("Max open files"))
        adjusted = int((place / "oom_score_adj").read_text())
        # It began with what this process has, which need not be the usual.
        own = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)
        moved = (nice, policy) != own
        return state in "tT" or moved or " 7 " in opened or adjusted > self._own_adjustment

    async def attempt(self, runner: ToolRunner, row: Mapping[str, Any]) -> Attempt:
        """Run a row with this runner, without any first layer."""
        self.fresh()
        text = self.payload(row)
        with held(self.workspace) as descriptor:
            is_python = row.get("engine", EngineName.NATIVE) in PYTHON_ENGINES
            engine = runner.python_engine.name if is_python else EngineName(row["engine"])
            result = await runner.run(
                request_for(text, descriptor, engine=engine, wall_seconds=2.0, cpu_seconds=2)
            )
        return self.judged(row, result)

    def judged(self, row: Mapping[str, Any], result: ExecResult) -> Attempt:
        output = (result.stdout + result.stderr).decode(errors="replace")
        succeeded = self.succeeded(row, result.stdout.decode(errors="replace"))
        for place in _SHARED_PLACES:
            (place / self.token).unlink(missing_ok=True)
        told = f"{result.status} {output[-200:]}"
        return Attempt(row_id=row["id"], succeeded=succeeded, told=told)


@contextmanager
def escape_scene() -> Iterator[EscapeScene]:
    """A scene that leaves nothing behind."""
    with open_directory() as base:
        scene = EscapeScene(base)
        try:
            yield scene
        finally:
            scene.close()
