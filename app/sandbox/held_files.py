"""Descriptors that are let go of, and what an opened file must be before it is touched.

Threat: Privilege escalation via tool calls
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from app.domain.errors import ToolError
from app.sandbox.sandbox_profile import WorkerAccount
from app.sandbox.workspace_path import NOT_REGULAR

# O_NONBLOCK: a FIFO without a writer would hold the thread for ever.
READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
CHUNK_BYTES = 1024 * 1024


@contextmanager
def closing(descriptor: int) -> Iterator[int]:
    """The descriptor, closed when the block ends."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def give_to(owner: WorkerAccount | None, name: str, parent: int) -> None:
    """Make a directory that was just made the worker's own; nothing when there is no such account.

    Never through a link: a worker that runs could have put one there meanwhile.
    """
    if owner is not None:
        os.chown(name, owner.uid, owner.gid, dir_fd=parent, follow_symlinks=False)


def require_private_file(facts: os.stat_result) -> None:
    """Only regular files, and none with a second name: that one may be outside. ToolError."""
    if not stat.S_ISREG(facts.st_mode):
        raise ToolError(NOT_REGULAR)
    if facts.st_nlink > 1:
        raise ToolError("the file has more than one name")


def read_window(file: int, limit_bytes: int, offset: int = 0) -> bytes:
    """At most `limit_bytes` from `offset`; b'' past the end."""
    found = bytearray()
    while len(found) < limit_bytes:
        chunk = os.pread(file, min(limit_bytes - len(found), CHUNK_BYTES), offset + len(found))
        if not chunk:
            break
        found += chunk
    return bytes(found)
