"""A cursor is taken back by whoever shares the keys, for the same list, and by nobody else."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from app.keys.daily_digests import DailyDigests
from app.keys.key_store import FileKeyStore
from app.keys.signed_cursors import SignedCursors

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
TENANT, OTHER = UUID(int=1), UUID(int=2)
POSITION = bytes(range(16))
PLACE = b"runs\0failed"


def cursors(directory: Path, now: datetime = NOON) -> SignedCursors:
    """A process with a clock of its own."""
    store = FileKeyStore(directory / "keys", os.urandom)
    return SignedCursors(DailyDigests(store), lambda: now)


def test_another_process_takes_it_back(tmp_path: Path) -> None:
    cursor = cursors(tmp_path).seal(TENANT, PLACE, POSITION)
    assert len(cursor) <= 64
    assert cursors(tmp_path).open(TENANT, PLACE, cursor) == POSITION


def test_it_is_for_one_tenant_and_one_place(tmp_path: Path) -> None:
    ours = cursors(tmp_path)
    cursor = ours.seal(TENANT, PLACE, POSITION)
    ours.seal(OTHER, PLACE, POSITION)  # so that the other tenant has a key, too
    assert ours.open(OTHER, PLACE, cursor) is None
    assert ours.open(TENANT, b"runs\0", cursor) is None
    assert ours.open(TENANT, PLACE + b"x", cursor) is None


def test_no_character_of_it_can_be_another(tmp_path: Path) -> None:
    ours = cursors(tmp_path)
    cursor = ours.seal(TENANT, PLACE, POSITION)
    for index, character in enumerate(cursor):
        for other in "AQgwZz09-_":
            if other != character:
                changed = cursor[:index] + other + cursor[index + 1 :]
                assert ours.open(TENANT, PLACE, changed) is None, (index, other)
    for bad in ("", "A", "=", cursor + "=", cursor + "A", cursor[:-1], cursor + "\n", "\xe9", "Ā"):
        assert ours.open(TENANT, PLACE, bad) is None, bad


@pytest.mark.parametrize(
    ("hours", "is_good"), [(-24, True), (0, True), (24, True), (35, True), (37, False), (99, False)]
)
def test_it_is_good_for_a_day_and_not_for_ever(tmp_path: Path, hours: int, is_good: bool) -> None:
    cursor = cursors(tmp_path).seal(TENANT, PLACE, POSITION)
    then = cursors(tmp_path, NOON + timedelta(hours=hours))
    assert (then.open(TENANT, PLACE, cursor) == POSITION) is is_good


def test_it_dies_with_its_key_and_no_key_is_made_for_a_stranger(tmp_path: Path) -> None:
    ours = cursors(tmp_path)
    cursor = ours.seal(TENANT, PLACE, POSITION)
    store = FileKeyStore(tmp_path / "keys", os.urandom)
    (kek_id,) = store.kek_ids("digest/")
    store.destroy_kek(kek_id, now=NOON)
    assert ours.open(TENANT, PLACE, cursor) is None
    assert store.kek_ids("digest/") == ()
