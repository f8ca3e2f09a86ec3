"""The two ways to open beneath a directory keep one promise, and the second takes over for real."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.sandbox.openat2 import Opener, open_beneath, open_by_openat2, open_by_walk

BOTH = pytest.mark.parametrize("opener", [open_by_openat2, open_by_walk])


def _open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@BOTH
def test_a_file_below_is_opened_close_on_exec(tmp_path: Path, opener: Opener) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("inside")
    held = os.open(tmp_path, os.O_PATH)
    opened = opener(held, ("a", "b", "c"), os.O_RDONLY, 0)
    assert os.read(opened, 20) == b"inside"
    assert os.get_inheritable(opened) is False
    os.close(opened)
    os.close(held)


@BOTH
@pytest.mark.parametrize("bad", ["..", ".", "", "a/b", "/etc", "a\0b"])
def test_a_component_that_is_not_one_name_is_refused(
    tmp_path: Path, opener: Opener, bad: str
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").touch()
    held = os.open(tmp_path / "a", os.O_PATH)
    for parts in ((bad,), ("b", bad), (bad, "b")):
        with pytest.raises(OSError, match="Invalid argument"):
            os.close(opener(held, parts, os.O_RDONLY, 0))
    os.close(held)


@BOTH
def test_no_link_is_followed_wherever_it_stands(tmp_path: Path, opener: Opener) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "file").touch()
    (tmp_path / "to-dir").symlink_to("dir")
    (tmp_path / "dir" / "to-file").symlink_to("file")
    held = os.open(tmp_path, os.O_PATH)
    for parts in (("to-dir", "file"), ("dir", "to-file"), ("to-dir",)):
        with pytest.raises(OSError, match=r"link|directory") as refused:
            os.close(opener(held, parts, os.O_RDONLY, 0))
        assert refused.value.errno in (errno.ELOOP, errno.ENOTDIR)
        assert refused.value.filename is None or "/" not in str(refused.value.filename)
    os.close(held)


@BOTH
def test_no_descriptor_stays_open_after_refusals(tmp_path: Path, opener: Opener) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    held = os.open(tmp_path, os.O_PATH)
    before = _open_descriptors()
    for _ in range(50):
        with pytest.raises(FileNotFoundError):
            opener(held, ("a", "b", "missing"), os.O_RDONLY, 0)
        with pytest.raises(FileNotFoundError):
            opener(held, ("a", "missing", "b"), os.O_RDONLY, 0)
    assert _open_descriptors() == before
    os.close(held)


# Installs a seccomp filter that answers openat2 (437) with the given error.
_FILTER = """
import ctypes, errno, os, struct, sys
code, directory = int(sys.argv[1]), sys.argv[2]
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, 437), (0x06, 0, 0, 0x00050000 | code),
         (0x06, 0, 0, 0x7FFF0000)]
filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
program = Program(len(rules), ctypes.addressof(filters))
prctl = ctypes.CDLL(None, use_errno=True).prctl
prctl.argtypes = [ctypes.c_int] + [ctypes.c_void_p] * 4
assert prctl(38, 1, None, None, None) == 0
assert prctl(22, 2, ctypes.addressof(program), None, None) == 0, os.strerror(ctypes.get_errno())
from app.sandbox.openat2 import open_beneath, open_by_openat2
held = os.open(directory, os.O_PATH)
try:
    open_by_openat2(held, ("file",), os.O_RDONLY)
except OSError as refused:
    assert refused.errno == code, refused
else:
    raise AssertionError("the filter is not in force")
"""
_OPENER = """
print(os.read(open_beneath(held, ("file",), os.O_RDONLY), 20).decode())
try:
    open_beneath(held, ("link",), os.O_RDONLY)
except OSError as refused:
    print(errno.errorcode[refused.errno])
"""
_WORKSPACE = """
from pathlib import Path
from app.domain.errors import ToolError
from app.sandbox.workspace import open_workspace_root
from app.sandbox.workspace_search import LineMatcher
root = open_workspace_root(Path(directory), forbidden=[])
workspace = root.for_run("a" * 32, "b" * 32)
place = Path(directory, "a" * 32, "b" * 32)
workspace.write_file("new/file", b"inside")
(place / "out").symlink_to(directory)
(place / "again").hardlink_to(Path(directory, "file"))
os.mkfifo(place / "pipe")
print(workspace.read_file("new/file", 20).decode())
print(len(workspace.list_files(".")))
everything = LineMatcher(finds=lambda line: True)
print([line.path for line in workspace.search_files(".", everything).lines])
refused = 0
for path in ("out", "out/file", "again", "pipe", "../file", "new/../../file"):
    for attempt in (
        lambda: workspace.read_file(path, 20),
        lambda: workspace.list_files(path),
        lambda: workspace.search_files(path, everything),
        lambda: workspace.write_file(path + "/x", b"x"),
    ):
        try:
            attempt()
        except ToolError:
            refused += 1
print(refused)
"""


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_where_the_kernel_does_not_offer_openat2_the_walk_takes_over(
    tmp_path: Path, code: int
) -> None:
    (tmp_path / "file").write_text("inside")
    (tmp_path / "link").symlink_to("file")
    done = subprocess.run(
        [sys.executable, "-c", _FILTER + _OPENER, str(code), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout.split() == ["inside", "ELOOP"], done.stderr


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_without_openat2_the_whole_workspace_works_and_stays_confined(
    tmp_path: Path, code: int
) -> None:
    (tmp_path / "file").write_text("outside")
    done = subprocess.run(
        [sys.executable, "-c", _FILTER + _WORKSPACE, str(code), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout.splitlines() == ["inside", "4", "['new/file']", "24"], done.stderr
    assert (tmp_path / "file").read_text() == "outside"


def test_a_refusal_of_the_file_system_is_not_taken_for_a_missing_system_call(
    tmp_path: Path,
) -> None:
    (tmp_path / "link").symlink_to("/etc")
    held = os.open(tmp_path, os.O_PATH)
    with pytest.raises(OSError, match=r"link|directory") as refused:
        open_beneath(held, ("link", "hostname"), os.O_RDONLY)
    assert refused.value.errno == errno.ELOOP  # the walk would have said ENOTDIR
    os.close(held)
