"""Counts and empties a workspace through a held descriptor, following nothing, within bounds.

What a worker made is hostile: names, depth, numbers and sizes are all its choice.

Threat: Privilege escalation via tool calls
"""

import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress

from app.sandbox.workspace_path import MAX_DEPTH, TEMPORARY_PREFIX

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK_BYTES = 512


def exceeds_quota(workspace_fd: int, *, total_bytes: int, entries: int) -> bool:
    """Whether the workspace holds more than this, or is nested deeper than any tool reaches.

    Stops as soon as it does, so the work is bounded by `entries`. OSError when the workspace
    cannot be read.
    """
    return bytes_left(workspace_fd, total_bytes=total_bytes, entries=entries) is None


def bytes_left(workspace_fd: int, *, total_bytes: int, entries: int) -> int | None:
    """How many bytes may still be added, or None where `exceeds_quota`. OSError as there."""
    left = [total_bytes, entries]
    return left[0] if _fits(workspace_fd, left, MAX_DEPTH) else None


def bytes_of(facts: os.stat_result) -> int:
    """What a file counts: what it claims or what it occupies, whichever is more."""
    return max(facts.st_size, facts.st_blocks * _BLOCK_BYTES)


def _fits(directory: int, left: list[int], depth: int) -> bool:
    if depth < 0:
        return False
    opened = os.open(".", _FLAGS, dir_fd=directory)
    try:
        found = []
        with os.scandir(opened) as names:
            for item in names:  # names first: a flood of directories is seen without opening one
                left[1] -= 1
                if left[1] < 0:
                    return False
                found.append(item)
            for item in found:
                with suppress(FileNotFoundError, NotADirectoryError):  # gone or changed since
                    facts = item.stat(follow_symlinks=False)
                    if not stat.S_ISDIR(facts.st_mode):
                        left[0] -= bytes_of(facts)
                        if left[0] < 0:
                            return False
                        continue
                    below = os.open(item.name, _FLAGS, dir_fd=opened)
                    try:
                        if not _fits(below, left, depth - 1):
                            return False
                    finally:
                        os.close(below)
    finally:
        os.close(opened)
    return True


def wipe(workspace_fd: int, *, is_over: Callable[[], bool] = lambda: False) -> None:
    """Remove all that the workspace holds; the directory itself stays. OSError when it cannot.

    A tree of any depth is taken apart without recursion: what lies deeper than one level is first
    moved up, so neither descriptors nor stack run out. Stops as soon as it `is_over`.
    """
    top = os.open(".", _FLAGS, dir_fd=workspace_fd)
    try:
        while names := os.listdir(top):  # noqa: PTH208 - through a descriptor
            for name in names:
                if is_over():
                    return
                _remove(top, name)
    finally:
        os.close(top)


def _remove(top: int, name: str) -> None:
    """Remove one entry of `top`; directories within it move up to `top` under fresh names."""
    with suppress(FileNotFoundError):
        facts = os.stat(name, dir_fd=top, follow_symlinks=False)
        if not stat.S_ISDIR(facts.st_mode):
            os.unlink(name, dir_fd=top)
            return
        with suppress(OSError):  # most that are made to flood are empty
            os.rmdir(name, dir_fd=top)
            return
        _make_readable(facts, name, top)
        inner = os.open(name, _FLAGS, dir_fd=top)
        try:
            for below in os.listdir(inner):  # noqa: PTH208 - as above
                facts = os.stat(below, dir_fd=inner, follow_symlinks=False)
                if stat.S_ISDIR(facts.st_mode):
                    _make_readable(facts, below, inner)  # to be moved, it must be writable
                    fresh = f"{TEMPORARY_PREFIX}{secrets.token_hex(16)}"
                    os.rename(below, fresh, src_dir_fd=inner, dst_dir_fd=top)
                else:
                    os.unlink(below, dir_fd=inner)
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=top)


def _make_readable(facts: os.stat_result, name: str, parent: int) -> None:
    """What a worker made it may have closed to itself, and so to a server of its account.

    No link stands there: none can be made in a workspace, and nobody works in this one any more.
    """
    if facts.st_mode & stat.S_IRWXU != stat.S_IRWXU:
        os.chmod(name, stat.S_IRWXU, dir_fd=parent)
