"""Lets processes that share key files take turns: those that sign together, who rotates alone.

The lock is the kernel's and ends with the process, however that ends. On a shared volume it needs
a file system that locks for all its clients.

Threat: Ledger tampering
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.domain.errors import KeyStoreError


@contextmanager
def turn(path: Path, key: str, *, alone: bool) -> Iterator[None]:
    """Hold the turn while the block lasts: alone, or with all others who do not ask to be.

    Nobody waits: KeyStoreError at once when it is somebody else's. `key` is what errors call it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise KeyStoreError(f"{key} cannot be locked: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        doing = "signs with" if alone else "rotates"
        raise KeyStoreError(f"another process {doing} {key} at this moment: try again") from None
    except OSError as error:
        os.close(descriptor)
        raise KeyStoreError(f"{key} cannot be locked: {error.strerror}") from None
    try:
        yield
    finally:
        os.close(descriptor)
