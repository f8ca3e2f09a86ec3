"""The server's end of one zygote: starts it in a fresh interpreter, sends calls, hears their end.

Threat: Privilege escalation via tool calls
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from app.domain.errors import ConfinementError
from app.sandbox.execution import ExecLimits
from app.sandbox.worker_protocol import (
    MAX_PACKET_BYTES,
    NONSENSE,
    Begun,
    Done,
    Forked,
    Ready,
    Start,
    Stop,
    decode_answer,
    encode,
)
from app.sandbox.zygote_configuration import ZygoteConfiguration

_ENTRY = Path(__file__).with_name("zygote_entry.py")
_START_SECONDS = 30.0
_END_SECONDS = 5.0


class ZygoteLink:
    """One zygote and its calls. Made by `start`; belongs to one event loop; ended by `close`."""

    def __init__(self, process: subprocess.Popen[bytes], link: socket.socket) -> None:
        self._process = process
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[Ready | None] = self._loop.create_future()
        self._waiting: dict[int, CallInFlight] = {}
        self._is_lost = False
        self._orphans: list[int] = []
        self._next_call = 0
        self._loop.add_reader(link.fileno(), self._hear)

    @classmethod
    async def start(cls, configuration: ZygoteConfiguration) -> "ZygoteLink":
        """A zygote that is ready. ConfinementError when it cannot confine or does not come up."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Never cancelled on the way: the descriptor that the child inherits has to stay what it is.
        spawning = asyncio.ensure_future(asyncio.to_thread(_spawn, theirs, configuration))
        try:
            process = await asyncio.shield(spawning)
        except OSError as refused:
            ours.close()
            raise ConfinementError(
                f"the worker could not be started (errno {refused.errno})"
            ) from None
        except BaseException:
            ours.close()
            await asyncio.shield(asyncio.ensure_future(_end_unwanted(spawning)))
            raise
        ours.setblocking(False)  # noqa: FBT003 - the standard library's signature
        zygote = cls(process, ours)
        try:
            async with asyncio.timeout(_START_SECONDS):
                ready = await zygote._ready
        except BaseException as ended:
            await zygote.close()
            if isinstance(ended, TimeoutError):
                raise ConfinementError("the worker did not come up in time") from None
            raise
        problem = "the worker ended while it started" if ready is None else ready.problem
        if problem:
            await zygote.close()
            raise ConfinementError(problem)
        return zygote

    @property
    def is_lost(self) -> bool:
        """Whether the zygote is gone or was told to go."""
        return self._is_lost

    @property
    def pid(self) -> int:
        """The zygote's process id."""
        return self._process.pid

    def begin(
        self, limits: ExecLimits, descriptors: list[int], *, waits: bool = False
    ) -> "CallInFlight":
        """Send a call, without waiting. The caller closes its own descriptors afterwards.

        One that `waits` has no deadline before `CallInFlight.begun`.
        """
        self._next_call += 1
        answer: asyncio.Future[Done | None] = self._loop.create_future()
        call = CallInFlight(number=self._next_call, answer=answer, link=self)
        packet = encode(Start(call=call.number, limits=limits, waits=waits))
        try:
            if self._is_lost:
                raise BrokenPipeError
            socket.send_fds(self._link, [packet], descriptors)
        except OSError:
            # A full or closed socket: this zygote hears nothing any more.
            self._lose()
            answer.set_result(None)
            return call
        self._waiting[call.number] = call
        return call

    def begun(self, number: int) -> None:
        """From now on the worker that waited has its deadline. OSError: nothing is heard there."""
        self._link.send(encode(Begun(call=number)))

    def stop(self, number: int) -> None:
        """Ask for a worker's end; its call is still answered."""
        with suppress(OSError):
            self._link.send(encode(Stop(call=number)))

    def abandon(self) -> None:
        """Kill the zygote and its workers with all they started; every call that waits hears."""
        # Stopped, it takes no more ends: each worker's number stays the worker's.
        self._process.send_signal(signal.SIGSTOP)
        for process in _beneath(self.pid):
            with suppress(OSError):
                # In a container the server is the first process, and so the heir of these.
                self._orphans.append(os.pidfd_open(process))
            with suppress(OSError):  # what a worker started is in its group
                os.killpg(process, signal.SIGKILL)
        self._process.kill()

    async def close(self) -> None:
        """End the zygote and leave no zombie. May be called again."""
        self._lose()
        self._link.close()
        try:
            await asyncio.to_thread(self._process.wait, _END_SECONDS)
        except subprocess.TimeoutExpired:
            self.abandon()
            await asyncio.to_thread(self._process.wait)
        await asyncio.to_thread(_reap, self._orphans)

    def _hear(self) -> None:
        try:
            packet = self._link.recv(MAX_PACKET_BYTES)
            message = decode_answer(packet) if packet else None
        except BlockingIOError:
            return
        except (OSError, *NONSENSE):
            message = None
        match message:
            case None:
                self._lose()
            case Ready():
                if not self._ready.done():
                    self._ready.set_result(message)
            case Forked(call=number, pid=pid):
                call = self._waiting.get(number)
                if call is not None:
                    call.pid = pid
            case Done(call=number):
                call = self._waiting.pop(number, None)
                if call is not None and not call.answer.done():
                    call.answer.set_result(message)
            case _:
                assert_never(message)

    def _lose(self) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        self._loop.remove_reader(self._link.fileno())
        if not self._ready.done():
            self._ready.set_result(None)
        for call in self._waiting.values():
            if not call.answer.done():
                call.answer.set_result(None)
        self._waiting.clear()


@dataclass(slots=True, kw_only=True, eq=False)
class CallInFlight:
    """A call that was sent. `answer` is None when the zygote was lost on the way.

    `pid` is only known of a worker that waits, and only to ask for its processor time.
    """

    number: int
    answer: "asyncio.Future[Done | None]"
    link: ZygoteLink
    pid: int = 0

    def begun(self) -> None:
        """From now on the worker that waited has its deadline. OSError: nothing is heard there."""
        self.link.begun(self.number)

    def stop(self) -> None:
        """Ask for the worker's end; the call is still answered."""
        self.link.stop(self.number)


def _beneath(zygote: int) -> list[int]:
    """Its workers and what they started, parents first; none where the kernel lists no children."""
    found = [zygote]
    for process in found:
        with suppress(OSError):
            told = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii")
            found.extend(int(word) for word in told.split())
    return found[1:]


def _reap(workers: list[int]) -> None:
    """End them, and take the end of those that became children of this process."""
    while workers:
        descriptor = workers.pop()
        try:
            with suppress(OSError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                os.waitid(os.P_PIDFD, descriptor, os.WEXITED)
        finally:
            os.close(descriptor)


async def _end_unwanted(spawning: "asyncio.Future[subprocess.Popen[bytes]]") -> None:
    """Whoever wanted this zygote was cancelled while it was being started."""
    with suppress(OSError):
        process = await spawning
        process.kill()
        await asyncio.to_thread(process.wait)


def _spawn(end: socket.socket, configuration: ZygoteConfiguration) -> "subprocess.Popen[bytes]":
    """A fresh interpreter with an empty environment and no descriptor but this end, closed here."""
    with end:
        return _started(end.fileno(), configuration)


def _started(descriptor: int, configuration: ZygoteConfiguration) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603 - our own file, by argv
        [
            sys.executable,
            "-I",
            "-S",
            "-B",
            os.fspath(_ENTRY),
            str(descriptor),
            configuration.encode(),
        ],
        env={},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        close_fds=True,
        pass_fds=(descriptor,),
        start_new_session=True,
    )
