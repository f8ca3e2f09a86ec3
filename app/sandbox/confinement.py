"""Confines the calling process for good: no new power, Landlock, limits, seccomp; all or an error.

The order matters: the filter forbids what the steps before it need. There is no partial success:
whoever gets a ConfinementError must end without running anything.

Threat: Privilege escalation via tool calls
"""

import ctypes
import os
import resource
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from app.domain.errors import ConfinementError
from app.domain.sandbox_mode import SandboxMode
from app.sandbox.execution import ExecLimits
from app.sandbox.kernel_calls import (
    PR_CAPBSET_DROP,
    PR_GET_NO_NEW_PRIVS,
    PR_GET_SECCOMP,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    Kernel,
)
from app.sandbox.landlock import (
    ABI_SCOPE,
    ABI_TRUNCATE,
    WORKSPACE,
    PathRule,
    landlock_abi,
    new_ruleset,
    restrict_by,
)
from app.sandbox.sandbox_profile import SandboxProfile, WorkerAccount
from app.sandbox.seccomp import MODE_FILTER, FilterProgram, FilterRules, build_filter, load_filter

_CAPABILITY_VERSION = 0x20080522
_LAST_CAPABILITY = 63
_STACK_BYTES = 8 * 1024 * 1024
# Of the account's, whoever started them: no program of a list needs more, and a bomb stops there.
MOST_PROCESSES = 256
# Not 0: where the kernel pipes cores to a program, 0 limits nothing and 1 does (`fs/coredump.c`).
_NO_CORE_BYTES = 1
_CPU_GRACE_SECONDS = 1  # a program that catches SIGXCPU is killed this much later


@dataclass(frozen=True, slots=True, kw_only=True)
class Walls:
    """What is prepared once and applied in every worker: the filter and the readable places.

    `abi` 0: this kernel has no Landlock, and the engine is one that may run without.
    `has_workspace`: without files the workspace is no more to be reached than any other place.
    """

    abi: int
    program: FilterProgram
    readable: tuple[PathRule, ...]
    may_fork: bool = False
    has_workspace: bool = True

    @property
    def sees_files(self) -> bool:
        """Whether a worker has files at all: then what it holds of them is counted."""
        return self.has_workspace and self.abi > 0


@contextmanager
def _layer(name: str) -> Iterator[None]:
    """Whatever the kernel says becomes a ConfinementError that names the layer and the code."""
    try:
        yield
    except (OSError, ValueError) as refused:
        code = refused.errno if isinstance(refused, OSError) else None
        raise ConfinementError(f"{name} could not be applied (errno {code})") from None


def drop_power(kernel: Kernel, account: WorkerAccount | None) -> None:
    """Become the account when one is given, and give up every capability. ConfinementError."""
    with _layer("the change of account"):
        if account is not None:
            for capability in range(_LAST_CAPABILITY + 1):
                try:
                    kernel.prctl(PR_CAPBSET_DROP, capability)
                except OSError:
                    break  # behind the last one that this kernel knows
            os.setgroups([])
            os.setresgid(account.gid, account.gid, account.gid)
            os.setresuid(account.uid, account.uid, account.uid)
        header, data = _capability_buffers()
        kernel.call("capset", ctypes.addressof(header), ctypes.addressof(data))


def _capability_buffers() -> tuple[ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_char]]:
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION, 0), 8)
    return header, ctypes.create_string_buffer(24)


def held_capabilities(kernel: Kernel) -> int:
    """The effective, permitted and inheritable capabilities of this process, or-ed; 0 is none."""
    header, data = _capability_buffers()
    kernel.call("capget", ctypes.addressof(header), ctypes.addressof(data))
    low, high = struct.unpack("=6I", data.raw)[:3], struct.unpack("=6I", data.raw)[3:]
    return int(low[0] | low[1] | low[2]) | int(high[0] | high[1] | high[2]) << 32


def build_walls(
    kernel: Kernel,
    profile: SandboxProfile,
    readable: Sequence[PathRule],
    *,
    may_become: bool = False,
    needs_landlock: bool = True,
) -> Walls | None:
    """What `confine` needs, made once; None when the mode is off. ConfinementError.

    Who does not need Landlock gets it all the same where it is, and no files anywhere.
    """
    match profile.mode:
        case SandboxMode.OFF_UNSAFE:
            return None
        case SandboxMode.STRICT:
            pass
    architecture = kernel.architecture
    if architecture is None:
        raise ConfinementError("there is no system call table for this machine")
    with _layer("Landlock"):
        abi = _abi(kernel, is_needed=needs_landlock)
    rules = FilterRules(
        may_execute=bool(profile.executable),
        may_signal_group=bool(profile.executable) and abi >= ABI_SCOPE,
        sees_links=profile.sees_links,
        may_truncate=abi >= ABI_TRUNCATE,
        may_become=may_become,
        may_use_files=needs_landlock,
    )
    return Walls(
        abi=abi,
        program=build_filter(architecture, rules),
        readable=tuple(readable),
        may_fork=rules.may_execute,
        has_workspace=needs_landlock,
    )


def _abi(kernel: Kernel, *, is_needed: bool) -> int:
    try:
        return landlock_abi(kernel)
    except OSError:
        if is_needed:
            raise
        return 0


def ruleset_of(kernel: Kernel, walls: Walls | None) -> int | None:
    """What of Landlock can be made before the workspace is known, as a descriptor; or None.

    It limits nobody before `confine` applies it. ConfinementError.
    """
    if walls is None or not walls.abi:
        return None
    with _layer("Landlock"):
        return new_ruleset(kernel, walls.abi, walls.readable)


def confine(
    kernel: Kernel,
    walls: Walls | None,
    *,
    workspace_fd: int,
    limits: ExecLimits,
    ruleset: int | None = None,
) -> None:
    """Apply every layer to this process, which must have one thread. ConfinementError.

    `ruleset` is what `ruleset_of` made with the same walls; without it one is made here.
    Without walls (`off-unsafe`) only no_new_privs and the limits are applied.
    """
    with _layer("no_new_privs"):
        kernel.prctl(PR_SET_NO_NEW_PRIVS, 1)
        if kernel.prctl(PR_GET_NO_NEW_PRIVS) != 1:
            raise ConfinementError("no_new_privs did not hold")
    if walls is None:
        with _layer("the resource limits"):
            _apply_limits(limits)
        return
    with _layer("the check of power"):
        if 0 in os.getresuid() or held_capabilities(kernel):
            raise ConfinementError("the worker still has power: it is root or has capabilities")
    if walls.abi:
        with _layer("Landlock"):
            workspace = PathRule(descriptor=workspace_fd, is_directory=True, access=WORKSPACE)
            own = (workspace,) if walls.has_workspace else ()
            if ruleset is None:
                ruleset = new_ruleset(kernel, walls.abi, walls.readable)
            restrict_by(kernel, walls.abi, ruleset, own)
    if walls.sees_files:
        # So that the zygote sees what it holds (`removed_files`). No other worker does: Landlock
        # lets none look at a process outside its own rules, or into `/proc`.
        with _layer("the view of removed files"):
            kernel.prctl(PR_SET_DUMPABLE, 1)
    with _layer("the resource limits"):  # after Landlock, which needs a descriptor
        _apply_limits(limits)
        if walls.may_fork:
            _lower(resource.RLIMIT_NPROC, MOST_PROCESSES, MOST_PROCESSES)
    with _layer("seccomp"):
        load_filter(kernel, walls.program, os.getpid())
        if kernel.prctl(PR_GET_SECCOMP) != MODE_FILTER:
            raise ConfinementError("the filter did not hold")


def _apply_limits(limits: ExecLimits) -> None:
    cpu = limits.cpu_seconds
    for kind, soft, hard in (
        (resource.RLIMIT_CORE, _NO_CORE_BYTES, _NO_CORE_BYTES),
        (resource.RLIMIT_CPU, cpu, cpu + _CPU_GRACE_SECONDS),
        (resource.RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.descriptors, limits.descriptors),
        (resource.RLIMIT_STACK, _STACK_BYTES, _STACK_BYTES),
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
        (resource.RLIMIT_AS, limits.memory_bytes, limits.memory_bytes),
    ):
        _lower(kind, soft, hard)


def _lower(kind: int, soft: int, hard: int) -> None:
    ceiling = resource.getrlimit(kind)[1]
    if ceiling != resource.RLIM_INFINITY:  # a lower limit from outside stays
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(kind, (soft, hard))
