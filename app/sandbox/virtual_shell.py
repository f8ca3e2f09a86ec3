"""Runs a shell command in a virtual shell: an interpreter in this process that starts no program.

By then the process is confined and about to end. The interpreter's own walls (a file system of its
own, no network, counted commands) are not relied on: a fault in it is one failed call. Its file
system holds nothing of the host but the run's workspace, mounted at `/workspace`; where no wall
keeps files apart, not even that: `/workspace` then lies in memory and is gone with the call.

Threat: Exfiltration via web/shell tools
"""

import asyncio
import inspect
import os
from pathlib import Path
from typing import Final, Protocol, cast

from bashkit import Bash, ExecutionProfile, FileSystem

from app.sandbox.execution import ExecLimits

WORKSPACE: Final = "/workspace"
_MOST_COMMANDS: Final = 10_000
_MOST_TURNS: Final = 10_000  # of each loop
_MEMORY_BYTES: Final = 16 * 1024 * 1024  # of files that lie in memory alone
_SHARE_OF_TIME: Final = 0.9  # its own deadline, which names itself, comes before the worker's
_NOT_TEXT: Final = "\ufffd"
_IMPORTED_LATE: Final = (asyncio, inspect)  # by the library, when no file can be read any more


class _Ended(Protocol):
    """What the library gives, with the two members that its own description leaves out."""

    exit_code: int
    error: str | None
    stdout_bytes: bytes
    stderr_bytes: bytes
    stdout_truncated: bool


class _Stream:
    """Passes text on as it comes; from the first bytes that are none, keeps the rest for later."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._sent = 0
        self._kept: list[str] = []

    def take(self, part: str) -> None:
        """The next part."""
        if self._kept or _NOT_TEXT in part:
            self._kept.append(part)
        else:
            self._write(part.encode(errors="replace"))

    def finish(self, whole: bytes | None) -> None:
        """All that was written, in its own bytes, or None when only the parts are known."""
        if whole is None:
            self._write("".join(self._kept).encode(errors="replace"))
        else:
            self._write(whole[self._sent :])

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        self._sent += len(rest)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]


def _workspace() -> FileSystem:
    """The current directory, by a path that works where the one from the root does not.

    A worker that is not the server's user may not pass through the directories above it, but for
    the last. The library takes this name for the real one, because no link is shown to it.
    """
    above = os.open("..", os.O_PATH | os.O_DIRECTORY)
    try:
        return FileSystem.real(f"/proc/self/fd/{above}/{Path.cwd().name}", writable=True)
    except RuntimeError:  # a C library that finds links without asking for them
        return FileSystem.real(".", writable=True)


def run_virtual(text: str, limits: ExecLimits, *, has_files: bool = True) -> int:
    """Run the command to its end and give its exit code; its output is written as it comes.

    Never raises for what the command does. Without files its workspace is an empty one in memory.
    """
    shell = Bash(
        username="agent",
        hostname="sandbox",
        cwd=WORKSPACE,
        env={"HOME": WORKSPACE},
        max_commands=_MOST_COMMANDS,
        max_loop_iterations=_MOST_TURNS,
        max_memory=_MEMORY_BYTES,
        timeout_seconds=limits.wall_seconds * _SHARE_OF_TIME,
        profile=ExecutionProfile.Standard,
    )
    if has_files:
        shell.mount(WORKSPACE, _workspace())
    else:
        shell.mkdir(WORKSPACE, recursive=True)
    out, err = _Stream(1), _Stream(2)

    def take(out_part: str, err_part: str) -> None:
        out.take(out_part)
        err.take(err_part)

    ended = cast("_Ended", shell.execute_sync(text, take))
    if ended.error is None:
        out.finish(ended.stdout_bytes)
        if ended.stdout_truncated:  # at the limit of a call, which one more goes over
            os.write(1, b"\n")
        err.finish(ended.stderr_bytes)
    else:  # stopped: the result then holds nothing but why
        out.finish(None)
        err.finish(None)
        err.take(f"{ended.error}\n")
    return ended.exit_code & 0xFF
