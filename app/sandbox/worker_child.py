"""What a forked worker does: take its place, be confined, then run the one program it is for.

Threat: Privilege escalation via tool calls
"""

import fcntl
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from app.domain.errors import ConfinementError
from app.sandbox.confinement import Walls, confine, ruleset_of
from app.sandbox.execution import ExecLimits, Program
from app.sandbox.kernel_calls import PR_SET_PDEATHSIG, Kernel
from app.sandbox.worker_protocol import (
    DESCRIPTORS,
    MAX_PACKET_BYTES,
    MAX_PROGRAM_BYTES,
    Start,
    decode_program,
    decode_request,
)

CONFINED: Final = b"confined"
_NOT_CONFINED_CODE = 125
_ABOVE_OURS = 512  # where descriptors are parked while the low numbers are given away
_ABOVE_THE_PLACES = 16  # where nothing is put that a call came with
MAX_DESCRIPTORS: Final = 4096
HANDED: Final = DESCRIPTORS + 1  # what a call came with, and the status pipe

Engine = Callable[[Program, ExecLimits], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """The descriptors of a call, as they came to the zygote."""

    workspace: int
    program: int
    stdin: int
    stdout: int
    stderr: int
    status: int


def become_worker(
    kernel: Kernel,
    walls: Walls | None,
    handed: Handed,
    limits: ExecLimits,
    engine: Engine,
    zygote: int,
    *,
    kept: int = MAX_DESCRIPTORS,
) -> NoReturn:
    """Run the call in this process and end with it. The status pipe says whether it was confined.

    The program is read only once every layer is on and every other descriptor but `kept` is closed.
    """
    code = _NOT_CONFINED_CODE
    try:
        _leave_zygote(kernel, zygote)
        code = _work(kernel, walls, handed, limits, engine, kept)
    finally:
        os._exit(code)


def become_worker_later(
    kernel: Kernel,
    walls: Walls | None,
    channel: int,
    engine: Engine,
    zygote: int,
    *,
    kept: int,
    warm_up: Callable[[], None],
) -> NoReturn:
    """As `become_worker`, for the one call that comes by `channel`; without one it ends.

    It waits with the zygote's power and without any program. What can be done before a call is
    done before it: its memory is its own by then, and the places it may read are held together.
    """
    code = _NOT_CONFINED_CODE
    try:
        _leave_zygote(kernel, zygote)
        ruleset = ruleset_of(kernel, walls)
        if ruleset is not None:
            ruleset = fcntl.fcntl(ruleset, fcntl.F_DUPFD_CLOEXEC, _ABOVE_THE_PLACES)
        _close_all_but((channel, kept) if ruleset is None else (channel, kept, ruleset))
        warm_up()
        received = _received(channel)
        if received is not None:
            handed, limits = received
            code = _work(kernel, walls, handed, limits, engine, kept, ruleset)
    finally:
        os._exit(code)


def _leave_zygote(kernel: Kernel, zygote: int) -> None:
    os.setsid()
    kernel.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != zygote:
        os._exit(_NOT_CONFINED_CODE)
    _reset_signals()


def _work(
    kernel: Kernel,
    walls: Walls | None,
    handed: Handed,
    limits: ExecLimits,
    engine: Engine,
    kept: int,
    ruleset: int | None = None,
) -> int:
    """Be confined, then read the program and run it."""
    program, workspace, status = _take_places(handed)
    try:
        os.umask(0o077)
        os.fchdir(workspace)
        confine(kernel, walls, workspace_fd=workspace, limits=limits, ruleset=ruleset)
    except ConfinementError as refused:
        os.write(status, str(refused).encode())
        return _NOT_CONFINED_CODE
    os.close(workspace)
    os.closerange(status + 1, kept)
    os.closerange(kept + 1, MAX_DESCRIPTORS)
    os.write(status, CONFINED)
    os.close(status)
    data = os.pread(program, MAX_PROGRAM_BYTES, 0)
    os.close(program)
    for name in [name for name in sys.modules if name.partition(".")[0] == "app"]:
        del sys.modules[name]  # nothing secret is in them, but a program has no use for them
    return engine(decode_program(data), limits)


def _received(channel: int) -> tuple[Handed, ExecLimits] | None:
    """The call, or None when there is none or something of it was lost."""
    with socket.socket(fileno=channel) as heard:
        packet, descriptors, flags, _ = socket.recv_fds(
            heard, MAX_PACKET_BYTES, HANDED, socket.MSG_CMSG_CLOEXEC
        )
    if not packet or len(descriptors) != HANDED or flags & socket.MSG_CTRUNC:
        return None
    match decode_request(packet):
        case Start(limits=limits):
            workspace, program, stdin, stdout, stderr, status = descriptors
            handed = Handed(
                workspace=workspace,
                program=program,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                status=status,
            )
            return handed, limits
        case _:
            return None


def _close_all_but(kept: Sequence[int]) -> None:
    first = 3
    for descriptor in sorted(kept):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, MAX_DESCRIPTORS)


def _take_places(handed: Handed) -> Sequence[int]:
    """Give the call's descriptors their numbers: 0-2, then program, workspace, status."""
    wanted = (
        handed.stdin,
        handed.stdout,
        handed.stderr,
        handed.program,
        handed.workspace,
        handed.status,
    )
    parked = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, _ABOVE_OURS) for descriptor in wanted]
    for number, descriptor in enumerate(parked):
        os.dup2(descriptor, number, inheritable=number <= 2)  # noqa: PLR2004 - the standard three
    return 3, 4, 5


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
