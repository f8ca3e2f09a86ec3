"""A copy of a workspace is the whole of it, or none; it is laid out as it was."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.sandbox import workspace_copy
from app.sandbox.workspace import Workspace, open_workspace_root
from app.sandbox.workspace_copy import UncopiedError, lay_out, read_all

NAMES = ("0" * 32, "1" * 32)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path.joinpath(*NAMES)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    opened = open_workspace_root(tmp_path, forbidden=()).for_run(*NAMES)
    yield opened
    opened.close()


def test_files_are_laid_out_elsewhere_as_they_were(workspace: Workspace, tmp_path: Path) -> None:
    files = {"a.txt": b"one", "deep/er/b.bin": bytes(range(256)), "empty": b"", "ü.txt": b"2"}
    for path, content in files.items():
        workspace.write_file(path, content)
    copy = read_all(workspace)
    assert dict(copy) == files
    there = tmp_path / "there"
    there.mkdir()
    other = open_workspace_root(there, forbidden=()).for_run(*NAMES)
    other.write_file("left.txt", b"of an earlier owner")
    other.write_file("a.txt", b"old")
    lay_out(other, copy)
    assert dict(read_all(other)) == files
    other.close()


def _link(place: Path) -> None:
    (place / "link").symlink_to("/etc/passwd")


def _link_of_a_directory(place: Path) -> None:
    (place / "link").symlink_to("/etc")


def _second_name(place: Path) -> None:
    (place / "one").write_text("x")
    (place / "two").hardlink_to(place / "one")


def _pipe(place: Path) -> None:
    os.mkfifo(place / "pipe")


def _bad_name(place: Path) -> None:
    Path(os.fsdecode(bytes(place) + b"/\xff")).write_text("x")


def _control_character(place: Path) -> None:
    (place / "a\nb").write_text("x")


def _too_deep(place: Path) -> None:
    place.joinpath(*["d"] * 40).mkdir(parents=True)


@pytest.mark.parametrize(
    "planted",
    [
        _link,
        _link_of_a_directory,
        _second_name,
        _pipe,
        _bad_name,
        _control_character,
        _too_deep,
    ],
)
def test_what_is_no_plain_file_makes_the_whole_uncopied(
    workspace: Workspace, place: Path, planted: object
) -> None:
    workspace.write_file("plain.txt", b"x")
    assert callable(planted)
    planted(place)
    with pytest.raises(UncopiedError):
        read_all(workspace)


def test_what_is_too_much_is_not_copied(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        workspace.write_file(name, b"12345")
    monkeypatch.setattr(workspace_copy, "MOST_BYTES", 15)
    assert len(read_all(workspace)) == 3
    monkeypatch.setattr(workspace_copy, "MOST_BYTES", 14)
    with pytest.raises(UncopiedError):
        read_all(workspace)
    monkeypatch.setattr(workspace_copy, "MOST_BYTES", 15)
    monkeypatch.setattr(workspace_copy, "MOST_FILES", 2)
    with pytest.raises(UncopiedError):
        read_all(workspace)
