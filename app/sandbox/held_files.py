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
_PASSABLE = 0o710  # by the group, which is the worker's


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


def hand_over(owner: WorkerAccount | None, name: str, parent: int, *, is_run: bool) -> None:
    """A run's directory becomes the worker's own; a tenant's it may pass through and not look at.

    No worker can put a link there: the directory above is closed to all but the server.
    """
    if is_run:
        give_to(owner, name, parent)
    elif owner is not None:
        os.chown(name, -1, owner.gid, dir_fd=parent, follow_symlinks=False)
        os.chmod(name, _PASSABLE, dir_fd=parent)


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
