"""Publishes and reads small secret files: whole and durable before their name can be seen.

Errors are OSErrors for the caller to put into words: it knows what the file is called to others.
"""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

DRAFT = ".new-"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def publish_private_file(path: Path, content: bytes, random_bytes: Callable[[int], bytes]) -> None:
    """Makes the file with mode 0600 unless one of this name is there, which then stays. OSError.

    A draft is written and linked to its name, so the name never shows a part. The caller makes the
    folders and syncs them.
    """
    draft = path.with_name(DRAFT + random_bytes(16).hex())
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(draft, flags, 0o600)
    try:
        try:
            if os.write(descriptor, content) != len(content):
                raise OSError(errno.EIO, "short write")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with suppress(FileExistsError):  # another process was first: its file is the file
            os.link(draft, path, follow_symlinks=False)
    finally:
        draft.unlink()


def read_private_file(path: Path, most: int) -> tuple[bytes, os.stat_result]:
    """Up to `most` bytes of the file, and what it is. Follows no link, waits for no pipe. OSError.

    The caller asks `is_private` of what it is before it believes a byte.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        return os.read(descriptor, most), found
    finally:
        os.close(descriptor)


def is_private(found: os.stat_result) -> bool:
    """Whether it is a plain file that nobody but its owner reaches."""
    return stat.S_ISREG(found.st_mode) and not found.st_mode & _OTHERS


def sync_directory(folder: Path) -> None:
    """What was made or removed in the folder survives a power cut. OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
