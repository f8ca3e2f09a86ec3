"""The filter, run here step by step as the kernel would: what is allowed, refused, answered, fatal.

The numbers and the answers are held against libseccomp's, which knows the tables by itself.
"""

import ctypes
import ctypes.util
import errno
import os
import struct
from dataclasses import dataclass

import pytest

from app.sandbox.execution import ExecLimits
from app.sandbox.seccomp import BECOMES, FilterRules, build_filter
from app.sandbox.syscall_tables import ARCHITECTURES, HIGHEST_JUDGED, Architecture
from tests.support.escape_scene import NUMBERS

EACH = pytest.mark.parametrize("machine", sorted(ARCHITECTURES))
ALLOW, KILL, REFUSE, ABSENT = "allow", "kill", errno.EPERM, errno.ENOSYS
OWN_PID = 4711


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """An architecture with the filter of an ordinary worker on it."""

    architecture: Architecture
    code: bytes

    def ask(self, name: str, *arguments: int) -> str | int:
        """What a call by name is answered."""
        number: int = NUMBERS[self.architecture.name][name]
        return answer(self.code, number, self.architecture.audit_code, *arguments)


def machine_named(name: str, rules: FilterRules | None = None) -> Machine:
    architecture = ARCHITECTURES[name]
    program = build_filter(architecture, rules or FilterRules())
    code = bytearray(program.code)
    for place in program.own_pid_at:
        struct.pack_into("=I", code, place, OWN_PID)
    return Machine(architecture=architecture, code=bytes(code))


def answer(code: bytes, number: int, audit_code: int, *arguments: int) -> str | int:
    """Run the classic BPF program over one call's data."""
    given = [*arguments, *[0] * (6 - len(arguments))]
    masked = [argument & 0xFFFFFFFFFFFFFFFF for argument in given]
    data = struct.pack("=iIQ6Q", number, audit_code, 0, *masked)
    steps = [struct.unpack_from("=HBBI", code, at) for at in range(0, len(code), 8)]
    at = value = 0
    while True:
        kind, yes, no, operand = steps[at]
        at += 1
        match kind:
            case 0x20:
                (value,) = struct.unpack_from("=I", data, operand)
            case 0x15:
                at += yes if value == operand else no
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


def _named(result: int) -> str | int:
    match result & 0xFFFF0000:
        case 0x7FFF0000:
            return ALLOW
        case 0x80000000:
            return KILL
        case 0x00050000:
            return result & 0xFFFF
    raise AssertionError(hex(result))


@EACH
def test_the_numbers_are_those_of_libseccomp(machine: str) -> None:
    """The recorded table was written by libseccomp; calls newer than it are not in it."""
    theirs = NUMBERS[machine]
    ours = ARCHITECTURES[machine].numbers
    assert len(ours) > 120
    assert {name: number for name, number in ours.items() if name != "fchmodat2"} == {
        name: theirs[name] for name in ours if name != "fchmodat2"
    }


def test_the_recorded_numbers_are_those_of_the_library_on_this_machine() -> None:
    found = ctypes.util.find_library("seccomp")
    if found is None:
        return  # the record stands for it; the container of the tests has it
    resolve = ctypes.CDLL(found).seccomp_syscall_resolve_name_arch
    for machine, architecture in ARCHITECTURES.items():
        code = ctypes.c_uint32(architecture.audit_code)
        for name, number in NUMBERS[machine].items():
            assert resolve(code, name.encode()) == number, (machine, name)


@EACH
def test_a_foreign_architecture_ends_the_process(machine: str) -> None:
    code = machine_named(machine).code
    for foreign in (0x40000003, 0x40000028, 0xC00000B7, 0xC000003E, 0):
        if foreign != ARCHITECTURES[machine].audit_code:
            assert answer(code, 39, foreign) == KILL


def test_the_second_table_of_x86_ends_the_process() -> None:
    machine = machine_named("x86_64")
    for number in (0x40000000, 0x40000000 + 39, 0x7FFFFFFF, -1):
        assert answer(machine.code, number, machine.architecture.audit_code) == KILL


@EACH
def test_a_call_nobody_has_judged_does_not_exist(machine: str) -> None:
    code, audit = machine_named(machine).code, ARCHITECTURES[machine].audit_code
    assert answer(code, HIGHEST_JUDGED + 1, audit) == ABSENT
    assert answer(code, 100_000, audit) == ABSENT
    assert answer(code, HIGHEST_JUDGED, audit) == REFUSE
    # The bit that on x86 means another table means nothing elsewhere.
    expected = KILL if ARCHITECTURES[machine].has_x32 else ABSENT
    assert answer(code, 0x40000001, audit) == expected


def _words(text: str) -> list[str]:
    return text.split()


DANGEROUS = _words("""
acct add_key bind bpf chown chroot clock_settime connect delete_module execve execveat
fanotify_init finit_module fsconfig fsmount fsopen init_module inotify_init1 io_uring_enter
io_uring_register io_uring_setup ioprio_set kcmp kexec_load keyctl landlock_add_rule
landlock_create_ruleset landlock_restrict_self linkat listen lookup_dcookie mbind memfd_create
memfd_secret migrate_pages mknodat mlock mlockall mount mount_setattr move_mount move_pages
mq_open msgget name_to_handle_at open_by_handle_at open_tree openat2 perf_event_open personality
pidfd_getfd pidfd_open pidfd_send_signal pivot_root pkey_mprotect process_madvise
process_vm_readv process_vm_writev ptrace quotactl reboot recvmsg remap_file_pages request_key
rt_sigqueueinfo rt_tgsigqueueinfo sched_setaffinity sched_setattr sched_setscheduler seccomp
semget sendmsg sendmmsg set_mempolicy setdomainname setfsuid setgid setgroups sethostname setns
setpgid setpriority setresuid setrlimit setsid setsockopt settimeofday setuid shmat shmget
socket splice swapon symlinkat syslog tee timer_create tkill umount2 unshare userfaultfd
vmsplice
""")
EVERYDAY = _words("""
brk close dup epoll_pwait exit_group fstat futex getcwd getdents64 getpid getrandom lseek
mkdirat munmap nanosleep openat pipe2 pread64 read readlinkat renameat rt_sigaction rt_sigreturn
statx unlinkat uname wait4 write
""")


@EACH
@pytest.mark.parametrize("name", DANGEROUS)
def test_a_dangerous_call_is_refused_whatever_its_arguments(machine: str, name: str) -> None:
    if name not in NUMBERS[machine]:
        return  # this architecture never had it
    asked = machine_named(machine)
    for arguments in ((), (1,) * 6, (2**64 - 1,) * 6, (OWN_PID,) * 6):
        assert asked.ask(name, *arguments) in (REFUSE, ABSENT)


@EACH
@pytest.mark.parametrize("name", EVERYDAY)
def test_an_everyday_call_is_allowed(machine: str, name: str) -> None:
    assert machine_named(machine).ask(name) == ALLOW


@EACH
def test_only_threads_are_cloned(machine: str) -> None:
    asked = machine_named(machine)
    assert asked.ask("clone", 0x3D0F00) == ALLOW  # what glibc asks for a thread
    for flags in (0, 17, 0x4111, 0x10000, 0x10100, 0x3D0F00 | 0x10000000, 0x3D0F00 | 0x20000):
        assert asked.ask("clone", flags) == REFUSE
    for flag in (0x80, 0x20000, 1 << 25, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30):
        assert asked.ask("clone", 0x3D0F00 | flag) == REFUSE
    # Nor one that shares less than all of this, descriptors among it.
    for flag in (0x100, 0x400, 0x800, 0x10000):
        assert asked.ask("clone", 0x3D0F00 & ~flag) == REFUSE
    assert asked.ask("clone3", 0x3D0F00) == ABSENT


@EACH
@pytest.mark.parametrize("name", ["kill", "tgkill"])
def test_a_worker_signals_itself_alone(machine: str, name: str) -> None:
    asked = machine_named(machine)
    assert asked.ask(name, OWN_PID) == ALLOW
    for pid in (0, 1, -1, OWN_PID + 1, -OWN_PID, 0xFFFFFFFF):
        assert asked.ask(name, pid) == REFUSE


@EACH
def test_memory_never_becomes_code(machine: str) -> None:
    asked = machine_named(machine)
    for protection in range(8):
        expected = REFUSE if protection & 4 else ALLOW
        assert asked.ask("mmap", 0, 4096, protection, 0x22) == expected
        assert asked.ask("mmap", 0, 4096, protection, 0x02, 5) == expected
        assert asked.ask("mprotect", 0, 4096, protection) == expected
    assert asked.ask("mprotect", 0, 4096, (1 << 32) | 4) == REFUSE


@EACH
def test_limits_are_read_and_only_the_callers(machine: str) -> None:
    asked = machine_named(machine)
    for pid in (0, OWN_PID):
        assert asked.ask("prlimit64", pid, 7, 0, 0x1000) == ALLOW
        assert asked.ask("prlimit64", pid, 7, 0x1000, 0) == REFUSE
        assert asked.ask("prlimit64", pid, 7, 1 << 32, 0) == REFUSE
    assert asked.ask("prlimit64", 1, 7, 0, 0x1000) == REFUSE


@EACH
def test_sockets_are_pairs_and_say_nothing_to_an_address(machine: str) -> None:
    asked = machine_named(machine)
    assert asked.ask("socketpair", 1, 1) == ALLOW
    for family in (0, 2, 10, 16, 38, 40):
        assert asked.ask("socketpair", family, 1) == REFUSE
        assert asked.ask("socket", family, 1) == REFUSE
    assert asked.ask("sendto", 3, 0x1000, 1, 0, 0, 0) == ALLOW
    for address in (1, 1 << 32, 0x7FFFFFFF0000):
        assert asked.ask("sendto", 3, 0x1000, 1, 0, address, 16) == REFUSE


@EACH
def test_codes_that_act_on_others_are_refused(machine: str) -> None:
    asked = machine_named(machine)
    assert asked.ask("ioctl", 1, 0x5401) == ALLOW
    for code in (0x5412, 0x541C, 0x5452, 0x8901, 0xC0045878, 0x40086602):
        assert asked.ask("ioctl", 1, code) == REFUSE
    for command in (1, 2, 3, 4, 1030):
        assert asked.ask("fcntl", 1, command) == ALLOW
    for command in (8, 10, 15, 1024, 1026, 1031, 1033):
        assert asked.ask("fcntl", 1, command) == REFUSE
    assert asked.ask("prctl", 15) == ALLOW
    for option in (1, 4, 22, 23, 24, 28, 35, 36, 38, 47, 53, 59, 0x59616D61):
        assert asked.ask("prctl", option) == REFUSE
    assert asked.ask("renameat2", 0, 0, 0, 0, 1) == ALLOW
    for flags in (2, 3, 4):
        assert asked.ask("renameat2", 0, 0, 0, 0, flags) == REFUSE


@EACH
def test_metadata_calls_are_answered_as_done_or_as_not_there(machine: str) -> None:
    asked = machine_named(machine)
    for name in ("fchmod", "fchmodat", "utimensat"):
        assert asked.ask(name) == 0
    for name in ("getxattr", "setxattr", "listxattr", "fallocate"):
        assert asked.ask(name) == errno.EOPNOTSUPP


@EACH
def test_truncating_by_path_waits_for_a_landlock_that_judges_it(machine: str) -> None:
    assert machine_named(machine).ask("truncate") == ALLOW
    old = machine_named(machine, FilterRules(may_truncate=False))
    assert old.ask("truncate") == REFUSE
    for name, place in (("openat", 2), ("open", 1)):
        if name in NUMBERS[machine]:
            for flags, expected in (
                (os.O_RDONLY, ALLOW),
                (os.O_WRONLY | os.O_TRUNC | os.O_CREAT, ALLOW),
                (os.O_RDWR | os.O_TRUNC, ALLOW),
                (os.O_RDONLY | os.O_TRUNC, REFUSE),
                (os.O_RDONLY | os.O_TRUNC | os.O_CLOEXEC, REFUSE),
                (os.O_WRONLY | os.O_RDWR | os.O_TRUNC, REFUSE),
            ):
                assert old.ask(name, *[0] * place, flags) == expected
                assert machine_named(machine).ask(name, *[0] * place, flags) == ALLOW


@EACH
def test_where_programs_may_be_executed_the_rest_stays_refused(machine: str) -> None:
    asked = machine_named(machine, FilterRules(may_execute=True, may_signal_group=True))
    assert asked.ask("execve") == ALLOW
    assert asked.ask("clone", 17) == ALLOW
    assert asked.ask("clone", 17 | 0x10000000) == REFUSE
    assert asked.ask("mmap", 0, 4096, 5, 0x02, 3) == ALLOW
    assert asked.ask("mmap", 0, 4096, 7, 0x22) == REFUSE
    assert asked.ask("mprotect", 0, 4096, 4) == REFUSE
    for name in ("setsid", "setpgid", "ptrace", "socket", "unshare", "io_uring_setup"):
        assert asked.ask(name) == REFUSE
    assert asked.ask("kill", OWN_PID + 1) == ALLOW  # Landlock keeps it among its own
    alone = machine_named(machine, FilterRules(may_execute=True))
    assert alone.ask("kill", 1) == REFUSE


@EACH
def test_a_worker_that_may_become_one_program_becomes_no_other(machine: str) -> None:
    asked = machine_named(machine, FilterRules(may_become=True))
    assert asked.ask("execveat", BECOMES, 1, 1, 1, 0x1000) == ALLOW
    assert asked.ask("execveat", 3, 1, 1, 1, 0x1000) == REFUSE
    assert asked.ask("execveat", BECOMES, 1, 1, 1, 0) == REFUSE
    assert asked.ask("execveat", 0xFFFFFF9C, 1, 1, 1, 0) == REFUSE
    for name in ("execve", "setsid", "ptrace", "socket", "memfd_create"):
        assert asked.ask(name) == REFUSE
    assert asked.ask("clone", 17) == REFUSE  # no process: the flags of fork
    assert asked.ask("mmap", 0, 4096, 5, 0x02, 3) == ALLOW  # its own file, to run
    assert asked.ask("mmap", 0, 4096, 7, 0x22) == REFUSE
    assert machine_named(machine).ask("execveat", BECOMES, 1, 1, 1, 0x1000) == REFUSE
    assert ExecLimits().descriptors < BECOMES


@EACH
def test_without_files_nothing_is_opened_for_writing_and_no_name_is_changed(machine: str) -> None:
    asked = machine_named(machine, FilterRules(may_become=True, may_use_files=False))
    assert asked.ask("execveat", BECOMES, 1, 1, 1, 0x1000) == ALLOW
    for flags, expected in (
        (os.O_RDONLY | os.O_CLOEXEC, ALLOW),
        (os.O_WRONLY, REFUSE),
        (os.O_RDWR, REFUSE),
        (os.O_RDONLY | os.O_CREAT, REFUSE),
        (os.O_RDONLY | os.O_TRUNC, REFUSE),
        (os.O_TMPFILE | os.O_WRONLY, REFUSE),
    ):
        assert asked.ask("openat", 0, 0, flags) == expected
    for name in ("unlinkat", "renameat", "renameat2", "mkdirat", "truncate", "ftruncate"):
        assert asked.ask(name) == REFUSE
    for name in ("socketpair", "sendto", "recvfrom", "getdents64", "pipe2", "dup", "wait4"):
        assert asked.ask(name) == REFUSE


@EACH
def test_without_files_and_without_a_program_to_become_nothing_is_opened_at_all(
    machine: str,
) -> None:
    asked = machine_named(machine, FilterRules(may_use_files=False, sees_links=False))
    for name, flags_at in (("openat", 2), ("open", 1)):
        if name in ARCHITECTURES[machine].numbers:
            words = [0] * flags_at
            for flags in (os.O_RDONLY, os.O_RDONLY | os.O_CLOEXEC, os.O_WRONLY, os.O_PATH):
                assert asked.ask(name, *words, flags) == REFUSE
    for name in ("openat2", "open_by_handle_at", "creat", "memfd_create", "execve", "execveat"):
        if name in ARCHITECTURES[machine].numbers:
            assert asked.ask(name) == REFUSE
    for name in ("unlinkat", "renameat", "mkdirat", "truncate", "getdents64", "statfs", "chdir"):
        assert asked.ask(name) == REFUSE
    for name in ("eventfd2", "epoll_create1", "epoll_ctl", "epoll_pwait"):
        assert asked.ask(name) == ALLOW


@EACH
def test_who_is_to_see_no_links_is_told_that_there_are_none(machine: str) -> None:
    blind = machine_named(machine, FilterRules(sees_links=False))
    for name in ("readlink", "readlinkat"):
        if name in NUMBERS[machine] and name in ARCHITECTURES[machine].numbers:
            assert machine_named(machine).ask(name) == ALLOW
            assert blind.ask(name) == errno.EINVAL


@EACH
def test_the_program_is_small_enough_for_the_kernel(machine: str) -> None:
    assert len(machine_named(machine).code) // 8 < 4096
    assert os.uname().machine in ARCHITECTURES
