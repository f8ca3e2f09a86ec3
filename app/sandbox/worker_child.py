"""What a forked worker does: take its place, be confined, then run the one program it is for.

Threat: Privilege escalation via tool calls
"""

import fcntl
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from app.domain.errors import ConfinementError
from app.sandbox.confinement import Walls, confine
from app.sandbox.execution import ExecLimits, Program
from app.sandbox.kernel_calls import PR_SET_PDEATHSIG, Kernel
from app.sandbox.worker_protocol import MAX_PROGRAM_BYTES, decode_program

CONFINED: Final = b"confined"
_NOT_CONFINED_CODE = 125
_ABOVE_OURS = 512  # where descriptors are parked while the low numbers are given away
MAX_DESCRIPTORS: Final = 4096

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
    status = -1
    try:
        os.setsid()
        kernel.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != zygote:
            os._exit(code)
        _reset_signals()
        program, workspace, status = _take_places(handed)
        os.umask(0o077)
        os.fchdir(workspace)
        confine(kernel, walls, workspace_fd=workspace, limits=limits)
        os.close(workspace)
        os.closerange(status + 1, kept)
        os.closerange(kept + 1, MAX_DESCRIPTORS)
        os.write(status, CONFINED)
        os.close(status)
        status = -1
        data = os.pread(program, MAX_PROGRAM_BYTES, 0)
        os.close(program)
        for name in [name for name in sys.modules if name.partition(".")[0] == "app"]:
            del sys.modules[name]  # nothing secret is in them, but a program has no use for them
        code = engine(decode_program(data), limits)
    except ConfinementError as refused:
        if status >= 0:
            os.write(status, str(refused).encode())
    finally:
        os._exit(code)


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
