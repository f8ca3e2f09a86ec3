"""Keeps one worker forked before its call: the call is handed to it, and it is used for that alone.

It is forked by a zygote while nothing runs, and waits for descriptors; it has read no program. All
that confines a worker is applied when the call has come, as in one that is forked for it.

Threat: Privilege escalation via tool calls
"""

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from app.sandbox.confinement import Walls
from app.sandbox.execution import ExecLimits
from app.sandbox.kernel_calls import Kernel
from app.sandbox.worker_child import Engine, Handed, become_worker_later
from app.sandbox.worker_protocol import Start, encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a worker is confined by, what it does then, and what it can do before."""

    engine: Engine
    walls: Walls | None
    warm_up: Callable[[], None] | None


class ForkedAhead:
    """At most one worker that has no call yet."""

    def __init__(self, kernel: Kernel, kind: Kind, kept: int) -> None:
        self._kernel = kernel
        self._kind = kind
        self._kept = kept
        self._pid = 0
        self._channel: socket.socket | None = None

    def make(self) -> None:
        """Fork it, unless there is one or the kind has none; no process to be had: no harm."""
        warm_up = self._kind.warm_up
        if self._pid or warm_up is None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        zygote = os.getpid()
        with theirs:
            try:
                pid = os.fork()
            except OSError:
                ours.close()
                return
            if pid == 0:
                become_worker_later(
                    self._kernel,
                    self._kind.walls,
                    theirs.fileno(),
                    self._kind.engine,
                    zygote,
                    kept=self._kept,
                    warm_up=warm_up,
                )
        self._pid, self._channel = pid, ours

    def take(self, handed: Handed, limits: ExecLimits) -> int | None:
        """Hand the call to it: its process id, or None when there is none to take it.

        The caller closes its own descriptors afterwards, either way.
        """
        if self._channel is None:
            return None
        descriptors = [
            handed.workspace,
            handed.program,
            handed.stdin,
            handed.stdout,
            handed.stderr,
            handed.status,
        ]
        with self._channel as channel:
            pid, self._pid, self._channel = self._pid, 0, None
            try:
                socket.send_fds(channel, [encode(Start(call=0, limits=limits))], descriptors)
            except OSError:
                return None  # it died, and its end is taken like any other's
        return pid

    def died(self, pid: int) -> None:
        """The end of some process was taken: there is none any more if it was this one."""
        if pid == self._pid and self._channel is not None:
            self._channel.close()
            self._pid, self._channel = 0, None

    def end(self) -> None:
        """Kill it and take its end."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self.died(self._pid)
