"""Runs a shell command in a virtual shell: an interpreter in this process that starts no program.

By then the process is confined and about to end. The interpreter's own walls (a file system of its
own, no network, counted commands) are not relied on: a fault in it is one failed call. Its file
system holds nothing of the host but the run's workspace, mounted at `/workspace`.

Threat: Exfiltration via web/shell tools
"""

import asyncio
import inspect
import os
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


def run_virtual(text: str, limits: ExecLimits) -> int:
    """Run the command to its end and give its exit code; its output is written as it comes.

    Never raises for what the command does.
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
    # By a relative path: the worker's account may not be able to go there from the root.
    shell.mount(WORKSPACE, FileSystem.real(".", writable=True))
    out, err = _Stream(1), _Stream(2)

    def take(out_part: str, err_part: str) -> None:
        out.take(out_part)
        err.take(err_part)

    ended = cast("_Ended", shell.execute_sync(text, take))
    if ended.error is None:
        out.finish(ended.stdout_bytes)
        err.finish(ended.stderr_bytes)
    else:  # stopped: the result then holds nothing but why
        out.finish(None)
        err.finish(None)
        err.take(f"{ended.error}\n")
    return ended.exit_code & 0xFF
