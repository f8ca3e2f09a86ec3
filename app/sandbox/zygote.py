"""Forks one confined worker for each call, ends it in time, and tells how it ended.

It has one thread, no environment and no descriptor but the pair to the server; when that closes,
it kills what runs and ends. It never reads a program.

Threat: Privilege escalation via tool calls
"""

import gc
import os
import resource
import selectors
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, assert_never

from app.domain.errors import ConfinementError
from app.sandbox.confinement import build_walls, drop_power
from app.sandbox.confinement_trial import tried
from app.sandbox.engine_choice import load_engine, load_waiting, not_here, warm_up_of
from app.sandbox.execution import EngineName, ExecLimits
from app.sandbox.forked_ahead import ForkedAhead, Kind
from app.sandbox.kernel_calls import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    Kernel,
    LinuxKernel,
)
from app.sandbox.removed_files import Holder, is_over_quota
from app.sandbox.seccomp import BECOMES
from app.sandbox.worker_child import CONFINED, MAX_DESCRIPTORS, Handed, become_worker
from app.sandbox.worker_places import held_places
from app.sandbox.worker_protocol import (
    DESCRIPTORS,
    MAX_PACKET_BYTES,
    Begun,
    Done,
    Ended,
    Forked,
    Ready,
    Start,
    Stop,
    decode_request,
    encode,
)
from app.sandbox.zygote_configuration import ZygoteConfiguration

_TICK_SECONDS: Final = 0.05
_LARGEST_SHARE: Final = 8  # a look at the quotas may take an eighth of the time


_NO_WORKSPACE: Final = -1


@dataclass(slots=True, kw_only=True)
class _Call:
    """A worker that runs, or one that `waits` for its program and has no deadline yet."""

    pid: int
    workspace: int
    status: int
    limits: ExecLimits
    began: float
    waits: bool
    killed_for: Ended | None = None


def serve_zygote(descriptor: int, configuration: str) -> None:
    """Serve the server at the other end until it is gone."""
    configured = ZygoteConfiguration.decode(configuration)
    kernel = LinuxKernel()
    ceiling = min(MAX_DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, ceiling))
    link = socket.socket(fileno=descriptor)
    link.set_inheritable(False)
    problem, usual, waiting = (
        "",
        Kind(engine=not_here, walls=None, warm_up=warm_up_of(configured)),
        None,
    )
    is_monty = configured.engine is EngineName.MONTY
    try:
        engine = load_engine(configured, kernel)
        readable = held_places(configured)
        drop_power(kernel, configured.account)
        kernel.prctl(PR_SET_DUMPABLE, 0)
        kernel.prctl(PR_SET_CHILD_SUBREAPER, 1)
        usual = replace(
            usual,
            engine=engine,
            walls=build_walls(
                kernel,
                configured.profile,
                readable,
                may_become=is_monty,
                needs_landlock=configured.has_files,
            ),
        )
        problem = tried(kernel, usual.walls)
        waits = load_waiting(configured, kernel)
        if waits is not None:
            walls = build_walls(
                kernel, configured.profile, readable, may_become=True, needs_landlock=False
            )
            waiting = replace(usual, engine=waits, walls=walls)
    except (ConfinementError, OSError) as refused:
        problem = str(refused)
    gc.collect()
    gc.freeze()
    zygote = Zygote(kernel, link, usual, waiting, BECOMES if is_monty else MAX_DESCRIPTORS)
    link.send(encode(Ready(problem=problem)))
    if not problem:
        zygote.serve()


class Zygote:
    """The calls in flight and how each of them ends."""

    def __init__(
        self,
        kernel: Kernel,
        link: socket.socket,
        usual: Kind,
        waiting: Kind | None,
        kept: int,
    ) -> None:
        self._kernel = kernel
        self._link = link
        self._usual = usual
        self._waiting = waiting
        self._kept = kept
        self._ahead = ForkedAhead(kernel, usual, kept)
        self._calls: dict[int, _Call] = {}
        self._next_look = 0.0

    def serve(self) -> None:
        """Until the server closes its end."""
        bell, ringer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(ringer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
        with selectors.DefaultSelector() as selector:
            selector.register(self._link, selectors.EVENT_READ)
            selector.register(bell, selectors.EVENT_READ)
            self._ahead.make()
            while True:
                for key, _ in selector.select(self._patience()):
                    if key.fd == bell:
                        os.read(bell, 4096)
                    elif not self._hear():
                        self._kill_all()
                        return
                self._reap()
                self._end_in_time()
                if not self._running():  # a call that runs has the processor
                    self._ahead.make()

    def _patience(self) -> float | None:
        running = self._running()
        if not running:
            return None
        now = time.monotonic()
        deadlines = [call.began + call.limits.wall_seconds for call in running]
        return max(0.0, min([*deadlines, self._next_look]) - now)

    def _running(self) -> list[_Call]:
        return [call for call in self._calls.values() if not call.waits]

    def _hear(self) -> bool:
        """Take one request; False when the server is gone."""
        packet, descriptors, flags, _ = socket.recv_fds(
            self._link, MAX_PACKET_BYTES, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
        )
        if not packet:
            return False
        request = decode_request(packet)
        match request:
            case Start():
                if len(descriptors) == DESCRIPTORS and not flags & socket.MSG_CTRUNC:
                    self._start(request, descriptors)
                else:
                    for descriptor in descriptors:
                        os.close(descriptor)
                    self._answer(request.call, Ended.NOT_CONFINED, "descriptors were lost")
            case Begun():
                call = self._calls.get(request.call)
                if call is not None:
                    self._time(call)
            case Stop():
                call = self._calls.get(request.call)
                if call is not None:
                    self._kill(call, Ended.ASKED)
            case _:
                assert_never(request)
        return True

    def _time(self, call: _Call) -> None:
        """From now on the call has its deadline."""
        began = time.monotonic()
        if not self._running():
            self._next_look = began + _TICK_SECONDS
        call.began, call.waits = began, False

    def _start(self, request: Start, descriptors: list[int]) -> None:
        kind = self._waiting if request.waits else self._usual
        if kind is None:
            for descriptor in descriptors:
                os.close(descriptor)
            self._answer(request.call, Ended.NOT_CONFINED, "workers of this engine never wait")
            return
        status, told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        workspace, program, stdin, stdout, stderr = descriptors
        handed = Handed(
            workspace=workspace,
            program=program,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            status=told,
        )
        try:
            pid = self._worker(kind, handed, request)
        except OSError as refused:
            for descriptor in (*descriptors, status, told):
                os.close(descriptor)
            self._answer(request.call, Ended.NOT_CONFINED, f"no process (errno {refused.errno})")
            return
        for descriptor in (program, stdin, stdout, stderr, told):
            os.close(descriptor)
        if request.waits:  # it has none: what it was handed is only a place to be
            os.close(workspace)
            workspace = _NO_WORKSPACE
            self._link.send(encode(Forked(call=request.call, pid=pid)))
        call = _Call(
            pid=pid,
            workspace=workspace,
            status=status,
            limits=request.limits,
            began=0.0,
            waits=True,
        )
        if not request.waits:
            self._time(call)
        self._calls[request.call] = call

    def _worker(self, kind: Kind, handed: Handed, request: Start) -> int:
        """The process that runs the call: one that was forked for any, or a new one. OSError."""
        pid = None if request.waits else self._ahead.take(handed, request.limits)
        if pid is not None:
            return pid
        zygote = os.getpid()
        pid = os.fork()
        if pid == 0:
            become_worker(
                self._kernel,
                kind.walls,
                handed,
                request.limits,
                kind.engine,
                zygote,
                kept=self._kept,
            )
        return pid

    def _reap(self) -> None:
        """Tell of every worker that ended, once whatever it left behind is gone too."""
        workers = {call.pid: number for number, call in self._calls.items()}
        while True:
            try:
                # Looked at before it is reaped: its group's number cannot be another's meanwhile.
                seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if seen is None:
                return
            number = workers.get(seen.si_pid)
            if number is not None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(seen.si_pid, signal.SIGKILL)
            _, status, usage = os.wait4(seen.si_pid, 0)
            self._ahead.died(seen.si_pid)
            if number is not None:
                _take_ends_of(seen.si_pid)
                self._tell(number, status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)

    def _tell(self, number: int, status: int, cpu_seconds: float, peak_kib: int) -> None:
        call = self._calls.pop(number)
        told = _status_told(call.status)
        if call.killed_for is None and self._is_over(call, has_ended=True):
            call.killed_for = Ended.QUOTA
        if call.workspace != _NO_WORKSPACE:
            os.close(call.workspace)
        code = os.waitstatus_to_exitcode(status)
        ended = Ended.EXITED if code >= 0 else Ended.SIGNALLED
        out_of_time = cpu_seconds >= call.limits.cpu_seconds
        if code == -signal.SIGXCPU or (code == -signal.SIGKILL and out_of_time):
            ended = Ended.CPU_LIMIT
        ended = call.killed_for or ended
        problem = "" if told == CONFINED else told.decode(errors="replace")
        if problem or (told != CONFINED and call.killed_for is None):
            ended = Ended.NOT_CONFINED
        done = Done(
            call=number,
            ended=ended,
            exit_code=max(code, 0),
            signal=max(-code, 0),
            cpu_seconds=cpu_seconds,
            wall_seconds=time.monotonic() - call.began,
            peak_memory_bytes=peak_kib * 1024,
            problem=problem,
        )
        self._link.send(encode(done))

    def _end_in_time(self) -> None:
        now, running = time.monotonic(), self._running()
        for call in running:
            if now >= call.began + call.limits.wall_seconds:
                self._kill(call, Ended.DEADLINE)
        if running and now >= self._next_look:
            for call in running:
                if call.killed_for is None and self._is_over(call):
                    self._kill(call, Ended.QUOTA)
            took = time.monotonic() - now
            self._next_look = now + took + max(_TICK_SECONDS, took * _LARGEST_SHARE)

    def _is_over(self, call: _Call, *, has_ended: bool = False) -> bool:
        if call.workspace == _NO_WORKSPACE:
            return False
        walls = self._usual.walls
        holder = Holder(
            pid=call.pid,
            workspace_fd=call.workspace,
            limits=call.limits,
            forks=walls is not None and walls.may_fork,
        )
        return is_over_quota(holder, has_ended=has_ended)

    @staticmethod
    def _kill(call: _Call, reason: Ended) -> None:
        call.killed_for = call.killed_for or reason
        for kill in (os.kill, os.killpg):  # it may not have made its group yet
            with suppress(ProcessLookupError, PermissionError):
                kill(call.pid, signal.SIGKILL)

    def _kill_all(self) -> None:
        """And take their ends: whoever inherits them may not be waiting for any."""
        self._ahead.end()
        for call in self._calls.values():
            self._kill(call, Ended.ASKED)
        for call in self._calls.values():
            with suppress(ChildProcessError):
                os.waitpid(call.pid, 0)

    def _answer(self, number: int, ended: Ended, problem: str) -> None:
        done = Done(
            call=number,
            ended=ended,
            exit_code=0,
            signal=0,
            cpu_seconds=0.0,
            wall_seconds=0.0,
            peak_memory_bytes=0,
            problem=problem,
        )
        self._link.send(encode(done))


def _take_ends_of(group: int) -> None:
    """Of all that is left of a group that was killed: this process is their heir.

    One that dies leaves its own children behind before its end can be taken, so none is missed.
    """
    with suppress(ChildProcessError):
        while True:
            os.waitid(os.P_PGID, group, os.WEXITED)


def _status_told(descriptor: int) -> bytes:
    """What the worker said of its confinement; nothing when it did not get that far."""
    try:
        return os.read(descriptor, 512)
    except BlockingIOError:
        return b""
    finally:
        os.close(descriptor)
