"""The filter answers every call as one that libseccomp compiles from the same decisions.

What is written here is the decisions once more, in libseccomp's words; its compiler, its numbers
and its way of comparing arguments are not ours. Both programs are then run over every number.
"""

import ctypes
import ctypes.util
import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from app.sandbox.syscall_tables import ARCHITECTURES, HIGHEST_JUDGED
from tests.pod.runtime_profile import _Comparison
from tests.unit.sandbox.test_seccomp import EACH, KILL, OWN_PID, _named, answer, machine_named

_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_NOT_EQUAL, _EQUAL, _MASKED_EQUAL = 1, 4, 7
_NATIVE_BAD_ARCHITECTURE = 2
_PROT_EXEC = 4
_NAMESPACES = 0x7E020080
_THREAD = 0x00010D00
# What arguments are tried with: bits that decide somewhere, in the low and in the high half.
_VALUES = (
    *(
        0,
        1,
        2,
        4,
        8,
        15,
        0x5401,
        0x541B,
        0x10900,
        0x10D00,
        0x20000,
        0x7E020080,
        0xFFFFFFFF,
        1 << 32,
    ),
    *(OWN_PID, OWN_PID + 1, (1 << 32) | OWN_PID, (1 << 64) - 1),
)


_ALLOWED = """
access alarm brk chdir clock_getres clock_gettime clock_nanosleep close close_range
copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2
epoll_wait eventfd eventfd2 exit exit_group faccessat faccessat2 fadvise64 fchdir fdatasync flock
fstat fstatfs fsync ftruncate futex futex_waitv getcpu getcwd getdents getdents64 getegid geteuid
getgid getgroups getitimer getpeername getpgrp getpid getppid getrandom getresgid getresuid
getrlimit getrusage getsockname getsockopt gettid gettimeofday getuid lseek lstat madvise mkdir
mkdirat mremap msync munmap nanosleep newfstatat open openat pause pipe pipe2 poll ppoll pread64
preadv preadv2 pselect6 pwrite64 pwritev pwritev2 read readlink readlinkat readv recvfrom rename
renameat restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn
rt_sigsuspend rt_sigtimedwait sched_getaffinity sched_yield select sendfile set_robust_list
set_tid_address setitimer shutdown sigaltstack signalfd signalfd4 stat statfs statx sysinfo time
timerfd_create timerfd_gettime timerfd_settime times truncate umask uname unlink unlinkat wait4
waitid write writev
"""
_DONE_WITHOUT_DOING = "chmod fchmod fchmodat fchmodat2 futimesat utime utimensat utimes"
_NOT_HERE = """
fallocate fgetxattr flistxattr fremovexattr fsetxattr getxattr lgetxattr listxattr llistxattr
lremovexattr lsetxattr removexattr setxattr
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """A call, and what must hold of (argument, operator, first, second) for this answer."""

    name: str
    action: int
    where: tuple[tuple[int, int, int, int], ...] = ()


def _one_of(name: str, argument: int, values: tuple[int, ...]) -> Iterator[_Rule]:
    """An `int` argument: the kernel reads its low half."""
    for value in values:
        where = ((argument, _MASKED_EQUAL, 0xFFFFFFFF, value),)
        yield _Rule(name=name, action=_ALLOW, where=where)


def _decisions() -> Iterator[_Rule]:
    """All of an ordinary worker's."""
    for name in _ALLOWED.split():
        yield _Rule(name=name, action=_ALLOW)
    for name in _DONE_WITHOUT_DOING.split():
        yield _Rule(name=name, action=_ERRNO)
    for name in _NOT_HERE.split():
        yield _Rule(name=name, action=_ERRNO | errno.EOPNOTSUPP)
    yield _Rule(name="clone3", action=_ERRNO | errno.ENOSYS)
    yield _Rule(
        name="clone",
        action=_ALLOW,
        where=((0, _MASKED_EQUAL, _NAMESPACES | _THREAD, _THREAD),),
    )
    yield from _one_of("prctl", 0, (3, 15, 16, 21, 30, 39))
    yield from _one_of("socketpair", 0, (1,))
    yield from _one_of("ioctl", 1, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451))
    yield from _one_of("fcntl", 1, (*range(8), 36, 37, 38, 1030, 1032))
    yield from _one_of("renameat2", 4, (0, 1))
    yield from _one_of("kill", 0, (OWN_PID,))
    yield from _one_of("tgkill", 0, (OWN_PID,))
    yield _Rule(name="sendto", action=_ALLOW, where=((4, _EQUAL, 0, 0),))
    for name in ("mmap", "mprotect"):
        yield _Rule(name=name, action=_ALLOW, where=((2, _MASKED_EQUAL, _PROT_EXEC, 0),))
    for pid in (0, OWN_PID):
        asked = ((0, _MASKED_EQUAL, 0xFFFFFFFF, pid), (2, _EQUAL, 0, 0))
        yield _Rule(name="prlimit64", action=_ALLOW, where=asked)


def _compiled(library: ctypes.CDLL, audit_code: int) -> bytes:
    """The decisions as libseccomp compiles them for a machine."""
    library.seccomp_init.restype = ctypes.c_void_p
    made = ctypes.c_void_p(library.seccomp_init(_ERRNO | errno.EPERM))
    library.seccomp_arch_native.restype = ctypes.c_uint32
    own = library.seccomp_arch_native()
    if own != audit_code:
        assert library.seccomp_arch_add(made, ctypes.c_uint32(audit_code)) == 0
        assert library.seccomp_arch_remove(made, ctypes.c_uint32(own)) == 0
    assert library.seccomp_attr_set(made, _NATIVE_BAD_ARCHITECTURE, _KILL_PROCESS) == 0
    resolve = library.seccomp_syscall_resolve_name_arch
    for rule in _decisions():
        if resolve(ctypes.c_uint32(audit_code), rule.name.encode()) < 0:
            continue  # the machine never had it, or this libseccomp does not know it
        # Rules are given by this machine's numbers, and translated.
        number = library.seccomp_syscall_resolve_name(rule.name.encode())
        array = (_Comparison * len(rule.where))(*(_Comparison(*one) for one in rule.where))
        added = library.seccomp_rule_add_exact_array(
            made, ctypes.c_uint32(rule.action), number, len(rule.where), array
        )
        assert added == 0, (rule, added)
    file = os.memfd_create("filter", os.MFD_CLOEXEC)
    try:
        assert library.seccomp_export_bpf(made, file) == 0
        os.lseek(file, 0, os.SEEK_SET)
        return os.read(file, 1 << 20)
    finally:
        os.close(file)
        library.seccomp_release(made)


def _run(code: bytes, number: int, audit_code: int, arguments: tuple[int, ...]) -> str | int:
    """A classic BPF program as the kernel runs it, with the jumps that libseccomp also writes."""
    data = struct.pack("=iIQ6Q", number, audit_code, 0, *arguments)
    at = value = 0
    while True:
        kind, yes, no, operand = struct.unpack_from("=HBBI", code, 8 * at)
        at += 1
        match kind:
            case 0x20:
                (value,) = struct.unpack_from("=I", data, operand)
            case 0x05:
                at += operand
            case 0x15:
                at += yes if value == operand else no
            case 0x25:
                at += yes if value > operand else no
            case 0x35:
                at += yes if value >= operand else no
            case 0x45:
                at += yes if value & operand else no
            case 0x54:
                value &= operand
            case 0x06:
                return _named(operand)
            case _:
                raise AssertionError(hex(kind))


def _argument_sets(*, deciding: bool) -> Iterator[tuple[int, ...]]:
    yield from ((0,) * 6, (1,) * 6, ((1 << 64) - 1,) * 6)
    for place in range(6 if deciding else 0):
        for value in _VALUES:
            for others in (0, 1):
                yield tuple(value if place == at else others for at in range(6))


@EACH
def test_every_number_with_every_argument_is_answered_as_libseccomps_filter_does(
    machine: str,
) -> None:
    found = ctypes.util.find_library("seccomp")
    if found is None:
        return  # the recorded numbers stand for it; the container of the tests has it
    library = ctypes.CDLL(found)
    architecture = ARCHITECTURES[machine]
    code, audit = architecture.audit_code, architecture.audit_code
    theirs, ours = _compiled(library, code), machine_named(machine).code
    unknown = {  # to this libseccomp: it can have no rule for them
        number
        for name, number in architecture.numbers.items()
        if library.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(code), name.encode()) < 0
    }
    deciding = {
        architecture.numbers[rule.name]
        for rule in _decisions()
        if rule.where and rule.name in architecture.numbers
    }
    other = [
        (number, arguments)
        for number in range(HIGHEST_JUDGED + 1)
        if number not in unknown
        for arguments in _argument_sets(deciding=number in deciding)
        if answer(ours, number, audit, *arguments) != _run(theirs, number, audit, arguments)
    ]
    assert other == []
    for foreign in (0x40000003, 0x40000028, 0):
        assert _run(theirs, 39, foreign, (0,) * 6) == answer(ours, 39, foreign) == KILL
