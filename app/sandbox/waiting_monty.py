"""The server's end of a Monty that waits, confined and without any file, for one program.

It is made before its call, for one tenant, holds nothing but a socket to here, and runs one program
of one call; then it is killed. What it cannot answer alone, files for one, it is not asked a second
time: a worker that sees the workspace runs that program from its beginning, and nothing of the
first attempt is told. There was nothing that it could have changed.

Threat: Privilege escalation via tool calls
"""

import asyncio
import logging
import os
import re
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias, assert_never

from app.sandbox.call_ends import judged, not_run
from app.sandbox.execution import EndedBy, ExecLimits, ExecResult, ExecStatus, SourceText
from app.sandbox.memory_file import memory_file
from app.sandbox.monty_engine import HEAP_BYTES, longest_run, longest_sleep
from app.sandbox.monty_text import shown_error, shown_value
from app.sandbox.monty_wire import (
    Acknowledged,
    Completed,
    Event,
    Failed,
    Missing,
    Printed,
    Unanswerable,
    configure,
    feed,
    reset,
    take_events,
)
from app.sandbox.worker_protocol import Done, Ended, encode_program
from app.sandbox.zygote_link import CallInFlight, ZygoteLink

_log = logging.getLogger(__name__)
GRACE_SECONDS: Final = 2.0  # beyond its own deadline a zygote is taken for lost
# Nobody waits for the end of one that was dismissed, or that is dead: a busy machine has its time.
_PATIENCE_SECONDS: Final = 30.0
# One write into an empty socket takes it whole.
MOST_PROGRAM_BYTES: Final = 48 * 1024
_CHUNK_BYTES: Final = 32 * 1024
_MOST_HEARD_BYTES: Final = 2 * 1024 * 1024
_DIRECTORY: Final = b"/workspace"
# So that what nearly every program needs of the interpreter is in memory when one comes.
_WARMS_UP: Final = b"""
def f(n):
    return [str(x) + f'{x:.2f}' for x in range(n) if x % 2]
d = {'a': 1, 'b': [2.5, (3, None)]}
for k, v in sorted(d.items()):
    print(k, v, f(3), max(1, 2), ' '.join(['a', 'b']).upper().split())
try:
    d['c']
except KeyError as missing:
    print(repr(missing))
"""
_OF_THE_PROGRAM: Final = (Ended.DEADLINE, Ended.CPU_LIMIT)
_TURNS_OF_WARMING: Final = 4  # configured, warmed up, forgotten, configured
# Such a program is sure to want what is not here, or so likely that trying would be a waste.
_WANTS_FILES: Final = re.compile(r"\b(?:open|os|pathlib|Path)\b")


class _Odd(Enum):
    """How a program ended that was not run to its end."""

    UNANSWERABLE = "it wants something of a host, or what it said cannot be told alike"
    OVERFLOWED = "it wrote more than it may"
    GONE = "the interpreter is gone"
    STUCK = "it does not read, or it should long have been ended"


_End: TypeAlias = Completed | Failed | _Odd


def may_do_without_files(text: str) -> bool:
    """Whether it is worth trying: no names of files in it, and short enough."""
    return len(text) <= MOST_PROGRAM_BYTES and _WANTS_FILES.search(text) is None


@dataclass(slots=True, kw_only=True)
class _Output:
    """One stream of a program, up to a limit."""

    limit_bytes: int
    held: bytearray
    is_truncated: bool = False

    def add(self, text: bytes) -> bool:
        """False when it was more than there is room for."""
        room = self.limit_bytes - len(self.held)
        self.held += text[:room]
        self.is_truncated = self.is_truncated or len(text) > room
        return not self.is_truncated


class WaitingMonty:
    """One worker that waits, or runs the one program it is for. Belongs to one event loop."""

    def __init__(self, link: ZygoteLink, limits: ExecLimits) -> None:
        """Have it made. It `is_ready` some milliseconds later, or never. OSError."""
        self.limits = limits
        self._loop = asyncio.get_running_loop()
        self._link = link
        self._held = bytearray()
        self._heard_bytes = 0
        self._turns = 0
        self._is_in_use = False
        self._is_heard = True
        self._end: asyncio.Future[_End] = self._loop.create_future()
        self._warmed: asyncio.Future[bool] = self._loop.create_future()
        self._out = _Output(limit_bytes=limits.stdout_bytes, held=bytearray())
        self._err = _Output(limit_bytes=limits.stderr_bytes, held=bytearray())
        self._overdue: asyncio.TimerHandle | None = None
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._channel.setblocking(False)  # noqa: FBT003 - the standard library's signature
        try:
            with theirs:
                self._call = _begun_in(link, theirs, limits)
        except OSError:
            self._channel.close()
            raise
        self._loop.add_reader(self._channel.fileno(), self._hear)
        self._call.answer.add_done_callback(self._gone)
        session = configure(
            limits,
            heap_bytes=HEAP_BYTES,
            run_seconds=longest_run(limits),
            sleep_seconds=longest_sleep(limits),
        )
        self._say(session + feed(_WARMS_UP, _DIRECTORY) + reset() + session)

    @property
    def is_alive(self) -> bool:
        """Whether it is ready or may become so."""
        return not self._is_in_use and not self._end.done()

    @property
    def is_ready(self) -> bool:
        """Whether a program would run at once."""
        return self.is_alive and self._warmed.done()

    async def warmed(self) -> bool:
        """Wait until it is ready; False when it never will be."""
        return await asyncio.shield(self._warmed)

    def dismiss(self) -> None:
        """Have it killed. Nothing that it says meanwhile is heard any more."""
        self._is_heard = False
        if self._channel.fileno() >= 0:
            self._loop.remove_reader(self._channel.fileno())
        if not self._call.answer.done() and self._overdue is None:
            self._call.stop()
            self._overdue = self._loop.call_later(_PATIENCE_SECONDS, self._link.abandon)

    async def run(self, text: str) -> ExecResult | None:
        """Run the one program. None: it wants files, or more; nothing of it may be told.

        It is killed when this returns; its end is taken a moment later, for it can do nothing.
        """
        self._is_in_use = True
        began, processor = time.monotonic(), self._processor_seconds()
        self._say(feed(text.encode(errors="replace"), _DIRECTORY))
        patience = self._loop.call_later(
            self.limits.wall_seconds + GRACE_SECONDS, self._ends, _Odd.STUCK
        )
        try:
            with suppress(OSError):  # then it is gone, which is heard
                self._call.begun()
            end = await self._end
            if isinstance(end, _Odd) and end is not _Odd.UNANSWERABLE:
                return await self._ended(end)
            spent = max(self._processor_seconds() - processor, 0.0)
            return self._told(end, spent, time.monotonic() - began)
        except asyncio.CancelledError:
            await self._ended(_Odd.STUCK)
            raise
        finally:
            patience.cancel()
            self.dismiss()

    def _told(self, end: _End, processor: float, wall: float) -> ExecResult | None:
        mark = f"{wall * 1000:.2f}ms \N{HEAVY RIGHT-POINTING ANGLE QUOTATION MARK ORNAMENT} "
        shown: str | None
        match end:
            case Completed(value=value):
                shown = _value(value)
            case Failed():
                shown = f"error: {shown_error(end)}"
            case _:
                return None
        if shown is None or not self._err.add(f"{mark}{shown}\n".encode(errors="replace")):
            return None
        is_failed = isinstance(end, Failed)
        return ExecResult(
            status=ExecStatus.ERROR if is_failed else ExecStatus.OK,
            exit_code=int(is_failed),
            stdout=bytes(self._out.held),
            stderr=bytes(self._err.held),
            cpu_seconds=processor,
            wall_seconds=wall,
        )

    async def _ended(self, end: _Odd) -> ExecResult | None:
        """What the zygote says of it, once it and all it started are gone."""
        overflowed = end is _Odd.OVERFLOWED
        if end is not _Odd.GONE:
            self.dismiss()
        patience = _PATIENCE_SECONDS if end is _Odd.GONE else GRACE_SECONDS
        await asyncio.wait((self._call.answer,), timeout=patience)
        if not self._call.answer.done():
            self._link.abandon()
            await asyncio.wait((self._call.answer,))
        done = self._call.answer.result()
        if done is None:
            return not_run(ExecStatus.UNAVAILABLE, EndedBy.WORKER, "the worker was lost")
        if not overflowed and done.ended not in _OF_THE_PROGRAM:
            return None  # it may have died before it read anything
        return self._judged(done, overflowed=overflowed)

    def _judged(self, done: Done, *, overflowed: bool) -> ExecResult:
        status, ended_by, reason = judged(done, overflowed=overflowed)
        return ExecResult(
            status=status,
            stdout=bytes(self._out.held),
            stderr=bytes(self._err.held),
            stdout_truncated=self._out.is_truncated,
            stderr_truncated=self._err.is_truncated,
            cpu_seconds=done.cpu_seconds,
            wall_seconds=done.wall_seconds,
            peak_memory_bytes=done.peak_memory_bytes,
            ended_by=ended_by,
            reason=reason,
        )

    def _say(self, frames: bytes) -> None:
        """All of it or nothing: what does not fit is nothing that it waits for."""
        try:
            is_whole = self._channel.send(frames) == len(frames)
        except OSError:
            is_whole = False
        if not is_whole:
            self._ends(_Odd.STUCK)

    def _hear(self) -> bool:
        """Take one chunk; False when there is none now, or never will be."""
        try:
            chunk = self._channel.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            chunk = b""
        if not chunk:
            self._close()
            self._ends(_Odd.GONE)
            return False
        self._held += chunk
        self._heard_bytes += len(chunk)
        events = None if self._heard_bytes > _MOST_HEARD_BYTES else _understood(self._held)
        if events is None:
            self._close()  # nothing more of it would be
            self._ends(_Odd.UNANSWERABLE)
            return False
        for event in events:
            self._take(event)
        return True

    def _take(self, event: Event) -> None:
        if not self._is_in_use:
            self._warm_up(event)
            return
        match event:
            case Printed(parts=parts):
                for is_error, text in parts:
                    if not (self._err if is_error else self._out).add(text):
                        self._ends(_Odd.OVERFLOWED)
            case Completed() | Failed():
                self._ends(event)
            case Missing(reply=reply):
                self._say(reply)
            case Acknowledged() | Unanswerable():
                self._ends(_Odd.UNANSWERABLE)
            case _:
                assert_never(event)

    def _warm_up(self, event: Event) -> None:
        match event:
            case Printed():
                return
            case Acknowledged() | Completed():
                self._turns += 1
            case _:
                self._ends(_Odd.UNANSWERABLE)
        if self._turns == _TURNS_OF_WARMING and not self._warmed.done():
            self._warmed.set_result(True)

    def _ends(self, end: _End) -> None:
        if not self._end.done():
            self._end.set_result(end)
        if not self._warmed.done():
            self._warmed.set_result(False)

    def _gone(self, _: "asyncio.Future[Done | None]") -> None:
        """The zygote took its end."""
        if self._overdue is not None:
            self._overdue.cancel()
        while self._is_heard and self._channel.fileno() >= 0 and self._hear():
            pass  # what it still said
        self._close()
        self._ends(_Odd.GONE)

    def _close(self) -> None:
        if self._channel.fileno() >= 0:
            self._loop.remove_reader(self._channel.fileno())
            self._channel.close()

    def _processor_seconds(self) -> float:
        """What the worker used of the processor so far; 0 when it cannot be asked any more."""
        clock = ~self._call.pid << 3 | 2  # the kernel's number for the clock of a process
        try:
            return time.clock_gettime(clock) if self._call.pid else 0.0
        except OSError:
            return 0.0


class WaitingRoom:
    """At most one worker that waits for each zygote. Belongs to one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[ZygoteLink, WaitingMonty] = {}
        self.calls = 0  # how many were answered by a worker that had waited

    def prepare(self, link: ZygoteLink, limits: ExecLimits) -> None:
        """Have one made with these limits, unless there is one."""
        for lost in [other for other in self._waiting if other.is_lost]:
            del self._waiting[lost]
        held = self._waiting.get(link)
        if link.is_lost or (held is not None and held.limits == limits and held.is_alive):
            return
        if held is not None:
            held.dismiss()
        try:
            self._waiting[link] = WaitingMonty(link, limits)
        except OSError as refused:
            _log.warning("no worker waits for the next call (errno %s)", refused.errno)

    def take(self, link: ZygoteLink, limits: ExecLimits) -> WaitingMonty | None:
        """The one that is ready for a call with these limits, for this call alone; or None."""
        held = self._waiting.get(link)
        if held is None or not held.is_ready or held.limits != limits:
            return None
        return self._waiting.pop(link)

    async def ready(self, link: ZygoteLink) -> bool:
        """Wait for the one that is being made; whether it is ready then."""
        held = self._waiting.get(link)
        return held is not None and await held.warmed()


def _begun_in(link: ZygoteLink, theirs: socket.socket, limits: ExecLimits) -> CallInFlight:
    """The worker, with one end of a socket as its input and output, and nothing else."""
    program = memory_file(encode_program(SourceText(text="")))
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        given = [root, program, theirs.fileno(), theirs.fileno(), nowhere]
        return link.begin(limits, given, waits=True)
    finally:
        for descriptor in (program, nowhere, root):
            os.close(descriptor)


def _understood(held: bytearray) -> list[Event] | None:
    try:
        return take_events(held)
    except ValueError:
        return None


def _value(message: bytes) -> str | None:
    try:
        return shown_value(message)
    except ValueError:
        return None
