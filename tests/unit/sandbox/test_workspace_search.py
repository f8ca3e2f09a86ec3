"""A search finds lines beneath a directory, follows nothing, and tells what it left out."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.domain.errors import ToolError
from app.sandbox.openat2 import Opener, open_by_openat2, open_by_walk
from app.sandbox.workspace import Workspace, open_workspace_root
from app.sandbox.workspace_search import (
    LineMatcher,
    SearchBounds,
    SearchOutcome,
    WorkspaceSearch,
)

TENANT, RUN = "a" * 32, "b" * 32
HOLDS_A = LineMatcher(finds=lambda line: b"a" in line)


@pytest.fixture(params=[open_by_openat2, open_by_walk], ids=["openat2", "walk"])
def opener(request: pytest.FixtureRequest) -> Opener:
    chosen: Opener = request.param
    return chosen


@pytest.fixture
def workspace(opener: Opener, tmp_path: Path) -> Iterator[Workspace]:
    (tmp_path / "work").mkdir()
    root = open_workspace_root(tmp_path / "work", forbidden=[], opener=opener)
    opened = root.for_run(TENANT, RUN)
    yield opened
    opened.close()
    root.close()


@pytest.fixture
def place(workspace: Workspace, tmp_path: Path) -> Path:
    del workspace  # only its directory
    return tmp_path / "work" / TENANT / RUN


def _shown(outcome: SearchOutcome) -> list[str]:
    return [f"{line.path}:{line.number}:{line.text}" for line in outcome.lines]


def _bounded(place: Path, opener: Opener, **bounds: int) -> SearchOutcome:
    held = os.open(place, os.O_PATH)
    try:
        return WorkspaceSearch(opener, HOLDS_A, SearchBounds(**bounds)).look(held, ())
    finally:
        os.close(held)


def test_lines_are_found_in_order_with_their_place(workspace: Workspace) -> None:
    workspace.write_file("z.txt", b"a last\n")
    workspace.write_file("notes/b.txt", b"nothing\nan a\r\n\nno end a")
    outcome = workspace.search_files(".", HOLDS_A)
    assert _shown(outcome) == ["notes/b.txt:2:an a", "notes/b.txt:4:no end a", "z.txt:1:a last"]
    assert (outcome.files_read, outcome.files_left_out, outcome.is_cut) == (2, 0, False)
    assert _shown(workspace.search_files("notes", HOLDS_A))[0] == "notes/b.txt:2:an a"
    assert len(workspace.search_files("z.txt", HOLDS_A).lines) == 1


def test_what_is_not_there_or_no_file_is_refused(workspace: Workspace, place: Path) -> None:
    os.mkfifo(place / "pipe")
    (place / "link").symlink_to("pipe")
    (place / "one").write_bytes(b"a")
    (place / "two").hardlink_to(place / "one")
    for path in ("missing", "pipe", "link", "two", "..", "/etc/passwd", "\0"):
        with pytest.raises(ToolError):
            workspace.search_files(path, HOLDS_A)


def test_links_pipes_and_second_names_are_passed_over(
    workspace: Workspace, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"a secret")
    (place / "file-link").symlink_to(tmp_path / "outside" / "secret")
    (place / "dir-link").symlink_to(tmp_path / "outside")
    (place / "hard").hardlink_to(tmp_path / "outside" / "secret")
    os.mkfifo(place / "pipe")
    (place / "mine").write_bytes(b"a")
    assert _shown(workspace.search_files(".", HOLDS_A)) == ["mine:1:a"]


def test_a_half_written_file_is_not_shown(workspace: Workspace, place: Path) -> None:
    (place / ".meshflow-writing-0").write_bytes(b"a")
    assert workspace.search_files(".", HOLDS_A).lines == []


@pytest.mark.parametrize("data", [b"a\0b", b"a \xff", b"a" * 101])
def test_what_is_no_text_or_too_large_is_left_out_and_counted(
    workspace: Workspace, place: Path, opener: Opener, data: bytes
) -> None:
    del workspace
    (place / "odd").write_bytes(data)
    (place / "plain").write_bytes(b"a")
    outcome = _bounded(place, opener, file_bytes=100)
    assert _shown(outcome) == ["plain:1:a"]
    assert (outcome.files_read, outcome.files_left_out) == (1, 1)


@pytest.mark.usefixtures("workspace")
def test_each_bound_ends_the_search_and_is_told(place: Path, opener: Opener) -> None:
    for number in range(10):
        (place / f"f{number}").write_bytes(b"a\n" * 10)
    whole = _bounded(place, opener)
    assert (len(whole.lines), whole.is_cut, whole.files_left_out) == (100, False, 0)
    by_entries = _bounded(place, opener, entries=5)
    assert (len(by_entries.lines), by_entries.is_cut) == (50, True)
    by_matches = _bounded(place, opener, matches=7)
    assert (len(by_matches.lines), by_matches.is_cut) == (7, True)
    by_lines = _bounded(place, opener, lines=33)
    assert (len(by_lines.lines), by_lines.is_cut) == (33, True)
    for bounds in ({"total_bytes": 65}, {"steps": 65}):
        by_bytes = _bounded(place, opener, **bounds)
        assert (by_bytes.files_read, by_bytes.files_left_out) == (3, 7)


@pytest.mark.usefixtures("workspace")
def test_what_costs_more_for_a_byte_reads_fewer_bytes(place: Path, opener: Opener) -> None:
    for number in range(10):
        (place / f"f{number}").write_bytes(b"a" * 20)
    held = os.open(place, os.O_PATH)
    costly = LineMatcher(finds=HOLDS_A.finds, cost=10)
    outcome = WorkspaceSearch(opener, costly, SearchBounds(steps=1000)).look(held, ())
    os.close(held)
    assert outcome.files_read == 5


def test_a_long_line_is_cut_between_characters(workspace: Workspace) -> None:
    workspace.write_file("long", b"a" + "€".encode() * 200)
    (line,) = workspace.search_files(".", HOLDS_A).lines
    assert line.text == "a" + "€" * 99 + "..."


def test_a_name_that_is_no_text_is_shown_escaped(workspace: Workspace, place: Path) -> None:
    with (place / os.fsdecode(b"odd\xff\n")).open("wb") as file:
        file.write(b"a")
    assert _shown(workspace.search_files(".", HOLDS_A)) == ["odd\\udcff\\n:1:a"]


def test_directories_too_deep_for_a_path_are_told_not_followed(
    workspace: Workspace, place: Path
) -> None:
    deep = place
    for _ in range(40):
        deep /= "d"
        deep.mkdir()
    (deep / "f").write_bytes(b"a")
    outcome = workspace.search_files(".", HOLDS_A)
    assert (outcome.lines, outcome.is_cut) == ([], True)


def test_no_descriptor_stays_open(workspace: Workspace, place: Path) -> None:
    (place / "d").mkdir()
    os.mkfifo(place / "d" / "pipe")
    (place / "d" / "f").write_bytes(b"a")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        workspace.search_files(".", HOLDS_A)
        with pytest.raises(ToolError):
            workspace.search_files("d/pipe", HOLDS_A)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
