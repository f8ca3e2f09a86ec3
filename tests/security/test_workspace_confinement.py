"""No path leads out of a run's workspace: planted traps, other tenants, and a racing swapper.

Each trap is tried with both ways of opening and all three operations. A control arm opens the same
paths naively and must reach the canary, so that the traps are known to be traps.
MESHFLOW_PROOF=1 raises the racing opens from 5,000 to 100,000.

Threat: Privilege escalation via tool calls
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.domain.errors import ToolError
from app.sandbox.openat2 import Opener, open_beneath, open_by_openat2, open_by_walk
from app.sandbox.workspace import Workspace, WorkspaceRoot, open_workspace_root

RACING_OPENS = 100_000 if os.getenv("MESHFLOW_PROOF") == "1" else 5_000
RACING_WRITES = RACING_OPENS // 50
CANARY = b"canary-7f3a91"
TENANT, OTHER_TENANT = "a" * 32, "c" * 32
RUN, OTHER_RUN = "b" * 32, "d" * 32
ARMS = pytest.mark.parametrize(
    "opener", [open_by_openat2, open_by_walk, open_beneath], ids=["openat2", "walk", "either"]
)


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A workspace among things that must not be reached."""

    tmp: Path
    root: WorkspaceRoot
    workspace: Workspace

    @property
    def inside(self) -> Path:
        return self.tmp / "work" / TENANT / RUN

    @property
    def outside(self) -> Path:
        return self.tmp / "outside"

    def everything_else(self) -> dict[str, bytes | str]:
        """All that lies outside this run's directory, with content."""
        found: dict[str, bytes | str] = {}
        for place in sorted(self.tmp.rglob("*")):
            if place == self.inside or place.is_relative_to(self.inside):
                continue
            plain = place.is_file() and not place.is_symlink()
            found[str(place)] = place.read_bytes() if plain else str(place.lstat().st_mode)
        return found


@contextmanager
def _ground(tmp_path: Path, opener: Opener) -> Iterator[Ground]:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "secret").write_bytes(CANARY)
    for place in (tmp_path / "outside", tmp_path / "outside" / "sub"):
        place.mkdir()
        (place / "secret").write_bytes(CANARY)
    root = open_workspace_root(tmp_path / "work", forbidden=[], opener=opener)
    for tenant, run in ((TENANT, OTHER_RUN), (OTHER_TENANT, RUN)):
        other = root.for_run(tenant, run)
        other.write_file("secret", CANARY)
        other.close()
    workspace = root.for_run(TENANT, RUN)
    workspace.write_file("real/secret", b"inside")
    yield Ground(tmp=tmp_path, root=root, workspace=workspace)
    workspace.close()
    root.close()


def _nothing(_: Ground) -> None:
    """For traps that need no preparation."""


def _link(name: str, target: str) -> Callable[[Ground], None]:
    def plant(ground: Ground) -> None:
        (ground.inside / name).symlink_to(target.format(out=ground.outside, tmp=ground.tmp))

    return plant


def _chain(ground: Ground) -> None:
    (ground.inside / "one").symlink_to("two")
    (ground.inside / "two").symlink_to("three")
    (ground.inside / "three").symlink_to(ground.outside)


def _long_chain(ground: Ground) -> None:
    (ground.inside / "l0").symlink_to(ground.outside / "secret")
    for number in range(1, 30):
        (ground.inside / f"l{number}").symlink_to(f"l{number - 1}")


def _circle(ground: Ground) -> None:
    (ground.inside / "x").symlink_to("y")
    (ground.inside / "y").symlink_to("x")


def _nested_link(ground: Ground) -> None:
    (ground.inside / "real" / "deeper").mkdir()
    (ground.inside / "real" / "deeper" / "up").symlink_to("../../../../../outside")


def _hard_link(ground: Ground) -> None:
    (ground.inside / "hard").hardlink_to(ground.outside / "secret")


def _hard_link_of_another_run(ground: Ground) -> None:
    (ground.inside / "hard").hardlink_to(ground.tmp / "work" / TENANT / OTHER_RUN / "secret")


def _fifo(ground: Ground) -> None:
    os.mkfifo(ground.inside / "pipe")


def _socket(ground: Ground) -> None:
    here = Path.cwd()
    os.chdir(ground.inside)  # a socket's path may not be long
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("sock")
    finally:
        os.chdir(here)


def _device(ground: Ground) -> None:
    try:
        os.mknod(ground.inside / "zero", 0o600 | 0o020000, os.makedev(1, 5))
    except PermissionError:  # only root makes devices; the link to one must be refused as well
        (ground.inside / "zero").symlink_to("/dev/zero")


def _moved_away(ground: Ground) -> None:
    (ground.inside / "real").rename(ground.inside / "aside")
    (ground.inside / "real").symlink_to(ground.outside)


@dataclass(frozen=True, kw_only=True)
class Trap:
    """A path that must not work. `reaches`: opened naively it gives the canary."""

    name: str
    path: str
    plant: Callable[[Ground], None] = _nothing
    reaches: bool = False


UP_OUT = "../../../outside/secret"
TRAPS = [
    Trap(name="absolute", path="{out}/secret", reaches=True),
    Trap(name="absolute, doubled slash", path="/{out}/secret", reaches=True),
    Trap(name="absolute into the workspace", path="{tmp}/work/" + f"{TENANT}/{RUN}/real/secret"),
    Trap(name="root", path="/"),
    Trap(name="etc passwd", path="/etc/passwd"),
    Trap(name="up", path=UP_OUT, reaches=True),
    Trap(name="up after a directory", path=f"real/../{UP_OUT}", reaches=True),
    Trap(name="up with dots between", path="./.././../.././outside/secret", reaches=True),
    Trap(name="up with empty components", path="..//..//..//outside//secret", reaches=True),
    Trap(name="up at the end", path="real/.."),
    Trap(name="up and back in", path=f"../{RUN}/real/secret"),
    Trap(name="up only", path=".."),
    Trap(name="up through a file", path=f"real/secret/../../{UP_OUT}"),
    Trap(name="many ups", path="../" * 40 + "etc/passwd"),
    Trap(name="backslash up", path="..\\..\\..\\outside\\secret"),
    Trap(name="percent up", path="%2e%2e/%2e%2e/%2e%2e/outside/secret"),
    Trap(name="full-width dots", path="\uff0e\uff0e/\uff0e\uff0e/outside/secret"),
    Trap(name="two dot leader", path="\u2025/\u2025/\u2025/outside/secret"),
    Trap(name="fraction slash", path="..\u2044..\u2044..\u2044outside\u2044secret"),
    Trap(name="another run", path=f"../{OTHER_RUN}/secret", reaches=True),
    Trap(name="another tenant", path=f"../../{OTHER_TENANT}/{RUN}/secret", reaches=True),
    Trap(name="the root's own file", path="../../secret", reaches=True),
    Trap(
        name="link to a file",
        path="l",
        plant=_link("l", "{out}/secret"),
        reaches=True,
    ),
    Trap(name="link to a directory", path="l/secret", plant=_link("l", "{out}"), reaches=True),
    Trap(name="link, below it", path="l/sub/secret", plant=_link("l", "{out}"), reaches=True),
    Trap(
        name="relative link",
        path="l/secret",
        plant=_link("l", "../../../outside"),
        reaches=True,
    ),
    Trap(name="link to the parent", path="l/secret", plant=_link("l", "../.."), reaches=True),
    Trap(
        name="link to another run",
        path="l/secret",
        plant=_link("l", f"../{OTHER_RUN}"),
        reaches=True,
    ),
    Trap(
        name="link to another tenant",
        path="l/secret",
        plant=_link("l", f"../../{OTHER_TENANT}/{RUN}"),
        reaches=True,
    ),
    Trap(name="link to the root", path="l{out}/secret", plant=_link("l", "/"), reaches=True),
    Trap(name="link inside to inside", path="l/secret", plant=_link("l", "real")),
    Trap(name="chain of links", path="one/secret", plant=_chain, reaches=True),
    Trap(name="thirty links", path="l29", plant=_long_chain, reaches=True),
    Trap(name="circle of links", path="x", plant=_circle),
    Trap(name="link deep down", path="real/deeper/up/secret", plant=_nested_link, reaches=True),
    Trap(name="dangling link", path="l", plant=_link("l", "{out}/not-there")),
    Trap(name="dangling link, below", path="l/x", plant=_link("l", "{out}/not-there")),
    Trap(name="link, trailing slash", path="l/", plant=_link("l", "{out}")),
    Trap(name="link, trailing dot", path="l/.", plant=_link("l", "{out}")),
    Trap(name="link and up", path="l/../outside/secret", plant=_link("l", "{out}"), reaches=True),
    Trap(name="directory replaced by a link", path="real/secret", plant=_moved_away, reaches=True),
    Trap(name="hard link", path="hard", plant=_hard_link, reaches=True),
    Trap(
        name="hard link of another run",
        path="hard",
        plant=_hard_link_of_another_run,
        reaches=True,
    ),
    Trap(name="fifo", path="pipe", plant=_fifo),
    Trap(name="socket", path="sock", plant=_socket),
    Trap(name="device", path="zero", plant=_device),
    Trap(name="below a device", path="zero/x", plant=_device),
    Trap(
        name="magic root", path="l{out}/secret", plant=_link("l", "/proc/self/root"), reaches=True
    ),
    Trap(name="magic working directory", path="l/x", plant=_link("l", "/proc/self/cwd")),
    Trap(name="magic descriptor", path="l", plant=_link("l", "/proc/self/fd/0")),
    Trap(name="magic environment", path="l", plant=_link("l", "/proc/self/environ")),
    Trap(name="proc by path", path="/proc/self/root/etc/passwd"),
    Trap(name="nul", path="real/secret\0"),
    Trap(name="nul before up", path="real\0/../../../../outside/secret"),
    Trap(name="nul first", path="\0"),
    Trap(name="newline", path="real/secret\n"),
    Trap(name="escape character", path="real\x1b/secret"),
    Trap(name="c1 control", path="real\x85/secret"),
    Trap(name="lone surrogate", path="real/\ud800"),
    Trap(name="empty", path=""),
    Trap(name="name of 256 bytes", path="n" * 256),
    Trap(name="name of 256 bytes in letters of two", path="é" * 128),
    Trap(name="path of 4,097 bytes", path="n/" * 2048 + "n"),
    Trap(name="33 directories deep", path="n/" * 33 + "n"),
    Trap(name="a megabyte of path", path="n/" * 500_000),
    Trap(name="trailing slash on a file", path="real/secret/"),
    Trap(name="below a file", path="real/secret/x"),
    Trap(name="reserved name", path=".meshflow-writing-x"),
    Trap(name="home", path="~/secret/.."),
    Trap(name="other case", path="REAL/SECRET/.."),
]
# Nothing outside is named by these, but where a file system says otherwise it must not matter.
HARMLESS = {"backslash up", "percent up", "full-width dots", "two dot leader", "fraction slash"}
EACH = pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: str(trap.name))


def _spelled(trap: Trap, ground: Ground) -> str:
    return trap.path.replace("{out}", str(ground.outside)).replace("{tmp}", str(ground.tmp))


def _attempts(ground: Ground, path: str) -> list[str]:
    """Every operation on the path; what came of it as text."""
    seen: list[str] = []
    operations: list[Callable[[], object]] = [
        lambda: ground.workspace.read_file(path, 1000),
        lambda: ground.workspace.list_files(path),
        lambda: ground.workspace.write_file(path, b"overwritten"),
        lambda: ground.workspace.write_file(f"{path}/x", b"overwritten"),
    ]
    for operation in operations:
        try:
            seen.append(f"done {operation()!r}")
        except ToolError as told:
            seen.append(f"refused {told} {told.__cause__ or ''}")
    return seen


@ARMS
@EACH
def test_a_trap_leads_nowhere(tmp_path: Path, trap: Trap, opener: Opener) -> None:
    with _ground(tmp_path, opener) as ground:
        trap.plant(ground)
        before = ground.everything_else()
        seen = _attempts(ground, _spelled(trap, ground))
        assert ground.everything_else() == before
    for answer in seen:
        assert CANARY.decode() not in answer
        for secret in (str(tmp_path), TENANT, RUN, OTHER_RUN, OTHER_TENANT, "Errno"):
            assert secret not in answer
    assert seen[0].startswith("refused")
    if trap.name not in HARMLESS:
        assert all(answer.startswith("refused") for answer in seen[2:3]), seen


@ARMS
def test_what_is_allowed_works_beside_the_traps(tmp_path: Path, opener: Opener) -> None:
    with _ground(tmp_path, opener) as ground:
        for path in ("a", "a b", "ünï/ço/de", "x/./y//z", "...", "..a/b..", "-rf", "real/SECRET"):
            ground.workspace.write_file(path, path.encode())
            assert ground.workspace.read_file(path, 100) == path.encode()
        assert ground.workspace.read_file("real/secret", 100) == b"inside"


@EACH
def test_control_opened_naively_the_trap_reaches_the_canary(tmp_path: Path, trap: Trap) -> None:
    with _ground(tmp_path, open_beneath) as ground:
        trap.plant(ground)
        got = b""
        with suppress(OSError, ValueError):
            naive = f"{ground.inside}/{_spelled(trap, ground)}"
            if _spelled(trap, ground).startswith("/"):
                naive = _spelled(trap, ground)  # what joining paths does with an absolute one
            if Path(naive).is_file():
                got = Path(naive).read_bytes()
        assert (got == CANARY) == trap.reaches


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(TRAPS) >= 40
    assert sum(trap.reaches for trap in TRAPS) >= 20
    assert len({trap.name for trap in TRAPS}) == len(TRAPS)


def _naive_read(base: Path, path: str, between: Callable[[], None]) -> bytes:
    """The usual way: resolve, check that it is inside, open."""
    resolved = (base / path).resolve()
    if not resolved.is_relative_to(base.resolve()):
        raise ToolError("outside")
    between()
    return resolved.read_bytes()


def test_control_resolve_then_open_leaks_when_a_directory_is_swapped_between(
    tmp_path: Path,
) -> None:
    with _ground(tmp_path, open_beneath) as ground:
        inside = ground.inside
        assert _naive_read(inside, "real/secret", lambda: None) == b"inside"
        leaked = _naive_read(inside, "real/secret", lambda: _moved_away(ground))
        assert leaked == CANARY
        with pytest.raises(ToolError):  # asked again, the naive check does see the link
            _naive_read(inside, "real/secret", lambda: None)


@ARMS
def test_a_directory_that_was_swapped_after_opening_does_not_move_a_write(
    tmp_path: Path, opener: Opener
) -> None:
    with _ground(tmp_path, opener) as ground:
        # The name of the temporary file is asked for when the parent is already held.
        def swapping(length: int) -> str:
            _moved_away(ground)
            return "f" * (2 * length)

        ground.workspace._token_hex = swapping
        before = ground.everything_else()
        ground.workspace.write_file("real/secret", b"mine")
        assert ground.everything_else() == before
        assert (ground.inside / "aside" / "secret").read_bytes() == b"mine"


# Exchanges a directory with a link to the outside, and a file with one, as fast as it can.
_SWAPPER = """
import ctypes, os, sys
os.chdir(sys.argv[1])
exchange = ctypes.CDLL(None, use_errno=True).renameat2
def swap(one, other):
    assert exchange(-100, one, -100, other, 2) == 0, os.strerror(ctypes.get_errno())
print("ready", flush=True)
while os.getppid() == int(sys.argv[2]):
    swap(b"dir", b"dir-link")
    swap(b"file", b"file-link")
"""


@contextmanager
def _swapper(ground: Ground) -> Iterator[None]:
    for name in ("dir", "file"):
        (ground.inside / f"{name}-link").symlink_to(
            ground.outside if name == "dir" else ground.outside / "secret"
        )
    (ground.inside / "dir").mkdir()
    (ground.inside / "dir" / "secret").write_bytes(b"inside")
    (ground.inside / "file").write_bytes(b"inside")
    command = [sys.executable, "-c", _SWAPPER, str(ground.inside), str(os.getpid())]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
            assert process.poll() is None, "the swapper died: the race proved nothing"
        finally:
            process.kill()


@pytest.mark.parametrize("opener", [open_by_openat2, open_by_walk], ids=["openat2", "walk"])
def test_a_racing_swapper_never_gets_a_read_outside(tmp_path: Path, opener: Opener) -> None:
    counts = {b"inside": 0, b"refused": 0, CANARY: 0}
    opens = 0
    give_up = time.monotonic() + 120 + RACING_OPENS / 500
    with _ground(tmp_path, opener) as ground, _swapper(ground):
        # On until the race was seen to be alive on both sides.
        while opens < RACING_OPENS or not (counts[b"inside"] and counts[b"refused"]):
            assert time.monotonic() < give_up, f"the race never ran: {counts}"
            for path in ("dir/secret", "file"):
                opens += 1
                try:
                    got = ground.workspace.read_file(path, 100)
                except ToolError:
                    got = b"refused"
                counts[got] += 1
    print(f"racing opens: {opens}, {counts}")
    assert counts[CANARY] == 0


@pytest.mark.parametrize("opener", [open_by_openat2, open_by_walk], ids=["openat2", "walk"])
def test_a_racing_swapper_never_gets_a_write_or_a_listing_outside(
    tmp_path: Path, opener: Opener
) -> None:
    with _ground(tmp_path, opener) as ground:
        (ground.outside / "only-outside").write_bytes(CANARY)
        before = ground.everything_else()
        written = 0
        with _swapper(ground):
            for number in range(RACING_WRITES):
                with suppress(ToolError):
                    ground.workspace.write_file("dir/secret", str(number).encode())
                    written += 1
                with suppress(ToolError):
                    ground.workspace.write_file("file", b"inside")
                for path in ("dir", "."):
                    with suppress(ToolError):
                        names = {entry.name for entry in ground.workspace.list_files(path)}
                        assert "only-outside" not in names
        assert written > 0
        assert ground.everything_else() == before


@ARMS
def test_a_full_workspace_refuses_and_leaves_the_others_alone(
    tmp_path: Path, opener: Opener
) -> None:
    with _ground(tmp_path, opener) as ground:
        megabytes = bytes(16 * 1024 * 1024)
        with pytest.raises(ToolError, match="a file may hold at most 16777216 bytes"):
            ground.workspace.write_file("big", megabytes + b"x")
        for number in range(2_000 - 2):  # beside real/ and real/secret
            (ground.inside / f"e{number}").touch()
        with pytest.raises(ToolError, match="at most 2000 entries"):
            ground.workspace.write_file("one-more", b"")
        other = ground.root.for_run(TENANT, OTHER_RUN)
        other.write_file("mine", b"")
        other.close()
        for number in range(4):
            with (ground.inside / f"e{number}").open("wb") as sparse:
                sparse.truncate(len(megabytes))
        with pytest.raises(ToolError, match="at most 67108864 bytes"):
            ground.workspace.write_file("e9", b"x")
