"""Makes the system calls that Python has no name for, by number, through ctypes.

Every failure is an OSError with the kernel's own code, also where a call or a machine is unknown
(ENOSYS), so that "absent" and "refused" are told apart by who asks.

Threat: Privilege escalation via tool calls
"""

import ctypes
import errno
import os
import sys
from typing import Protocol

from app.sandbox.syscall_tables import ARCHITECTURES, Architecture

_ARGUMENTS = 6
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_PDEATHSIG = 1
PR_GET_SECCOMP = 21
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39


class Kernel(Protocol):
    """The kernel as the sandbox asks it; tests put one in its place that lacks something."""

    @property
    def architecture(self) -> Architecture | None:
        """The machine, or None when there is no table for it."""

    def call(self, name: str, *arguments: int) -> int:
        """What the system call returned; OSError when it failed or does not exist here."""

    def prctl(self, option: int, argument: int = 0) -> int:
        """What `prctl(option, argument, 0, 0, 0)` returned; OSError when it failed."""


class LinuxKernel:
    """This machine's kernel."""

    def __init__(self) -> None:
        is_linux = sys.platform == "linux"
        self._architecture = ARCHITECTURES.get(os.uname().machine) if is_linux else None
        libc = ctypes.CDLL(None, use_errno=True)
        self._syscall = libc.syscall
        self._syscall.restype = ctypes.c_long
        # Declared once: a worker makes some hundred calls before it may run.
        self._syscall.argtypes = [ctypes.c_long, *[ctypes.c_ulong] * _ARGUMENTS]
        self._numbers = {} if self._architecture is None else dict(self._architecture.numbers)
        self._prctl = libc.prctl if is_linux else None

    @property
    def architecture(self) -> Architecture | None:
        """The machine, or None when there is no table for it."""
        return self._architecture

    def call(self, name: str, *arguments: int) -> int:
        """What the system call returned; OSError when it failed or does not exist here."""
        number = self._numbers.get(name)
        if number is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        rest = (0,) * (_ARGUMENTS - len(arguments))
        return _result(int(self._syscall(number, *arguments, *rest)))

    def prctl(self, option: int, argument: int = 0) -> int:
        """What `prctl(option, argument, 0, 0, 0)` returned; OSError when it failed."""
        if self._prctl is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        rest = [ctypes.c_ulong(value) for value in (argument, 0, 0, 0)]
        return _result(int(self._prctl(ctypes.c_int(option), *rest)))


def _result(returned: int) -> int:
    if returned < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return returned
