"""A flooded workspace is empty at once, and what was in it is gone in the end, wherever it lies."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from app.domain.errors import ToolError
from app.sandbox.openat2 import open_beneath
from app.sandbox.set_aside import PLACE
from app.sandbox.workspace import Workspace, WorkspaceRoot, open_workspace_root

TENANT, RUN, OTHER = "a" * 32, "b" * 32, "c" * 32


@pytest.fixture
def base(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    return made


@pytest.fixture
def root(base: Path) -> Iterator[WorkspaceRoot]:
    opened = open_workspace_root(base, forbidden=[])
    yield opened
    opened.close()


@pytest.fixture
def workspace(root: WorkspaceRoot) -> Iterator[Workspace]:
    opened = root.for_run(TENANT, RUN)
    opened.write_file("deep/flood.txt", b"flood")
    yield opened
    opened.close()


def _aside(base: Path) -> list[str]:
    return sorted(path.name for path in (base / PLACE).iterdir())


def _names(workspace: Workspace) -> list[str]:
    return [entry.name for entry in workspace.list_files(".")]


def test_the_workspace_is_empty_before_the_flood_is_taken_apart(
    base: Path, workspace: Workspace
) -> None:
    with workspace.lend() as flooded:
        take_apart = workspace.renew(flooded)
    assert _names(workspace) == []
    assert [name[:66] for name in _aside(base)] == [f"{TENANT}.{RUN}."]
    assert take_apart is not None
    take_apart()
    assert _aside(base) == []


def test_what_is_written_afterwards_is_in_the_place_of_that_name_and_stays(
    base: Path, workspace: Workspace
) -> None:
    with workspace.lend() as flooded:
        take_apart = workspace.renew(flooded)
    workspace.write_file("after.txt", b"after")
    assert take_apart is not None
    take_apart()
    assert (base / TENANT / RUN / "after.txt").read_bytes() == b"after"
    assert workspace.read_file("after.txt", 99) == b"after"


def test_the_new_directory_is_closed_to_others(base: Path, workspace: Workspace) -> None:
    with workspace.lend() as flooded:
        workspace.renew(flooded)
    for path in (base / TENANT / RUN, base / PLACE):
        assert path.stat().st_mode & 0o777 == 0o700


def test_one_that_was_already_taken_away_takes_no_other_with_it(workspace: Workspace) -> None:
    with workspace.lend() as flooded:
        workspace.renew(flooded)
        workspace.write_file("innocent.txt", b"x")
        assert workspace.renew(flooded) is None
    assert _names(workspace) == ["innocent.txt"]


def test_a_closed_workspace_is_emptied_all_the_same(base: Path, workspace: Workspace) -> None:
    with workspace.lend() as flooded:
        workspace.close()
        take_apart = workspace.renew(flooded)
    assert list((base / TENANT / RUN).iterdir()) == []
    assert take_apart is not None
    take_apart()
    assert _aside(base) == []


def test_when_all_is_closed_it_is_refused_and_nothing_moves(
    base: Path, root: WorkspaceRoot, workspace: Workspace
) -> None:
    with workspace.lend() as flooded:
        root.close()
        with pytest.raises(ToolError):
            workspace.renew(flooded)
    assert (base / TENANT / RUN / "deep" / "flood.txt").exists()


def test_nothing_more_is_taken_apart_once_all_is_closed(
    base: Path, root: WorkspaceRoot, workspace: Workspace
) -> None:
    with workspace.lend() as flooded:
        take_apart = workspace.renew(flooded)
    root.close()
    assert take_apart is not None
    take_apart()
    assert len(_aside(base)) == 1


def test_what_another_process_left_is_removed_and_nothing_else(
    base: Path, root: WorkspaceRoot, workspace: Workspace
) -> None:
    with workspace.lend() as flooded:
        workspace.renew(flooded)
    (base / PLACE / "not-ours").mkdir()
    root.set_aside.remove_all()
    assert _aside(base) == ["not-ours"]
    assert (base / TENANT / RUN).is_dir()


def test_a_link_in_the_place_of_what_was_set_aside_is_not_followed(
    base: Path, root: WorkspaceRoot, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (base / PLACE).mkdir()
    (base / PLACE / f"{TENANT}.{RUN}.{OTHER}").symlink_to(outside)
    with pytest.raises(OSError, match=r"."):
        root.set_aside.remove_all()
    assert (outside / "kept").exists()


def test_no_descriptor_is_left_open(root: WorkspaceRoot, workspace: Workspace) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count, nothing else
    for _ in range(20):
        workspace.write_file("flood.txt", b"x")
        with workspace.lend() as flooded:
            take_apart = workspace.renew(flooded)
        assert take_apart is not None
        take_apart()
        root.set_aside.remove_all()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above


def test_what_is_closed_while_it_works_leaves_the_rest_for_the_next(base: Path) -> None:
    """The first thing that is looked for when it works is what it takes apart."""

    closing: WorkspaceRoot

    def open_and_close(directory: int, parts: Sequence[str], flags: int, mode: int) -> int:
        opened = open_beneath(directory, parts, flags, mode)
        if parts and parts[0].startswith(f"{TENANT}.{RUN}."):
            closing.close()
        return opened

    closing = open_workspace_root(base, forbidden=[], opener=open_and_close)
    workspace = closing.for_run(TENANT, RUN)
    workspace.write_file("deep/flood.txt", b"x")
    with workspace.lend() as flooded:
        take_apart = workspace.renew(flooded)
    workspace.close()
    assert take_apart is not None
    take_apart()
    (left,) = _aside(base)
    assert (base / PLACE / left / "deep" / "flood.txt").exists()


def test_a_closed_root_and_workspace_hold_no_descriptor(base: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count, nothing else
    root = open_workspace_root(base, forbidden=[])
    root.for_run(TENANT, RUN).close()
    root.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above
