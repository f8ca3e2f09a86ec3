"""Every call that a container runtime lets a pod make was judged for workers, by name.

When the recorded profile gains a call (tests/pod/runtime_default.toml), this fails until somebody
has decided: allow it in the filter, or write here why not. Refusing is what the filter does anyway;
what must not happen is that nobody has looked.
"""

import tomllib
from pathlib import Path

import pytest

from app.sandbox import seccomp
from app.sandbox.seccomp import FilterRules
from app.sandbox.syscall_tables import ARCHITECTURES, HIGHEST_JUDGED
from tests.support.escape_scene import NUMBERS
from tests.unit.sandbox.test_seccomp import ABSENT, EACH, REFUSE, machine_named

PROFILE = Path(__file__).parents[2] / "pod" / "runtime_default.toml"
# Refused to every worker, and why.
REFUSED = {
    "the network": """
accept accept4 bind connect listen recvmmsg recvmsg sendmmsg sendmsg setsockopt
""",
    "whose a process or a file is": """
capget capset chown fchown fchownat lchown setfsgid setfsuid setgid setgroups setregid setresgid
setresuid setreuid setuid
""",
    "other processes": """
get_robust_list getpgid getpriority getsid ioprio_get ioprio_set pidfd_open pidfd_send_signal
process_mrelease process_vm_readv process_vm_writev ptrace rt_sigqueueinfo rt_tgsigqueueinfo
sched_get_priority_max sched_get_priority_min sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler setpgid
setpriority setrlimit setsid tkill
""",
    "names that lead elsewhere, devices, and opening by what the filter cannot read": """
link linkat mknod mknodat name_to_handle_at openat2 symlink symlinkat
""",
    "talk between processes": """
ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv
msgsnd semctl semget semop semtimedop shmat shmctl shmdt shmget
""",
    "memory and pipes in ways that have been faulty": """
cachestat map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall
modify_ldt mseal munlock munlockall pkey_alloc pkey_free pkey_mprotect readahead remap_file_pages
splice tee vmsplice
""",
    "watching what others do": """
fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
""",
    "clocks and timers beyond a worker's need": """
adjtimex clock_adjtime timer_create timer_delete timer_getoverrun timer_gettime timer_settime
""",
    "a second way to read and write": """
io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit
""",
    "the walls themselves": """
landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp
""",
    "disks as a whole": "listmount statmount sync sync_file_range syncfs",
    "too old or too new for any library of a worker": """
epoll_ctl_old epoll_wait_old futex_requeue futex_wait futex_wake get_thread_area getxattrat
listxattrat removexattrat set_thread_area setxattrat uretprobe
""",
}


def _profile() -> set[str]:
    told = tomllib.loads(PROFILE.read_text(encoding="utf-8"))
    return set(told["allowed"].split()) | {"clone", "clone3", "socket", "personality"}


def _refused() -> list[str]:
    return [name for names in REFUSED.values() for name in names.split()]


_RULES = (
    FilterRules(),
    FilterRules(may_truncate=False),
    FilterRules(may_signal_group=True, may_execute=True),
)


def _answered() -> set[str]:
    """What the filter has a word on: allowed, answered as done or as not there, or judged."""
    machine = "x86_64"  # has every call that the other one has
    judged = {name for rules in _RULES for name, _ in seccomp._judged(rules)}
    return judged | {
        name
        for rules in _RULES
        for name in _profile() & NUMBERS[machine].keys()
        if machine_named(machine, rules).ask(name) != REFUSE
    }


def test_no_call_of_the_runtimes_profile_is_unjudged() -> None:
    # These two are let through by the runtime for some arguments, and to no worker.
    judged = _answered() | set(_refused()) | {"socket", "personality"}
    assert sorted(_profile() - judged) == []


def test_what_is_refused_is_named_once_and_is_not_also_answered() -> None:
    refused = _refused()
    assert len(set(refused)) == len(refused)
    assert set(refused) & _answered() == set()
    assert set(refused) <= _profile(), "no runtime allows it any more: take it off the list"


@EACH
@pytest.mark.parametrize("name", sorted([*_refused(), "socket", "personality"]))
def test_what_is_named_as_refused_is_refused(machine: str, name: str) -> None:
    if name not in NUMBERS[machine]:
        return  # this architecture never had it, or libseccomp did not know it when it was recorded
    asked = machine_named(machine)
    for arguments in ((), (1,) * 6, (2**64 - 1,) * 6):
        assert asked.ask(name, *arguments) in (REFUSE, ABSENT)


@EACH
def test_no_number_that_is_known_today_lies_above_what_was_judged(machine: str) -> None:
    known = [*NUMBERS[machine].values(), *ARCHITECTURES[machine].numbers.values()]
    assert max(known) <= HIGHEST_JUDGED
