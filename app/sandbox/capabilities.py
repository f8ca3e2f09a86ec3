"""Finds out, once at start, what this machine offers to confine a worker with.

Asking changes nothing in the process. An answer of EPERM counts as absent: a container runtime
refuses what it does not know.

Threat: Privilege escalation via tool calls
"""

import errno
import os
from dataclasses import dataclass

from app.sandbox.confinement import held_capabilities
from app.sandbox.kernel_calls import (
    PR_GET_DUMPABLE,
    PR_GET_NO_NEW_PRIVS,
    PR_GET_SECCOMP,
    Kernel,
)
from app.sandbox.landlock import landlock_abi
from app.sandbox.openat2 import HOLD_DIRECTORY, Opener, open_by_openat2

_GET_ACTION_AVAILABLE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Whether the kernel offers one thing; `code` is the errno it answered when it does not."""

    value: int
    code: int | None = None

    @property
    def seen(self) -> str:
        """The answer in words."""
        return "offered" if self.code is None else errno.errorcode.get(self.code, str(self.code))


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What was found. `landlock.value` is the ABI, 0 when there is none."""

    architecture: str
    is_known_architecture: bool
    no_new_privs: Offer
    seccomp: Offer
    landlock: Offer
    openat2: Offer
    is_dumpable: bool
    uid: int
    held_capabilities: int
    is_root_read_only: bool

    def gap(self, *, needs_landlock: bool = True) -> str | None:
        """The first thing that a confined worker needs and this machine lacks, as a sentence."""
        if not self.is_known_architecture:
            return f"the system calls of {self.architecture} are not known to the sandbox"
        for name, offer in (("no_new_privs", self.no_new_privs), ("seccomp", self.seccomp)):
            if not offer.value:
                return f"the kernel offers no {name} ({offer.seen})"
        if needs_landlock and not self.landlock.value:
            return (
                f"the kernel offers no Landlock ({self.landlock.seen}); enable it on the node "
                "(lsm=...,landlock) or use a container runtime that allows it"
            )
        return None


def probe(kernel: Kernel, *, opener: Opener = open_by_openat2) -> Capabilities:
    """Ask for everything once. Never raises for what is missing."""
    return Capabilities(
        architecture=os.uname().machine,
        is_known_architecture=kernel.architecture is not None,
        no_new_privs=_no_new_privs(kernel),
        seccomp=_seccomp(kernel),
        landlock=_landlock(kernel),
        openat2=_openat2(opener),
        is_dumpable=_is_dumpable(kernel),
        uid=os.geteuid(),
        held_capabilities=_held(kernel),
        is_root_read_only=bool(os.statvfs("/").f_flag & os.ST_RDONLY),
    )


def _no_new_privs(kernel: Kernel) -> Offer:
    try:
        kernel.prctl(PR_GET_NO_NEW_PRIVS)
    except OSError as refused:
        return Offer(value=0, code=refused.errno)
    return Offer(value=1)


def _seccomp(kernel: Kernel) -> Offer:
    """Whether filters exist; that one can be loaded is proved by every worker."""
    try:
        kernel.prctl(PR_GET_SECCOMP)
        # A null pointer instead of an action: EFAULT comes only from a kernel with filters.
        kernel.call("seccomp", _GET_ACTION_AVAILABLE, 0, 0)
    except OSError as refused:
        if refused.errno != errno.EFAULT:
            return Offer(value=0, code=refused.errno)
    return Offer(value=1)


def _landlock(kernel: Kernel) -> Offer:
    try:
        return Offer(value=landlock_abi(kernel))
    except OSError as refused:
        return Offer(value=0, code=refused.errno)


def _openat2(opener: Opener) -> Offer:
    root = os.open("/", HOLD_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(opener(root, (), HOLD_DIRECTORY, 0))
    except OSError as refused:
        return Offer(value=0, code=refused.errno)
    finally:
        os.close(root)
    return Offer(value=1)


def _is_dumpable(kernel: Kernel) -> bool:
    try:
        return kernel.prctl(PR_GET_DUMPABLE) != 0
    except OSError:
        return True


def _held(kernel: Kernel) -> int:
    try:
        return held_capabilities(kernel)
    except OSError:
        return -1
