"""Files without a name: each is counted once, wherever it is kept, and no other file is."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.sandbox.execution import ExecLimits
from app.sandbox.removed_files import Holder, _threads, is_over_quota, removed_bytes
from tests.support.escape_scene import worker_account

ROOT = Path(__file__).parents[3]
FILE_BYTES = 100_000
_HEAD = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
def made(size, name="f"):
    opened = os.open(name, os.O_CREAT | os.O_RDWR | os.O_TRUNC)
    os.truncate(opened, size)
    return opened
def removed(size, name="f"):
    opened = made(size, name)
    os.unlink(name)
    return opened
def mapped(opened):  # Python's own `mmap` keeps a descriptor of its own
    assert libc.mmap(None, 1, 1, 1, opened, 0) not in (None, ctypes.c_void_p(-1).value)
    os.close(opened)
"""
_TAIL = """
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    made.mkdir()
    return made


@contextmanager
def holding(place: Path, code: str, *, forks: bool = False) -> Iterator[Holder]:
    """A process that holds what `code` left it, at its end of a pipe until it was looked at."""
    limits = ExecLimits(file_bytes=FILE_BYTES, workspace_bytes=10_000, descriptors=32)
    opened = os.open(place, os.O_PATH | os.O_DIRECTORY)
    with subprocess.Popen(
        [sys.executable, "-c", _HEAD + textwrap.dedent(code) + _TAIL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=place,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield Holder(pid=process.pid, workspace_fd=opened, limits=limits, forks=forks)
        finally:
            process.communicate()
            os.close(opened)


def _held(place: Path, code: str, *, forks: bool = False) -> int:
    with holding(place, code, forks=forks) as holder:
        return removed_bytes(holder)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("made(3000)", 0),
        ("removed(3000)", 3000),
        ("removed(3000); removed(500)", 3500),
        ("os.truncate(os.open('.', os.O_TMPFILE | os.O_RDWR), 700)", 700),
        ("made(3000); os.rename(made(1, 'g') and 'g', 'f')", 3000),  # took its name from it
        ("os.dup(removed(3000))", 3000),
        ("os.dup2(removed(3000), 40); os.close(3)", 0),  # a worker has none above its limit
        ("os.pipe(); os.open('.', os.O_RDONLY)", 0),
    ],
)
def test_what_descriptors_hold_is_counted_by_its_size(
    place: Path, code: str, expected: int
) -> None:
    assert _held(place, code) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("mapped(made(3000))", 0),
        ("mapped(removed(3000))", FILE_BYTES),
        ("f = removed(3000); mapped(os.dup(f)); mapped(f)", FILE_BYTES),
        ("f = removed(3000); mapped(os.dup(f))", 3000),  # and its size is known
        ("mapped(removed(3000)); mapped(removed(3000))", 2 * FILE_BYTES),
        ("mapped(removed(3000, 'a\\rb\\nc d'))", FILE_BYTES),
        ("mapped(removed(3000, '../outside')); mapped(removed(3000, '../workspace-too'))", 0),
        ("import mmap; shared = mmap.mmap(-1, 3000); mapped(os.memfd_create('f'))", 0),
    ],
)
def test_what_is_only_mapped_counts_as_the_most_a_file_can_be(
    place: Path, code: str, expected: int
) -> None:
    assert _held(place, code) == expected


def test_a_workspace_whose_own_path_has_a_line_end_is_recognized(tmp_path: Path) -> None:
    place = tmp_path / "a\nb"
    place.mkdir()
    assert _held(place, "mapped(removed(3000))") == FILE_BYTES


def test_the_first_thread_may_be_dead(place: Path) -> None:
    code = """
        import threading
        removed(3000)
        leader = os.getpid()
        def until_read():
            while b"State:\\tZ" not in open(f"/proc/{leader}/task/{leader}/status", "rb").read():
                time.sleep(0.001)
            print("ready", flush=True)
            sys.stdin.read()
            os._exit(0)
        threading.Thread(target=until_read).start()
        ctypes.CDLL(None).syscall({NUMBER}, 0)
    """
    number = {"x86_64": "60", "aarch64": "93"}[os.uname().machine]
    assert _held(place, code.replace("{NUMBER}", number)) == 3000


GROUPS = {
    "child": (
        "if os.fork() == 0:\n removed(3000); os.write(told, b'x')\n sys.stdin.read(); os._exit(0)"
    ),
    "grandchild": (
        "if os.fork() == 0:\n if os.fork() == 0: removed(3000); os.write(told, b'x')\n"
        " sys.stdin.read(); os._exit(0)"
    ),
    "stranger": (
        "if os.fork() == 0:\n os.setsid(); removed(3000); os.write(told, b'x')\n"
        " sys.stdin.read(); os._exit(0)"
    ),
}


@pytest.mark.parametrize(
    ("name", "expected"), [("child", 3000), ("grandchild", 3000), ("stranger", 0)]
)
def test_of_a_group_every_process_is_counted_and_of_one_that_cannot_fork_only_itself(
    place: Path, name: str, expected: int
) -> None:
    code = f"heard, told = os.pipe()\n{GROUPS[name]}\nos.read(heard, 1)"
    assert _held(place, code, forks=True) == expected
    assert _held(place, code) == 0


def test_what_a_group_inherited_is_counted_once(place: Path) -> None:
    code = "removed(3000)\nif os.fork() == 0: sys.stdin.read(); os._exit(0)"
    assert _held(place, code, forks=True) == 3000


def test_of_many_threads_some_are_looked_at(place: Path) -> None:
    """More are no use, and a program could have thousands."""
    code = """
        import threading
        for _ in range(20):
            threading.Thread(target=sys.stdin.read, daemon=True).start()
    """
    with holding(place, code) as holder:
        assert len(os.listdir(f"/proc/{holder.pid}/task")) == 21  # noqa: PTH208 - names alone
        assert len(list(_threads(holder.pid))) == 8


def test_with_removed_files_the_quota_is_one(place: Path) -> None:
    named = place / "named"
    named.touch()
    os.truncate(named, 6000)
    with holding(place, "removed(4000)") as holder:
        assert not is_over_quota(holder, has_ended=False)
    with holding(place, "removed(4001)") as holder:
        assert is_over_quota(holder, has_ended=False)
        assert not is_over_quota(
            holder, has_ended=True
        )  # then nobody holds it, whoever has its pid
        os.truncate(named, 10_001)
        assert is_over_quota(holder, has_ended=True)


def test_a_process_that_is_gone_holds_nothing(place: Path) -> None:
    with holding(place, "removed(10_001)") as holder:
        pass
    opened = os.open(place, os.O_PATH | os.O_DIRECTORY)
    try:
        left = Holder(pid=holder.pid, workspace_fd=opened, limits=holder.limits, forks=True)
        assert removed_bytes(left) == 0
    finally:
        os.close(opened)


def test_what_cannot_be_counted_is_too_much(place: Path) -> None:
    opened = os.open(place, os.O_PATH | os.O_DIRECTORY)
    os.close(opened)
    holder = Holder(pid=os.getpid(), workspace_fd=opened, limits=ExecLimits())
    assert is_over_quota(holder, has_ended=False)


def _trial(*, hides: bool) -> str:
    """What a zygote's trial says where a worker can, or cannot, be seen by it."""
    account = worker_account()
    drop = "" if account is None else f"WorkerAccount(uid={account.uid}, gid={account.gid})"
    program = f"""
        import sys
        sys.path[:0] = {[str(ROOT), *sys.path]!r}
        from app.sandbox.confinement import build_walls, drop_power
        from app.sandbox.confinement_trial import tried
        from app.sandbox.kernel_calls import LinuxKernel
        from app.sandbox.sandbox_profile import SandboxProfile, WorkerAccount
        class Kernel(LinuxKernel):
            def prctl(self, option, argument=0):
                is_hidden = {hides} and (option, argument) == (4, 1)
                return 0 if is_hidden else super().prctl(option, argument)
        kernel = Kernel()
        drop_power(kernel, {drop or None})
        kernel.prctl(4, 0)
        print(tried(kernel, build_walls(kernel, SandboxProfile(), ())))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.strip()


def test_a_zygote_that_cannot_see_what_its_workers_hold_has_none() -> None:
    assert _trial(hides=False) == ""
    assert "could not be counted" in _trial(hides=True)
