"""Plays the doctor's attempts through the real runner, among stand-ins, and judges from outside.

Everything stands in one scratch directory and in one process of the worker's account; both are
gone afterwards, also when an attempt got out.

Threat: Privilege escalation via tool calls
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, assert_never

from app.sandbox.doctor_canaries import ATTEMPTS, LISTED_CANARIES, Canary, Oracle
from app.sandbox.execution import (
    Argv,
    EndedBy,
    EngineName,
    ExecLimits,
    ExecRequest,
    ExecResult,
    ExecStatus,
    Program,
    SourceText,
)
from app.sandbox.sandbox_profile import WorkerAccount
from app.sandbox.tool_runner import ToolRunner

# Something that waits; where there is no such program, the interpreter.
_SLEEPERS: Final = (
    ("/bin/sleep", "60"),
    (sys.executable, "-I", "-S", "-c", "import time\ntime.sleep(60)"),
)
_HOST_FILES: Final = ("/etc/passwd", "/etc/group", "/etc/hosts", "/proc/1/cmdline")
# Small ones that no interpreter has loaded yet.
_LIBRARIES: Final = (
    "libBrokenLocale.so.1",
    "libanl.so.1",
    "libnss_compat.so.2",
    "libthread_db.so.1",
)
_LIMITS: Final = ExecLimits(wall_seconds=2.0, cpu_seconds=2)
_LISTED_LIMITS: Final = ExecLimits(wall_seconds=0.5, cpu_seconds=1)
_LISTED_SECONDS: Final = 1.5  # for all of them: the doctor is a startup probe
_DID_NOT_START: Final = (126, 127)  # ours, and the loader's
_GONE_SECONDS: Final = 0.1  # a process that was killed is waited for this long


class Held(StrEnum):
    """What an attempt came to."""

    HELD = "held"
    ESCAPED = "escaped"
    NOT_RUN = "not_run"  # no worker ran it, or there was nothing to reach


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryEnd:
    """One attempt and its end."""

    name: str
    oracle: Oracle
    held: Held


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryReport:
    """Whether an ordinary program works, without which the rest proves nothing, and the rest.

    `not_started` are the listed programs that cannot run here, by name.
    """

    works: bool
    ends: tuple[CanaryEnd, ...]
    not_started: tuple[str, ...] = ()


# Listed programs by name: the path and the words that always come first.
Listed = Mapping[str, tuple[str, ...]]


async def try_canaries(
    runner: ToolRunner,
    account: WorkerAccount | None,
    listed: Listed | None = None,
    listed_seconds: float = _LISTED_SECONDS,
) -> CanaryReport:
    """Every attempt for the engines of this runner. OSError when there is no place for a scene.

    Nothing is tried in an engine in which an ordinary program does not work. Of listed programs as
    many attempts as there is time for, each program's first before any one's second.
    """
    wanted = {runner.python_engine.name, EngineName.VIRTUAL_SHELL}
    works, ends = True, []
    with _scene(account) as scene:
        for attempts in ATTEMPTS:
            engine = attempts.engine
            if engine not in wanted or runner.unavailable(engine) is not None:
                continue
            ordinary = await scene.run(runner, engine, SourceText(text=attempts.ordinary), _LIMITS)
            is_well = (ordinary.status, ordinary.stdout) == (ExecStatus.OK, b"42\n")
            works = works and is_well
            for one in attempts.canaries:
                held = await scene.attempt(runner, engine, one) if is_well else Held.NOT_RUN
                ends.append(CanaryEnd(name=one.name, oracle=one.oracle, held=held))
        not_started: tuple[str, ...] = ()
        if listed and runner.unavailable(EngineName.EXEC) is None:
            until = time.monotonic() + listed_seconds
            not_started, more = await _listed_ends(scene, runner, listed, until)
            ends += more
    return CanaryReport(works=works, ends=tuple(ends), not_started=not_started)


async def _listed_ends(
    scene: "_Scene", runner: ToolRunner, listed: Listed, until: float
) -> tuple[tuple[str, ...], Sequence[CanaryEnd]]:
    """Which listed programs do not start, and the attempts of those that do."""
    not_started, ends, left = [], [], 0
    for name, words in listed.items():
        if time.monotonic() >= until:
            break
        told = await scene.run(
            runner, EngineName.EXEC, Argv(words=(*words, "--version")), _LISTED_LIMITS
        )
        did_not_run = told.status in (ExecStatus.UNAVAILABLE, ExecStatus.REFUSED)
        if did_not_run or told.exit_code in _DID_NOT_START or told.ended_by is EndedBy.SIGNAL:
            not_started.append(name)
    for one in LISTED_CANARIES:
        for name, words in listed.items():
            if name in not_started:
                continue
            if time.monotonic() >= until:
                left += 1
                continue
            held = await scene.attempt(runner, EngineName.EXEC, one, words)
            ends.append(CanaryEnd(name=f"exec {name}: {one.name}", oracle=one.oracle, held=held))
    if left:
        name = f"exec: {left} more attempts of listed programs, for which there was no time"
        ends.append(CanaryEnd(name=name, oracle=Oracle.READ, held=Held.NOT_RUN))
    return tuple(not_started), ends


@contextmanager
def _scene(account: WorkerAccount | None) -> Iterator["_Scene"]:
    base = Path(tempfile.mkdtemp(prefix="meshflow-doctor-"))
    scene = None
    try:
        base.chmod(0o711)
        scene = _Scene(base, account)
        yield scene
    finally:
        if scene is not None:
            scene.close()
        shutil.rmtree(base, ignore_errors=True)


class _Scene:
    """The stand-ins: two tenants, a place outside, listeners and a victim."""

    def __init__(self, base: Path, account: WorkerAccount | None) -> None:
        self._base = base
        self._account = account
        self._token = secrets.token_hex(16)
        self._tenant, self._run = secrets.token_hex(16), secrets.token_hex(16)
        self._workspace = base / "w" / self._tenant / self._run
        self._other = base / "w" / secrets.token_hex(16) / secrets.token_hex(16)
        self._out = base / "out"
        self._listeners = _listeners(base)
        self._host_file = next((p for p in map(Path, _HOST_FILES) if _text(p)), None)
        self._library = next((name for name in _LIBRARIES if _is_there(name)), None)
        self._victim: subprocess.Popen[bytes] | None = None
        self._furnish()

    def _furnish(self) -> None:
        """Everything that an attempt may have spoiled, made again."""
        shutil.rmtree(self._workspace, ignore_errors=True)
        for place in (self._workspace, self._other, self._out):
            place.mkdir(parents=True, exist_ok=True)
        files = (self._other / "secret.txt", self._base / "secret.txt", self._out / "kept")
        for file in (*files, self._workspace / "mine"):
            file.unlink(missing_ok=True)
            file.write_text(self._token, encoding="ascii")
            file.chmod(0o600)
        (self._out / "made").unlink(missing_ok=True)
        if self._account is not None:
            owned = [*self._base.rglob("*")]
            for path in owned:
                os.chown(path, self._account.uid, self._account.gid, follow_symlinks=False)
        self._kept = (self._out / "kept").stat()

    def close(self) -> None:
        """End the victim and the listeners."""
        self._end_victim()
        for listener in self._listeners.values():
            listener.close()

    def victim(self) -> str:
        """A process of the worker's account with a secret in its environment, or nothing."""
        for command in _SLEEPERS:
            if self._victim is not None and self._victim.poll() is None:
                break
            with suppress(OSError):
                self._victim = self._started(command)
        return "" if self._victim is None else str(self._victim.pid)

    def _started(self, command: tuple[str, ...]) -> "subprocess.Popen[bytes]":
        account = self._account
        return subprocess.Popen(  # noqa: S603 - one of two fixed programs, by argv
            command,
            env={"MESHFLOW_DOCTOR": self._token},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
        )

    def _end_victim(self) -> None:
        if self._victim is not None:
            self._victim.kill()
            self._victim.wait()
            self._victim = None

    async def run(
        self, runner: ToolRunner, engine: EngineName, program: Program, limits: ExecLimits
    ) -> ExecResult:
        """A program in this scene's workspace."""
        descriptor = os.open(self._workspace, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return await runner.run(
                ExecRequest(
                    engine=engine,
                    program=program,
                    tenant_hex=self._tenant,
                    run_hex=self._run,
                    workspace_fd=descriptor,
                    limits=limits,
                )
            )
        finally:
            os.close(descriptor)

    async def attempt(
        self,
        runner: ToolRunner,
        engine: EngineName,
        canary: Canary,
        program: tuple[str, ...] | None = None,
    ) -> Held:
        """Run one, look at what it was after, put everything back.

        A `program` of the operator's list gets the lines of the text as its words.
        """
        words = self._words(canary, secrets.token_hex(16))
        if words is None:
            return Held.NOT_RUN
        text = _filled(canary.text, words)
        if program is None:
            result = await self.run(runner, engine, SourceText(text=text), _LIMITS)
        else:
            argv = Argv(words=(*program, *text.split("\n")))
            result = await self.run(runner, engine, argv, _LISTED_LIMITS)
        escaped = self._escaped(canary, result, words)
        did_not_run = result.status in (ExecStatus.UNAVAILABLE, ExecStatus.REFUSED)
        if escaped:
            self._end_victim()
        self._furnish()
        return Held.ESCAPED if escaped else Held.NOT_RUN if did_not_run else Held.HELD

    def _words(self, canary: Canary, proof: str) -> Mapping[str, str] | None:
        """What stands for the names in a text; None when there is nothing of the kind here."""
        words = {
            "PROOF": proof,
            "OUT": str(self._out),
            "OTHER": str(self._other),
            "WORKSPACE": str(self._workspace),
            "HOSTFILE": "" if self._host_file is None else str(self._host_file),
            "LIBRARY": self._library or "",
            "UNIX": str(self._base / "unix"),
        }
        for name, listener in self._listeners.items():
            address = listener.getsockname()
            if name in ("TCP", "UDP"):
                words[name] = str(address[1])
            elif name == "ABSTRACT":
                words[name] = address.decode().removeprefix("\0")
        if "{VICTIM}" in canary.text:
            words["VICTIM"] = self.victim()
        is_absent = "" in (words.get(canary.target), words.get("VICTIM"))
        return None if is_absent else words

    def _escaped(self, canary: Canary, result: ExecResult, words: Mapping[str, str]) -> bool:
        target = Path(_filled(canary.target, words))
        match canary.oracle:
            case Oracle.READ:
                known = self._token.encode()
                if canary.target == "HOSTFILE" and self._host_file is not None:
                    known = _text(self._host_file)
                return known in result.stdout
            case Oracle.APPEARED:
                return os.path.lexists(target)
            case Oracle.VANISHED:
                return not os.path.lexists(target)
            case Oracle.CHANGED:
                return self._is_changed(target)
            case Oracle.HEARD:
                return _was_reached(self._listeners[canary.target])
            case Oracle.VICTIM:
                return self._is_victim_harmed()
            case Oracle.LOST:
                return result.status is ExecStatus.UNAVAILABLE
            case Oracle.SAID:
                return words["PROOF"].encode() in result.stdout
            case _:
                assert_never(canary.oracle)

    def _is_changed(self, file: Path) -> bool:
        if not file.exists():
            return True
        facts, kept = file.stat(), self._kept
        return (facts.st_ino, facts.st_mode, facts.st_size) != (
            kept.st_ino,
            kept.st_mode,
            kept.st_size,
        )

    def _is_victim_harmed(self) -> bool:
        if self._victim is None:
            return False
        with suppress(subprocess.TimeoutExpired):
            self._victim.wait(_GONE_SECONDS)
            return True
        limits = Path(f"/proc/{self._victim.pid}/limits").read_text(encoding="ascii")
        opened = next(line for line in limits.splitlines() if line.startswith("Max open files"))
        return opened.split()[3] == "7"


def _filled(text: str, words: Mapping[str, str]) -> str:
    for name, word in words.items():
        text = text.replace("{" + name + "}", word)
    return text


def _text(path: Path) -> bytes:
    """What it holds, at most a page; nothing when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError:
        return b""


def _is_there(library: str) -> bool:
    places = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
    triplet = f"{os.uname().machine}-linux-gnu"
    return any(
        Path(place, name).exists() for place in places for name in (library, f"{triplet}/{library}")
    )


def _listeners(base: Path) -> dict[str, socket.socket]:
    """Sockets that a program must not reach: nothing accepts, so reaching one is what counts."""
    made: dict[str, socket.socket] = {}
    for name, family, kind, address in (
        ("TCP", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
        ("UDP", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
        ("UNIX", socket.AF_UNIX, socket.SOCK_STREAM, str(base / "unix")),
        ("ABSTRACT", socket.AF_UNIX, socket.SOCK_STREAM, f"\0meshflow-{secrets.token_hex(8)}"),
    ):
        made[name] = socket.socket(family, kind)
        made[name].setblocking(False)  # noqa: FBT003 - the standard library's signature
        made[name].bind(address)
        if kind == socket.SOCK_STREAM:
            made[name].listen(8)
    (base / "unix").chmod(0o666)
    return made


def _was_reached(listener: socket.socket) -> bool:
    try:
        if listener.type == socket.SOCK_STREAM:
            listener.accept()[0].close()
        else:
            listener.recv(64)
    except BlockingIOError:
        return False
    return True
