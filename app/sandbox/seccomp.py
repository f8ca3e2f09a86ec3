"""Builds and loads the system call filter of a worker: what is not listed answers EPERM.

Source: the kernel's userspace-api/seccomp_filter page and `linux/bpf_common.h`. Arguments are
judged as the kernel reads them: `int` by its low half, pointers and `unsigned long` by both.

Threat: Privilege escalation via tool calls
"""

import ctypes
import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.sandbox.kernel_calls import Kernel
from app.sandbox.syscall_tables import HIGHEST_JUDGED, Architecture

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _AND, _RETURN = (
    0x20,
    0x15,
    0x35,
    0x45,
    0x54,
    0x06,
)
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_REFUSE = _ERRNO | errno.EPERM
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_X32_BIT = 0x40000000
_SET_MODE_FILTER = 1
MODE_FILTER: Final = 2

_NEW_NAMESPACES = 0x7E020080  # every CLONE_NEW* flag that fits here
# CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, and CLONE_FILES: with a table of its own each thread
# would have the limit on descriptors anew, and `removed_files` would have to look at all of them.
_THREAD_FLAGS = 0x00010D00
_PROT_EXEC, _MAP_ANONYMOUS = 0x4, 0x20
_AF_UNIX = 1
_O_TRUNC, _O_ACCMODE = 0o1000, 0o3
_OPENING = {"open": 1, "openat": 2}  # and which argument holds the flags
# Names, dumpable, seccomp, no_new_privs and timer slack: asked or set for the caller alone.
_PRCTL_OPTIONS = (3, 15, 16, 21, 39, 30)
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX.
_IOCTL_CODES = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_SETLK, F_SETLKW, the same for open file
# descriptions, F_DUPFD_CLOEXEC, pipe sizes asked: none that makes the kernel signal anybody.
_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032)


def _words(names: str) -> tuple[str, ...]:
    return tuple(names.split())


_ALLOWED: Final = _words("""
read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 close close_range lseek
sendfile copy_file_range creat access faccessat faccessat2 stat lstat fstat newfstatat
statx statfs fstatfs getdents getdents64 mkdir mkdirat rmdir unlink unlinkat
rename renameat getcwd chdir fchdir umask ftruncate fsync fdatasync flock fadvise64 dup dup2 dup3
pipe pipe2 poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait
epoll_pwait2 eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime
brk munmap mremap madvise msync futex futex_waitv set_robust_list rseq set_tid_address
sched_yield sched_getaffinity rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending
rt_sigtimedwait rt_sigsuspend sigaltstack pause alarm setitimer getitimer restart_syscall
nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times getpid gettid getppid
getpgrp getuid geteuid getgid getegid getgroups getresuid getresgid getrlimit getrusage getcpu
getrandom sysinfo uname exit exit_group recvfrom shutdown getsockopt getsockname getpeername
wait4 waitid
""")
# Answered as done, so that copying a file goes on working; nothing happens.
_PRETENDED: Final = _words("chmod fchmod fchmodat fchmodat2 utime utimes futimesat utimensat")
# What libraries take as "this file system has none" and go on without.
_NOT_SUPPORTED: Final = _words("""
getxattr lgetxattr fgetxattr setxattr lsetxattr fsetxattr listxattr llistxattr flistxattr
removexattr lremovexattr fremovexattr fallocate
""")
_LINKS: Final = _words("readlink readlinkat")
_EXECUTING: Final = _words("execve execveat fork vfork arch_prctl")
# All that an interpreter without files makes, and the worker before it becomes that interpreter.
_WITHOUT_FILES: Final = _words("""
read write readv writev pread64 close close_range lseek access faccessat faccessat2 stat lstat fstat
newfstatat statx getcwd brk munmap mremap madvise futex set_robust_list rseq
set_tid_address sched_yield sched_getaffinity rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack
poll ppoll restart_syscall nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time
getpid gettid getrandom getrlimit getrusage getcpu sysinfo uname exit exit_group
""")
# What the runtime inside the virtual shell waits with.
_WAITING: Final = _words("epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2 futex_waitv")
# The one descriptor that a worker may turn into a program from. No later file gets this number:
# the limit on descriptors is below it, and it is closed by turning.
BECOMES: Final = 500
_AT_EMPTY_PATH = 0x1000
_O_CREAT = 0o100
_JUDGED_WITHOUT_FILES: Final = frozenset(
    _words("clone clone3 prctl prlimit64 ioctl fcntl mmap mprotect kill tgkill")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterRules:
    """What differs between workers."""

    may_execute: bool = False  # the `exec` engine: starts programs, and threads of theirs
    may_signal_group: bool = False  # only where Landlock keeps signals inside (ABI 6)
    sees_links: bool = True  # else whatever is asked is no link: a workspace holds none
    may_truncate: bool = True  # by path, or by opening: only where Landlock judges it (ABI 3)
    may_become: bool = False  # the `monty` engine: turns into the program held as `BECOMES`
    # Else no name is changed, and nothing is opened: but for reading where there is a program to
    # become, which has to be loaded.
    may_use_files: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterProgram:
    """A filter but for the process id it is for, which is filled in where it is loaded."""

    code: bytes
    own_pid_at: tuple[int, ...]


_Step = tuple[int, int, int, int]  # code, jump if true, jump if false, operand
_OWN_PID = 0xFFFFFFFF  # stands in an operand until the filter is loaded


def build_filter(architecture: Architecture, rules: FilterRules) -> FilterProgram:
    """The program for this machine. Default deny; a foreign architecture ends the process."""
    numbers = architecture.numbers
    steps: list[_Step] = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 1, 0, architecture.audit_code),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if architecture.has_x32:
        steps += [(_JUMP_AT_LEAST, 0, 1, _X32_BIT), (_RETURN, 0, 0, _KILL)]
    allowed = [*(_ALLOWED if rules.may_use_files else _WITHOUT_FILES)]
    allowed += () if rules.may_use_files or rules.may_become else _WAITING
    allowed += _EXECUTING if rules.may_execute else ()
    allowed += ("arch_prctl",) if rules.may_become else ()
    allowed += _LINKS if rules.sees_links else ()
    if rules.may_truncate and rules.may_use_files:
        allowed += ["truncate", *_OPENING]
    if rules.may_signal_group:
        allowed += ["kill", "tgkill"]
    for name, body in _judged(rules):
        if name in numbers:
            steps += [(_JUMP_EQUAL, 0, len(body), numbers[name]), *body]
    answers = (
        (allowed, _ALLOW),
        (_PRETENDED, _ERRNO),
        (_NOT_SUPPORTED, _ERRNO | errno.EOPNOTSUPP),
        (() if rules.sees_links else _LINKS, _ERRNO | errno.EINVAL),
    )
    for names, answer in answers:
        for first, last in _ranges({numbers[name] for name in names if name in numbers}):
            steps += [
                (_JUMP_AT_LEAST, 0, 2, first),
                (_JUMP_AT_LEAST, 1, 0, last + 1),
                (_RETURN, 0, 0, answer),
            ]
    steps += [
        (_JUMP_AT_LEAST, 0, 1, HIGHEST_JUDGED + 1),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return FilterProgram(
        code=b"".join(struct.pack("=HBBI", *step) for step in steps),
        own_pid_at=tuple(
            8 * place + 4
            for place, step in enumerate(steps)
            if step[0] == _JUMP_EQUAL and step[3] == _OWN_PID
        ),
    )


def load_filter(kernel: Kernel, program: FilterProgram, own_pid: int) -> None:
    """Put this thread, for good, under the filter. Needs no_new_privs; OSError when it fails."""
    code = ctypes.create_string_buffer(program.code, len(program.code))
    for place in program.own_pid_at:
        struct.pack_into("=I", code, place, own_pid)
    # The kernel's `struct sock_fprog`: the pointer is aligned.
    header = struct.pack("=HxxxxxxQ", len(program.code) // 8, ctypes.addressof(code))
    given = ctypes.create_string_buffer(header, len(header))
    kernel.call("seccomp", _SET_MODE_FILTER, 0, ctypes.addressof(given))


def _ranges(wanted: set[int]) -> list[tuple[int, int]]:
    """The numbers as (first, last) without gaps: the kernel tries a new filter on every number."""
    found: list[tuple[int, int]] = []
    for number in sorted(wanted):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _judged(rules: FilterRules) -> list[tuple[str, list[_Step]]]:
    """Calls whose arguments decide, each with a body that always ends in an answer."""
    clone = _no_bit(0, _NEW_NAMESPACES)
    if not rules.may_execute:
        clone += _all_bits(0, _THREAD_FLAGS)
    judged: list[tuple[str, list[_Step]]] = [
        ("clone", [*clone, _allow()]),
        ("clone3", [(_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]),  # its flags lie in memory
        ("prctl", [*_one_of(0, _PRCTL_OPTIONS), _allow()]),
        ("prlimit64", [*_one_of(0, (0, _OWN_PID)), *_is_null(2), _allow()]),
        ("socketpair", [*_one_of(0, (_AF_UNIX,)), _allow()]),
        ("sendto", [*_is_null(4), _allow()]),
        ("ioctl", [*_one_of(1, _IOCTL_CODES), _allow()]),
        ("fcntl", [*_one_of(1, _FCNTL_COMMANDS), _allow()]),
        ("mmap", _mmap(rules)),
        ("mprotect", [*_no_bit(2, _PROT_EXEC), _allow()]),
        ("renameat2", [*_one_of(4, (0, 1)), _allow()]),  # RENAME_NOREPLACE, never EXCHANGE
    ]
    if rules.may_become:
        into = [*_one_of(0, (BECOMES,)), *_one_of(4, (_AT_EMPTY_PATH,)), _allow()]
        judged.append(("execveat", into))
    if not rules.may_use_files:
        kept = (*_JUDGED_WITHOUT_FILES, "execveat")
        judged = [(name, body) for name, body in judged if name in kept]
        writing = _O_TRUNC | _O_CREAT | _O_ACCMODE
        opening = _OPENING if rules.may_become else {}
        judged += [(name, [*_no_bit(at, writing), _allow()]) for name, at in opening.items()]
    elif not rules.may_truncate:
        judged += [
            (name, [*_no_reader_truncates(place), _allow()]) for name, place in _OPENING.items()
        ]
    if not rules.may_signal_group:
        judged += [(name, [*_one_of(0, (_OWN_PID,)), _allow()]) for name in ("kill", "tgkill")]
    return judged


def _no_reader_truncates(argument: int) -> list[_Step]:
    """Refuse flags that empty a file without opening it for writing."""
    return [
        (_LOAD, 0, 0, _low(argument)),
        (_AND, 0, 0, _O_TRUNC | _O_ACCMODE),
        (_JUMP_EQUAL, 1, 0, _O_TRUNC),
        (_JUMP_EQUAL, 0, 1, _O_TRUNC | _O_ACCMODE),
        (_RETURN, 0, 0, _REFUSE),
    ]


def _mmap(rules: FilterRules) -> list[_Step]:
    if not (rules.may_execute or rules.may_become):
        return [*_no_bit(2, _PROT_EXEC), _allow()]
    # A program's own file may be mapped to run; memory that can be written first may not.
    return [
        (_LOAD, 0, 0, _low(2)),
        (_JUMP_ANY_BIT, 0, 3, _PROT_EXEC),
        (_LOAD, 0, 0, _low(3)),
        (_JUMP_ANY_BIT, 0, 1, _MAP_ANONYMOUS),
        (_RETURN, 0, 0, _REFUSE),
        _allow(),
    ]


def _low(argument: int) -> int:
    return _ARGUMENTS_AT + 8 * argument  # both architectures are little-endian


def _allow() -> _Step:
    return (_RETURN, 0, 0, _ALLOW)


def _one_of(argument: int, values: Sequence[int]) -> list[_Step]:
    """Go on behind when the low half is one of the values, else refuse."""
    compared = [(_JUMP_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [(_LOAD, 0, 0, _low(argument)), *compared, (_RETURN, 0, 0, _REFUSE)]


def _no_bit(argument: int, bits: int) -> list[_Step]:
    return [(_LOAD, 0, 0, _low(argument)), (_JUMP_ANY_BIT, 0, 1, bits), (_RETURN, 0, 0, _REFUSE)]


def _all_bits(argument: int, bits: int) -> list[_Step]:
    return [
        (_LOAD, 0, 0, _low(argument)),
        (_AND, 0, 0, bits),
        (_JUMP_EQUAL, 1, 0, bits),
        (_RETURN, 0, 0, _REFUSE),
    ]


def _is_null(argument: int) -> list[_Step]:
    """Go on behind when both halves are zero."""
    steps: list[_Step] = []
    for half in (_low(argument), _low(argument) + 4):
        steps += [(_LOAD, 0, 0, half), (_JUMP_EQUAL, 1, 0, 0), (_RETURN, 0, 0, _REFUSE)]
    return steps
