"""A KEK of a day has versions: the newest that exists wraps, and no dead name is used again."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from app.domain.run import RunId, TenantId
from app.keys.key_store import FileKeyStore
from app.runs.run_keys import RunKeys, newest_version, next_version

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
TENANT, RUN = TenantId(UUID(int=1)), RunId(UUID(int=2))
FIRST = f"ledger/{TENANT.hex}/20261125"


@pytest.fixture
def store(tmp_path: Path) -> FileKeyStore:
    return FileKeyStore(tmp_path / "keys", os.urandom)


def test_the_first_key_of_a_day_has_no_version(store: FileKeyStore) -> None:
    _, wrapped = RunKeys(store, os.urandom).new_run_key(TENANT, RUN, NOW)
    assert wrapped.kek_id == FIRST
    assert next_version(FIRST) == f"{FIRST}.1"
    assert next_version(f"{FIRST}.9") == f"{FIRST}.10"


def test_the_newest_is_the_one_with_the_largest_number(store: FileKeyStore) -> None:
    for kek_id in (FIRST, f"{FIRST}.2", f"{FIRST}.10", f"ledger/{TENANT.hex}/20261124.99"):
        store.create_kek(kek_id)
    assert newest_version(store, FIRST) == f"{FIRST}.10"


def test_a_key_that_was_destroyed_is_left_for_the_next_one(store: FileKeyStore) -> None:
    keys = RunKeys(store, os.urandom)
    keys.new_run_key(TENANT, RUN, NOW)
    store.create_kek(f"{FIRST}.1")
    store.destroy_kek(FIRST, now=NOW)
    assert keys.new_run_key(TENANT, RUN, NOW)[1].kek_id == f"{FIRST}.1"
    assert not store.has_kek(FIRST)


def test_whoever_is_told_looks_for_the_newest_again(store: FileKeyStore) -> None:
    keys = RunKeys(store, os.urandom)
    keys.new_run_key(TENANT, RUN, NOW)
    store.create_kek(f"{FIRST}.1")
    assert keys.new_run_key(TENANT, RUN, NOW)[1].kek_id == FIRST
    keys.look_again()
    key, wrapped = keys.new_run_key(TENANT, RUN, NOW)
    assert wrapped.kek_id == f"{FIRST}.1"
    assert keys.open(TENANT, RUN, wrapped) == key


def test_work_keys_end_unless_they_are_needed_or_of_today(store: FileKeyStore) -> None:
    keys = RunKeys(store, os.urandom)
    for days in range(4):
        keys.new_result_key(TENANT, RUN, NOW - timedelta(days=days))
    work = store.kek_ids("work/")
    keys.destroy_work_keys(keep={work[1]}, now=NOW)
    assert store.kek_ids("work/") == (work[1], work[3])
