"""Our Landlock rights and sizes are those of an independent binding, and no right is forgotten."""

import errno
import struct
from collections.abc import Mapping

import landlockpy
import pytest

from app.sandbox import landlock
from app.sandbox.kernel_calls import LinuxKernel
from app.sandbox.syscall_tables import Architecture

THEIRS: Mapping[str, landlockpy.AccessFS] = {
    "EXECUTE": landlockpy.AccessFS.EXECUTE,
    "WRITE_FILE": landlockpy.AccessFS.WRITE_FILE,
    "READ_FILE": landlockpy.AccessFS.READ_FILE,
    "READ_DIRECTORY": landlockpy.AccessFS.READ_DIR,
    "REMOVE_DIRECTORY": landlockpy.AccessFS.REMOVE_DIR,
    "REMOVE_FILE": landlockpy.AccessFS.REMOVE_FILE,
    "MAKE_DIRECTORY": landlockpy.AccessFS.MAKE_DIR,
    "MAKE_REGULAR": landlockpy.AccessFS.MAKE_REG,
    "REFER": landlockpy.AccessFS.REFER,
    "TRUNCATE": landlockpy.AccessFS.TRUNCATE,
    "IOCTL_DEVICE": landlockpy.AccessFS.IOCTL_DEV,
}
FORBIDDEN = (
    landlockpy.AccessFS.EXECUTE
    | landlockpy.AccessFS.MAKE_SYM
    | landlockpy.AccessFS.MAKE_SOCK
    | landlockpy.AccessFS.MAKE_FIFO
    | landlockpy.AccessFS.MAKE_CHAR
    | landlockpy.AccessFS.MAKE_BLOCK
    | landlockpy.AccessFS.IOCTL_DEV
)


class RecordingKernel:
    """Answers as a kernel of one ABI and keeps what it was asked."""

    architecture: Architecture | None = None

    def __init__(self, abi: int) -> None:
        self.abi = abi
        self.asked: list[tuple[str, tuple[int, ...]]] = []

    def call(self, name: str, *arguments: int) -> int:
        self.asked.append((name, arguments))
        if name == "landlock_create_ruleset" and arguments[2] == 1:
            return self.abi
        if name == "landlock_create_ruleset":
            import os

            return os.open("/dev/null", os.O_RDONLY)
        return 0

    def prctl(self, option: int, argument: int = 0) -> int:
        raise AssertionError((option, argument))


@pytest.mark.parametrize("name", sorted(THEIRS))
def test_a_right_has_the_bit_that_the_other_binding_gives_it(name: str) -> None:
    assert getattr(landlock, name) == int(THEIRS[name])


@pytest.mark.parametrize("abi", range(1, 8))
def test_every_right_that_an_abi_can_take_away_is_taken(abi: int) -> None:
    assert landlock.handled_access(abi) == int(landlockpy.fs_for_abi(abi))


def test_a_workspace_grants_no_links_sockets_devices_or_execution() -> None:
    assert landlock.WORKSPACE & int(FORBIDDEN) == 0
    assert landlock.READ & int(FORBIDDEN) == 0
    assert landlock.READ & landlock.WRITE_FILE == 0


@pytest.mark.parametrize(("abi", "size"), [(1, 8), (3, 8), (4, 16), (5, 16), (6, 24), (7, 24)])
def test_a_ruleset_has_the_size_its_abi_knows(abi: int, size: int) -> None:
    kernel = RecordingKernel(abi)
    landlock.restrict(kernel, abi, ())
    created = [arguments for name, arguments in kernel.asked if name.endswith("create_ruleset")]
    assert [arguments[1] for arguments in created] == [size]
    assert [name for name, _ in kernel.asked][-1] == "landlock_restrict_self"


def test_network_and_scopes_are_all_taken_where_they_exist() -> None:
    assert int(landlockpy.net_for_abi(6)) == 0b11
    assert int(landlockpy.scope_for_abi(6)) == 0b11


def test_both_bindings_see_the_same_kernel() -> None:
    assert landlock.landlock_abi(LinuxKernel()) == landlockpy.abi_version()


def test_a_call_that_the_machine_has_no_number_for_does_not_exist() -> None:
    with pytest.raises(OSError, match="not implemented") as refused:
        LinuxKernel().call("no_such_call")
    assert refused.value.errno == errno.ENOSYS
    assert struct.calcsize("=Qi") == 12
