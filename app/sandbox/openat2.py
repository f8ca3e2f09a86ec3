"""Opens a path so that the kernel itself refuses to leave a held directory or to follow a link.

Two ways with one promise: the `openat2` system call, and, where the kernel or a seccomp profile
does not offer it (ENOSYS, EPERM), a walk that opens one component at a time without following.

Threat: Privilege escalation via tool calls
"""

import ctypes
import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeAlias

# Opens (directory descriptor, components, flags, mode) -> a descriptor the caller closes.
Opener: TypeAlias = Callable[[int, Sequence[str], int, int], int]

# A descriptor that can be resolved from but not read; elsewhere than on Linux, a readable one.
O_HOLD: int = getattr(os, "O_PATH", os.O_RDONLY)
HOLD_DIRECTORY = O_HOLD | os.O_DIRECTORY | os.O_NOFOLLOW

# The number is the same in the x86_64 and the generic (aarch64) table; others take the walk.
_SYSCALL_NUMBERS = {"x86_64": 437, "aarch64": 437}
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RESOLVE = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS

_NOT_OFFERED = frozenset({errno.ENOSYS, errno.EPERM})
_TRY_AGAIN = frozenset({errno.EAGAIN, errno.EINTR})
_TRIES = 8


class _OpenHow(ctypes.Structure):
    """The kernel's `struct open_how`."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def _failure(code: int) -> OSError:
    """The error for a code, without any path in it."""
    return OSError(code, os.strerror(code))


def _require_plain(parts: Sequence[str]) -> None:
    """Refuse components that mean anything but one name; neither way below may see them.

    A NUL would silently shorten the path on its way through ctypes, `..` would climb in the walk.
    """
    for part in parts:
        if part in ("", ".", "..") or "/" in part or "\0" in part:
            raise _failure(errno.EINVAL)


def open_by_openat2(dir_fd: int, parts: Sequence[str], flags: int, mode: int = 0) -> int:
    """Open by one system call that the kernel confines beneath `dir_fd`; no parts opens `dir_fd`.

    The descriptor is close-on-exec. Raises OSError, with ENOSYS where the call does not exist.
    """
    _require_plain(parts)
    number = _SYSCALL_NUMBERS.get(os.uname().machine)
    if sys.platform != "linux" or number is None:
        raise _failure(errno.ENOSYS)
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    how = _OpenHow(flags | os.O_CLOEXEC, mode, _RESOLVE)
    path = os.fsencode("/".join(parts) or ".")
    code = 0
    for _ in range(_TRIES):
        opened = int(
            syscall(
                ctypes.c_long(number),
                ctypes.c_int(dir_fd),
                ctypes.c_char_p(path),
                ctypes.byref(how),
                ctypes.c_size_t(ctypes.sizeof(how)),
            )
        )
        if opened >= 0:
            return opened
        code = ctypes.get_errno()
        if code not in _TRY_AGAIN:
            break
    raise _failure(code)


def open_by_walk(dir_fd: int, parts: Sequence[str], flags: int, mode: int = 0) -> int:
    """Open component by component from `dir_fd`, each without following; no parts opens `dir_fd`.

    The descriptor is close-on-exec. Raises OSError: ELOOP or ENOTDIR where a link stands.
    """
    _require_plain(parts)
    if not parts:
        return os.open(".", flags | os.O_CLOEXEC, mode, dir_fd=dir_fd)
    held = dir_fd
    try:
        for part in parts[:-1]:
            below = os.open(part, HOLD_DIRECTORY | os.O_CLOEXEC, dir_fd=held)
            if held != dir_fd:
                os.close(held)
            held = below
        return os.open(parts[-1], flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=held)
    finally:
        if held != dir_fd:
            os.close(held)


def open_beneath(dir_fd: int, parts: Sequence[str], flags: int, mode: int = 0) -> int:
    """Open by the system call, or by the walk where it is not offered; both stay beneath.

    The descriptor is close-on-exec and the caller's to close. Raises OSError without a path in it.
    """
    try:
        return open_by_openat2(dir_fd, parts, flags, mode)
    except OSError as refused:
        if refused.errno not in _NOT_OFFERED:
            raise
    return open_by_walk(dir_fd, parts, flags, mode)
