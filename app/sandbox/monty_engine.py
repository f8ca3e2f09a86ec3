"""Turns a confined worker into Monty, an interpreter of a part of Python that reaches nothing.

The interpreter is a program of its own and a wall of its own: its language has no call to the host
but those it is started with, which are none, or files in the workspace. The worker becomes it in
one step, from a descriptor that was held before the walls went up, and can become nothing else.
The program comes as standard input: it stands in no argument, and Monty has no `input`.

Threat: Privilege escalation via tool calls
"""

import ctypes
import fcntl
import glob
import os
from collections.abc import Sequence
from typing import Final

from app.sandbox.execution import Argv, ExecLimits, Program, SourceText
from app.sandbox.kernel_calls import Kernel
from app.sandbox.landlock import EXECUTE, READ_FILE
from app.sandbox.seccomp import BECOMES

HEAP_BYTES: Final = 64 * 1024 * 1024
PROGRAM_FILE: Final = "/proc/self/fd/0"
_AT_EMPTY_PATH = 0x1000
_COULD_NOT = 126
_AHEAD_SECONDS = 0.5  # Monty ends the program itself before the kernel does
_LEAST_SECONDS = 0.05
_PLACES_OF_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/lib/*-linux-*")
_LOADERS = ("ld-linux*.so*", "ld-musl*.so*")
_LIBRARIES = ("libc.*", "libm.*", "libdl.*", "libpthread.*", "librt.*", "libgcc_s.*")


def hold_interpreter(path: str) -> None:
    """Hold the program as the one descriptor that a worker may become. OSError."""
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    held = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, BECOMES)
    os.close(opened)
    if held != BECOMES:
        os.close(held)
        raise OSError(0, "the descriptor of the interpreter is taken")


def interpreter_places(path: str) -> list[tuple[str, int]]:
    """What Landlock has to leave it: its own file, the loader and the C libraries."""
    found = [(path, EXECUTE | READ_FILE), ("/etc/ld.so.cache", READ_FILE)]
    for names, access in ((_LOADERS, EXECUTE | READ_FILE), (_LIBRARIES, READ_FILE)):
        for place in _PLACES_OF_LIBRARIES:
            for name in names:
                found += [(file, access) for file in glob.glob(f"{place}/{name}")]  # noqa: PTH207 - plain strings
    return found


class Monty:
    """What a worker of this engine does once it is confined."""

    def __init__(self, kernel: Kernel, *, has_files: bool) -> None:
        self._kernel = kernel
        self._has_files = has_files

    def run(self, program: Program, limits: ExecLimits) -> int:
        """Become the interpreter; comes back with a code only when that could not be done."""
        match program:
            case Argv():
                return _COULD_NOT
            case SourceText():
                return self._become(arguments(limits, has_files=self._has_files))

    def wait(self, _: Program, __: ExecLimits) -> int:
        """Become the interpreter that waits for a program on descriptor 0, in its own protocol."""
        return self._become(["monty", "subprocess"])

    def _become(self, given: Sequence[str]) -> int:
        words = [word.encode() for word in given]
        argv = (ctypes.c_char_p * (len(words) + 1))(*words, None)
        environ = (ctypes.c_char_p * 1)(None)
        empty = ctypes.create_string_buffer(b"")
        try:
            self._kernel.call(
                "execveat",
                BECOMES,
                ctypes.addressof(empty),
                ctypes.addressof(argv),
                ctypes.addressof(environ),
                _AT_EMPTY_PATH,
            )
        except OSError as refused:
            os.write(2, f"the interpreter did not start (errno {refused.errno})\n".encode())
        return _COULD_NOT


def arguments(limits: ExecLimits, *, has_files: bool) -> list[str]:
    """How the interpreter is started: limits below those that end it from outside, and no host."""
    heap = min(HEAP_BYTES, limits.memory_bytes)
    given = ["monty", "--max-memory", str(heap)]
    given += ["--max-feed-duration", f"{longest_run(limits):.3f}"]
    given += ["--max-total-sleep", f"{longest_sleep(limits):.3f}"]
    if has_files:
        given += ["--mount", f".::/workspace::rw::{limits.workspace_bytes}"]
    return [*given, PROGRAM_FILE]


def longest_run(limits: ExecLimits) -> float:
    """After how many seconds of its own time Monty ends the program itself."""
    return max(min(limits.wall_seconds, limits.cpu_seconds) - _AHEAD_SECONDS, _LEAST_SECONDS)


def longest_sleep(limits: ExecLimits) -> float:
    """How many seconds a program may sleep in all."""
    return max(limits.wall_seconds - _AHEAD_SECONDS, _LEAST_SECONDS)
