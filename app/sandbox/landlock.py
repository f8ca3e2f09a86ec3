"""Limits the calling thread, for good, to the directories it is given: the kernel's Landlock.

Source: `linux/landlock.h` and the kernel's userspace-api/landlock page. Everything that this
kernel's ABI can control is controlled; what no rule grants is refused.

Threat: Privilege escalation via tool calls
"""

import ctypes
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from app.sandbox.kernel_calls import Kernel

EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIRECTORY = 1 << 3
REMOVE_DIRECTORY = 1 << 4
REMOVE_FILE = 1 << 5
MAKE_DIRECTORY = 1 << 7
MAKE_REGULAR = 1 << 8
REFER = 1 << 13
TRUNCATE = 1 << 14
IOCTL_DEVICE = 1 << 15

READ = READ_FILE | READ_DIRECTORY
# No links, sockets, pipes or devices are made in a workspace, and nothing of it is executed.
WORKSPACE = (
    READ
    | WRITE_FILE
    | REMOVE_DIRECTORY
    | REMOVE_FILE
    | MAKE_DIRECTORY
    | MAKE_REGULAR
    | REFER
    | TRUNCATE
)
DEVICE = READ_FILE | WRITE_FILE
_FOR_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEVICE

_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1
_NETWORK_BIND_AND_CONNECT_TCP = 0b11
_SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11
# The first ABI that knows each of these; sizes are those of the kernel's `landlock_ruleset_attr`.
_ABI_REFER, ABI_TRUNCATE, _ABI_NETWORK, _ABI_IOCTL, ABI_SCOPE = 2, 3, 4, 5, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRule:
    """What may be done with what a held descriptor stands for, and with all beneath it."""

    descriptor: int
    is_directory: bool
    access: int


def landlock_abi(kernel: Kernel) -> int:
    """The ABI this kernel offers, at least 1. OSError: ENOSYS, EOPNOTSUPP or EPERM when none."""
    return kernel.call("landlock_create_ruleset", 0, 0, _VERSION_FLAG)


def handled_access(abi: int) -> int:
    """Every right over files that this ABI can take away."""
    handled = (1 << 13) - 1
    for since, right in ((_ABI_REFER, REFER), (ABI_TRUNCATE, TRUNCATE), (_ABI_IOCTL, IOCTL_DEVICE)):
        handled |= right if abi >= since else 0
    return handled


def restrict(kernel: Kernel, abi: int, rules: Sequence[PathRule]) -> None:
    """Leave this thread only what `rules` grant. Needs no_new_privs; OSError when it fails.

    Call it before there is a second thread. It cannot be taken back.
    """
    restrict_by(kernel, abi, new_ruleset(kernel, abi, rules), ())


def new_ruleset(kernel: Kernel, abi: int, rules: Sequence[PathRule]) -> int:
    """A descriptor that holds `rules`; it limits nobody yet. OSError."""
    handled = handled_access(abi)
    fields = [handled]
    if abi >= _ABI_NETWORK:
        fields.append(_NETWORK_BIND_AND_CONNECT_TCP)
    if abi >= ABI_SCOPE:
        fields.append(_SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS)
    attributes = ctypes.create_string_buffer(struct.pack(f"={len(fields)}Q", *fields))
    ruleset = kernel.call(
        "landlock_create_ruleset", ctypes.addressof(attributes), 8 * len(fields), 0
    )
    try:
        _add(kernel, abi, ruleset, rules)
    except OSError:
        os.close(ruleset)
        raise
    return ruleset


def restrict_by(kernel: Kernel, abi: int, ruleset: int, more: Sequence[PathRule]) -> None:
    """As `restrict`, by what `ruleset` holds and `more`; its descriptor is closed."""
    try:
        _add(kernel, abi, ruleset, more)
        kernel.call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def _add(kernel: Kernel, abi: int, ruleset: int, rules: Sequence[PathRule]) -> None:
    handled = handled_access(abi)
    row = ctypes.create_string_buffer(12)  # `landlock_path_beneath_attr`, which is packed
    for rule in rules:
        access = rule.access & handled & (-1 if rule.is_directory else _FOR_FILES)
        struct.pack_into("=Qi", row, 0, access, rule.descriptor)
        kernel.call("landlock_add_rule", ruleset, _RULE_PATH_BENEATH, ctypes.addressof(row), 0)
