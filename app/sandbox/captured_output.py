"""Reads what a worker writes, as it comes, up to a limit; beyond it the worker is told on.

Threat: Privilege escalation via tool calls
"""

import asyncio
import os
from collections.abc import Callable

_CHUNK_BYTES = 64 * 1024


class CapturedOutput:
    """The reading end of one pipe. `writer` is for the worker; `close` lets go of both ends."""

    def __init__(self, limit_bytes: int, on_overflow: Callable[[], None]) -> None:
        self._limit_bytes = limit_bytes
        self._on_overflow = on_overflow
        self._loop = asyncio.get_running_loop()
        self._held = bytearray()
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reader, False)
        self._loop.add_reader(self._reader, self._read)
        self.is_truncated = False

    def sent(self) -> None:
        """The worker has the writing end now: drop ours."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def finish(self) -> bytes:
        """All that was written, after the worker and all it started are gone."""
        while self._reader >= 0 and self._read():
            pass
        return bytes(self._held)

    def close(self) -> None:
        """Let go of the pipe. May be called again."""
        self.sent()
        if self._reader >= 0:
            self._loop.remove_reader(self._reader)
            os.close(self._reader)
            self._reader = -1

    def _read(self) -> bool:
        """Take one chunk; False when there is none now, or never will be."""
        try:
            chunk = os.read(self._reader, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        room = self._limit_bytes - len(self._held)
        self._held += chunk[:room]
        if len(chunk) > room:
            self.is_truncated = True
            self._on_overflow()
        if not chunk or self.is_truncated:
            self.close()
            return False
        return True
