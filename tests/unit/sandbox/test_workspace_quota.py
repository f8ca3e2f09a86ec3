"""Counting and emptying a hostile tree: bounded, complete, and never through a link."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.sandbox.workspace_quota import exceeds_quota, wipe

MIB = 1024 * 1024


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    made.mkdir()
    return made


@pytest.fixture
def descriptor(place: Path) -> Iterator[int]:
    opened = os.open(place, os.O_PATH | os.O_DIRECTORY)
    yield opened
    os.close(opened)


def _exceeds(descriptor: int, total_bytes: int = MIB, entries: int = 10) -> bool:
    return exceeds_quota(descriptor, total_bytes=total_bytes, entries=entries)


def _deep(descriptor: int, levels: int) -> None:
    """Directories in each other, deeper than any path may be long."""
    held = os.dup(descriptor)
    for _ in range(levels):
        os.mkdir("d", dir_fd=held)
        below = os.open("d", os.O_PATH, dir_fd=held)
        os.close(held)
        held = below
    os.close(held)


def test_what_is_within_the_quota_is(place: Path, descriptor: int) -> None:
    assert not _exceeds(descriptor)
    for number in range(5):
        (place / f"d{number}").mkdir()
        (place / f"d{number}" / "f").write_bytes(b"x" * 1000)
    assert not _exceeds(descriptor)


def test_entries_are_counted_wherever_they_lie(place: Path, descriptor: int) -> None:
    (place / "a" / "b").mkdir(parents=True)
    for number in range(8):
        (place / "a" / "b" / f"{number}").touch()
    assert not _exceeds(descriptor)
    (place / "one-more").touch()
    assert _exceeds(descriptor)


def test_a_file_counts_what_it_claims_and_what_it_occupies(place: Path, descriptor: int) -> None:
    (place / "sparse").touch()
    os.truncate(place / "sparse", MIB + 1)
    assert _exceeds(descriptor)
    os.truncate(place / "sparse", 0)
    assert not _exceeds(descriptor)
    (place / "whole").write_bytes(b"x" * (MIB + 1))
    assert _exceeds(descriptor)


def test_a_tree_deeper_than_any_tool_reaches_is_over(descriptor: int) -> None:
    _deep(descriptor, 32)
    assert not _exceeds(descriptor, entries=1000)
    wipe(descriptor)
    _deep(descriptor, 34)
    assert _exceeds(descriptor, entries=1000)


def test_links_are_counted_and_not_followed(place: Path, descriptor: int, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for number in range(50):
        (outside / f"{number}").write_bytes(b"x" * MIB)
    (place / "link").symlink_to(outside)
    (place / "loop").symlink_to(".")
    assert not _exceeds(descriptor)


def test_everything_is_removed_and_the_directory_stays(
    place: Path, descriptor: int, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (place / "a" / "b" / "c").mkdir(parents=True)
    (place / "a" / "b" / "f").write_text("x")
    (place / "a" / "link").symlink_to(outside)
    (place / "top").symlink_to(outside / "kept")
    (place / ".meshflow-writing-0").mkdir()
    (place / "-rf").touch()
    (place / ("n" * 255)).mkdir()
    os.mkfifo(place / "pipe")
    wipe(descriptor)
    assert list(place.iterdir()) == []
    assert (outside / "kept").read_text() == "kept"


def test_a_tree_of_any_depth_is_removed(place: Path, descriptor: int) -> None:
    _deep(descriptor, 3000)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count, nothing else
    wipe(descriptor)
    assert list(place.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above


def test_an_empty_one_is_left_alone(place: Path, descriptor: int) -> None:
    wipe(descriptor)
    assert list(place.iterdir()) == []


def test_counting_leaves_no_descriptor_open(place: Path, descriptor: int) -> None:
    (place / "a" / "b").mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count, nothing else
    assert not _exceeds(descriptor)
    assert _exceeds(descriptor, entries=1)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above


def test_it_stops_where_it_is_told_to(place: Path, descriptor: int) -> None:
    for number in range(5):
        (place / f"{number}").touch()
    asked = iter([False, False, True])
    wipe(descriptor, is_over=lambda: next(asked))
    assert len(list(place.iterdir())) == 3
