"""The workspace refuses bad roots, keeps its quota, and writes whole files or nothing."""

import os
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from app.domain.errors import ConfigurationError, ToolError
from app.sandbox.openat2 import Opener, open_by_openat2, open_by_walk
from app.sandbox.sandbox_profile import WorkerAccount
from app.sandbox.workspace import (
    EntryKind,
    Workspace,
    WorkspaceQuota,
    WorkspaceRoot,
    open_workspace_root,
)
from app.sandbox.workspace_path import parse_path

TENANT = "a" * 32
RUN = "b" * 32
QUOTA = WorkspaceQuota(total_bytes=64 * 1024, entries=10, file_bytes=40 * 1024)


@pytest.fixture(params=[open_by_openat2, open_by_walk], ids=["openat2", "walk"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WorkspaceRoot]:
    opener: Opener = request.param
    (tmp_path / "work").mkdir()
    opened = open_workspace_root(tmp_path / "work", forbidden=[], quota=QUOTA, opener=opener)
    yield opened
    opened.close()


@pytest.fixture
def workspace(root: WorkspaceRoot) -> Iterator[Workspace]:
    opened = root.for_run(TENANT, RUN)
    yield opened
    opened.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "work" / TENANT / RUN


def _refused_root(path: Path, *forbidden: Path) -> str:
    with pytest.raises(ConfigurationError) as refused:
        open_workspace_root(path, forbidden=forbidden)
    return str(refused.value)


def test_a_directory_that_cannot_be_handed_over_is_let_go_of(tmp_path: Path) -> None:
    opened: list[int] = []

    def opener(held: int, names: Sequence[str], flags: int, mode: int) -> int:
        opened.append(open_by_walk(held, names, flags, mode))
        return opened[-1]

    nobody = WorkerAccount(uid=1 << 40, gid=1 << 40)
    root = open_workspace_root(tmp_path, forbidden=[], owner=nobody, opener=opener)
    with pytest.raises((ToolError, OverflowError)):
        root.for_run(TENANT, RUN)
    (descriptor,) = opened
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    root.close()


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in _refused_root(tmp_path / "missing")


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    _refused_root(tmp_path / "a")


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "not a directory" in _refused_root(tmp_path / "file")


def test_an_unwritable_directory_is_refused_even_to_root() -> None:
    assert "not writable" in _refused_root(Path("/proc/self/task"))


@pytest.mark.parametrize("spelling", ["/", "//", "/../", "/tmp/.."])  # noqa: S108 - a spelling of the root, nothing is put there
def test_the_root_of_the_file_system_is_refused(spelling: str) -> None:
    assert "root of the file system" in _refused_root(Path(spelling))


def test_a_link_to_the_root_of_the_file_system_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    assert "root of the file system" in _refused_root(tmp_path / "link")


def test_a_root_that_overlaps_a_forbidden_directory_is_refused(tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "below").mkdir(parents=True)
    (tmp_path / "alias").symlink_to("work")
    (tmp_path / "sibling").mkdir()
    for path, forbidden in [
        (work, work),
        (work, work / "below"),
        (work, work / "not-yet-there" / "keys"),
        (work / "below", work),
        (tmp_path / "alias", work),
        (work, tmp_path / "alias" / "below"),
        (work, tmp_path / "work" / ".." / "work"),
        (work, Path("/")),
    ]:
        assert "overlaps" in _refused_root(path, tmp_path / "sibling", forbidden)
    # A name that merely begins the same, and a sibling, are no overlap.
    open_workspace_root(work, forbidden=[tmp_path / "work-data", tmp_path / "sibling"]).close()


def test_opening_the_root_leaves_nothing_behind(tmp_path: Path) -> None:
    open_workspace_root(tmp_path, forbidden=[]).close()
    assert list(tmp_path.iterdir()) == []


def test_a_runs_directory_is_private_and_has_random_names_only(
    workspace: Workspace, place: Path
) -> None:
    workspace.write_file("x", b"")
    for directory in (place, place.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((place / "x").stat().st_mode) == 0o600


def test_only_the_last_directory_above_a_run_lets_the_workers_account_pass(tmp_path: Path) -> None:
    own = (os.geteuid(), os.getegid())  # only root gives anything away
    account = WorkerAccount(uid=own[0] or 65534, gid=own[1] or 65534)
    opened = open_workspace_root(tmp_path, forbidden=[], owner=account)
    opened.for_run(TENANT, RUN).close()
    opened.close()
    tenant, run = (tmp_path / TENANT).stat(), (tmp_path / TENANT / RUN).stat()
    assert (tenant.st_uid, tenant.st_gid) == (own[0], account.gid)
    assert stat.S_IMODE(tenant.st_mode) == 0o710
    assert (run.st_uid, stat.S_IMODE(run.st_mode)) == (account.uid, 0o700)


@pytest.mark.parametrize("name", ["", "acme", "../" + "a" * 29, "A" * 32, "a" * 31, "a" * 33])
def test_a_run_is_named_by_hex_digits_only(root: WorkspaceRoot, name: str) -> None:
    for pair in ((name, RUN), (TENANT, name)):
        with pytest.raises(ToolError):
            root.for_run(*pair)


def test_a_link_in_the_place_of_a_runs_directory_is_refused(
    root: WorkspaceRoot, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "work" / TENANT).mkdir()
    (tmp_path / "work" / TENANT / RUN).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "work" / RUN).symlink_to(tmp_path / "elsewhere")
    for tenant in (TENANT, RUN):
        with pytest.raises(ToolError):
            root.for_run(tenant, RUN)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_is_written_is_read_again_and_survives_reopening(root: WorkspaceRoot) -> None:
    first = root.for_run(TENANT, RUN)
    first.write_file("notes/deep/a.txt", b"one")
    first.write_file("notes/deep/a.txt", b"two and more")
    first.close()
    first.close()
    second = root.for_run(TENANT, RUN)
    assert second.read_file("notes/./deep//a.txt", 100) == b"two and more"
    assert second.read_file("notes/deep/a.txt", 3) == b"two"
    assert second.read_file("notes/deep/a.txt", 3, offset=4) == b"and"
    assert second.read_file("notes/deep/a.txt", 3, offset=400) == b""
    second.close()


def test_a_closed_workspace_refuses_everything(workspace: Workspace) -> None:
    workspace.close()
    with pytest.raises(ToolError, match="closed"):
        workspace.read_file("a", 1)
    with pytest.raises(ToolError, match="closed"):
        workspace.write_file("a", b"")
    with pytest.raises(ToolError, match="closed"):
        workspace.list_files(".")


def test_a_listing_names_kinds_and_sizes_without_following(
    workspace: Workspace, place: Path
) -> None:
    workspace.write_file("b/file", b"12345")
    workspace.write_file("a.txt", b"123")
    (place / "link").symlink_to("/etc")
    os.mkfifo(place / "pipe")
    os.close(os.open(os.fsencode(place) + b"/\xff\n", os.O_CREAT, 0o600))
    found = {entry.name: (entry.kind, entry.size) for entry in workspace.list_files(".")}
    assert found == {
        "a.txt": (EntryKind.FILE, 3),
        "b": (EntryKind.DIRECTORY, 0),
        "link": (EntryKind.LINK, 0),
        "pipe": (EntryKind.OTHER, 0),
        "\\udcff\\n": (EntryKind.FILE, 0),
    }
    assert [entry.name for entry in workspace.list_files("b/")] == ["file"]


def test_a_file_over_the_file_quota_is_refused_and_nothing_changes(
    workspace: Workspace, place: Path
) -> None:
    workspace.write_file("a", b"old")
    with pytest.raises(ToolError, match="40960"):
        workspace.write_file("a", bytes(QUOTA.file_bytes + 1))
    with pytest.raises(ToolError, match="40960"):
        workspace.write_file("new/dir/b", bytes(QUOTA.file_bytes + 1))
    assert workspace.read_file("a", 10) == b"old"
    assert [entry.name for entry in place.iterdir()] == ["a"]


def test_the_byte_quota_counts_every_file_and_lets_one_be_replaced(workspace: Workspace) -> None:
    workspace.write_file("a", bytes(40 * 1024))
    workspace.write_file("deep/b", bytes(20 * 1024))
    with pytest.raises(ToolError, match="65536 bytes"):
        workspace.write_file("c", bytes(5 * 1024))
    workspace.write_file("a", bytes(36 * 1024))
    workspace.write_file("c", bytes(5 * 1024))


def test_a_sparse_file_counts_for_what_it_claims(workspace: Workspace, place: Path) -> None:
    with (place / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(ToolError, match="65536 bytes"):
        workspace.write_file("a", b"x")


def test_what_lies_behind_a_link_is_not_counted(
    workspace: Workspace, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "big").mkdir()
    for number in range(20):
        (tmp_path / "big" / str(number)).write_bytes(bytes(10_000))
    (place / "link").symlink_to(tmp_path / "big")
    workspace.write_file("a", b"x")


def test_the_entry_quota_counts_files_directories_and_links(
    workspace: Workspace, place: Path
) -> None:
    for number in range(4):
        workspace.write_file(f"d{number}/f", b"")
    (place / "link").symlink_to("nowhere")
    with pytest.raises(ToolError, match="10 entries"):
        workspace.write_file("new/f", b"")
    assert not (place / "new").exists()
    workspace.write_file("last", b"")
    with pytest.raises(ToolError, match="10 entries"):
        workspace.write_file("one-more", b"")
    workspace.write_file("last", b"replaced")


def test_the_quota_of_a_workspace_is_what_the_design_says() -> None:
    assert WorkspaceQuota() == WorkspaceQuota(
        total_bytes=67_108_864, entries=2_000, file_bytes=16_777_216
    )


def test_writers_at_once_do_not_pass_the_quota_together(workspace: Workspace) -> None:
    gate = threading.Barrier(8)
    refused: list[int] = []

    def write(number: int) -> None:
        gate.wait(timeout=30)
        try:
            workspace.write_file(f"f{number}", bytes(16 * 1024))
        except ToolError:
            refused.append(number)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(refused) == 4
    assert sum(entry.size for entry in workspace.list_files(".")) == 64 * 1024


def test_a_tree_nested_too_deeply_to_count_is_refused(workspace: Workspace, place: Path) -> None:
    deep = place
    for _ in range(40):
        deep /= "d"
    deep.mkdir(parents=True)
    workspace._quota = WorkspaceQuota()  # room for the entries, so that depth alone refuses
    with pytest.raises(ToolError, match="nested too deeply"):
        workspace.write_file("a", b"")


def test_a_reader_sees_the_old_or_the_new_content_and_never_a_part(workspace: Workspace) -> None:
    old, new = b"o" * 30_000, b"n" * 30_000
    workspace.write_file("a", old)
    done = threading.Event()

    def rewrite() -> None:
        for _ in range(50):
            workspace.write_file("a", new)
            workspace.write_file("a", old)
        done.set()

    writer = threading.Thread(target=rewrite)
    writer.start()
    while not done.is_set():
        assert workspace.read_file("a", 40_000) in (old, new)
    writer.join()
    assert [entry.name for entry in workspace.list_files(".")] == ["a"]


def test_a_failed_rename_leaves_no_temporary_file(root: WorkspaceRoot, place: Path) -> None:
    calls: list[str] = []

    def planting(length: int) -> str:
        # The name is asked for after all checks: a directory comes into the way just then.
        if not calls:
            (place / "a").mkdir()
        calls.append("")
        return "f" * (2 * length)

    opened = root.for_run(TENANT, RUN)
    opened._token_hex = planting
    with pytest.raises(ToolError):
        opened.write_file("a", b"data")
    assert [entry.name for entry in place.iterdir()] == ["a"]
    opened.close()


def test_operations_leave_no_descriptor_open(workspace: Workspace, place: Path) -> None:
    (place / "link").symlink_to("/etc")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(30):
        workspace.write_file("a/b", str(number).encode())
        workspace.read_file("a/b", 10)
        workspace.list_files("a")
        for path in ("link/x", "a/b/c", "missing/x", "a"):
            with pytest.raises(ToolError):
                workspace.read_file(path, 10)
        for path in ("link/x", "a/b/c", "a"):
            with pytest.raises(ToolError):
                workspace.write_file(path, b"")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "empty"),
        ("/etc", "absolute"),
        ("..", "'..'"),
        ("a/../b", "'..'"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("a\x9fb", "control"),
        ("\ud800", "Unicode"),
        ("é" * 128, "too long"),
        ("a/" * 3000, "too long"),
        ("a/" * 33, "too long"),
        (".meshflow-writing-1", "reserved"),
    ],
)
def test_a_path_is_refused_before_the_kernel_sees_it(path: str, reason: str) -> None:
    with pytest.raises(ToolError, match=reason):
        parse_path(path)


def test_a_path_is_the_plain_names_in_it() -> None:
    assert parse_path("a/./b//c/") == ("a", "b", "c")
    assert parse_path(".") == ()
    assert parse_path("...") == ("...",)
    assert parse_path("é" * 127) == ("é" * 127,)


def test_a_list_shows_no_reserved_name_and_no_more_than_a_workspace_may_hold(
    workspace: Workspace, place: Path
) -> None:
    (place / ".meshflow-writing-0").touch()
    assert workspace.list_files(".") == ()
    for number in range(15):
        (place / f"{number}").touch()
    assert len(workspace.list_files(".")) == QUOTA.entries


def test_a_directory_is_not_replaced_by_a_file(workspace: Workspace) -> None:
    workspace.write_file("a/b", b"x")
    with pytest.raises(ToolError, match="that is a directory"):
        workspace.write_file("a", b"x")


@pytest.mark.parametrize("level", ["tenant", "run"])
def test_a_file_in_the_place_of_a_directory_is_refused_and_nothing_stays_open(
    root: WorkspaceRoot, tmp_path: Path, level: str
) -> None:
    above = tmp_path / "work"
    if level == "run":
        above /= TENANT
        above.mkdir()
    (above / (TENANT if level == "tenant" else RUN)).touch()
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ToolError):
        root.for_run(TENANT, RUN)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_a_tool_writes_is_the_workers_own(tmp_path: Path) -> None:
    own = (os.geteuid(), os.getegid())  # only root gives anything away
    account = WorkerAccount(uid=own[0] or 65534, gid=own[1] or 65534)
    opened = open_workspace_root(tmp_path, forbidden=[], owner=account)
    workspace = opened.for_run(TENANT, RUN)
    workspace.write_file("deep/a", b"x")
    for name in (".", "deep", "deep/a"):
        facts = (tmp_path / TENANT / RUN / name).stat()
        assert (facts.st_uid, facts.st_gid) == (account.uid, account.gid)
    workspace.close()
    opened.close()
