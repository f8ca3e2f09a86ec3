"""A run that is parked over midnight goes on, although the work KEK of its first day is gone."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.domain.run import RunId, TenantId
from app.keys.key_store import FileKeyStore
from app.ledger_assembly import ledger_parts
from app.providers.scripted import ScriptedProvider
from app.runs.run_keys import RunKeys
from app.runs.work_key_sweep import WorkKeySweep
from app.storage.companions import WrappedKey
from app.storage.run_store import RunStore
from app.wiring import Overrides
from tests.integration.gate.gate_scenes import elsewhere, rows
from tests.integration.runs.test_parking import (
    _parking,
    _serving,
    _state,
    _submitted,
    _woken,
)
from tests.support.api_matrix import says
from tests.support.databases import DatabaseServer, Roles, connect
from tests.support.live_server import key_directory_of, settings_for

UNDER = "SELECT tenant_id, run_id, kek_id, wrapped FROM run_work WHERE wrapped IS NOT NULL"
AGE = """
UPDATE run_work SET kek_id = $3, wrapped = $4 WHERE tenant_id = $1 AND run_id = $2 AND seq = 0
"""
RETIRED = "SELECT kek_id, successor, destroyed_at FROM kek_retirement"


@pytest.fixture
def roles(postgres: DatabaseServer) -> Roles:
    return postgres.new_database()


async def _sweep(roles: Roles, directory: Path) -> None:
    parts = ledger_parts(settings_for(directory, roles))
    try:
        await WorkKeySweep(parts.runs, parts.run_keys).sweep(datetime.now(UTC))
    finally:
        await parts.database.close()


async def _aged(roles: Roles, directory: Path) -> str:
    """As if the run had been let in two days ago; its KEK of then."""
    (row,) = rows(roles, UNDER)
    ids = TenantId(row["tenant_id"]), RunId(row["run_id"])
    keys = ledger_parts(settings_for(directory, roles)).run_keys
    key = keys.open(*ids, WrappedKey(kek_id=row["kek_id"], wrapped=row["wrapped"]))
    old = keys.wrap_work_key(*ids, key, datetime.now(UTC) - timedelta(days=2))
    raw = await connect(roles.superuser)
    await raw.execute(AGE, *ids, old.kek_id, old.wrapped)
    await raw.close()
    return old.kek_id


def test_a_parked_run_outlives_the_work_key_of_its_day(roles: Roles, tmp_path: Path) -> None:
    with _serving(roles, _parking()) as (_, client):
        run_id = _submitted(client)
        _state(client, run_id, "awaiting_approval")
    store = FileKeyStore(key_directory_of(roles), lambda _: b"")
    first = elsewhere(lambda: _aged(roles, tmp_path))
    assert store.has_kek(first)
    elsewhere(lambda: _sweep(roles, tmp_path))
    (moved,) = rows(roles, UNDER)
    assert moved["kek_id"] > first
    assert not store.has_kek(first)
    (told,) = rows(roles, RETIRED)
    assert (told["kek_id"], told["successor"]) == (first, moved["kek_id"])
    assert told["destroyed_at"] is not None
    heir = ScriptedProvider([says("It is 42.")])
    overrides = Overrides(providers={"scripted": heir}, default_model="scripted")
    with _serving(roles, overrides) as (_, client):
        _woken(roles, run_id, tmp_path)
        assert _state(client, run_id, "succeeded", "interrupted")["output"] == "It is 42."


def test_a_sweep_of_the_same_day_moves_nothing(roles: Roles, tmp_path: Path) -> None:
    with _serving(roles, _parking()) as (_, client):
        run_id = _submitted(client)
        _state(client, run_id, "awaiting_approval")
    before = rows(roles, UNDER)
    elsewhere(lambda: _sweep(roles, tmp_path))
    assert rows(roles, UNDER) == before
    assert rows(roles, RETIRED) == []


def test_a_run_is_taken_over_while_its_key_changes_over(
    roles: Roles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _serving(roles, _parking()) as (_, client):
        run_id = _submitted(client)
        _state(client, run_id, "awaiting_approval")
    read = RunStore.working_copy
    elsewhere_keys = RunKeys(FileKeyStore(key_directory_of(roles), os.urandom), os.urandom)

    async def overtaken(
        self: RunStore, tenant_id: TenantId, run: RunId
    ) -> tuple[WrappedKey, Sequence[tuple[int, bytes]]] | None:
        """Another process moves the key, and ends the old one, after this one has read it."""
        found = await read(self, tenant_id, run)
        await WorkKeySweep(self, elsewhere_keys).sweep(datetime.now(UTC))
        return found

    heir = ScriptedProvider([says("It is 42.")])
    overrides = Overrides(providers={"scripted": heir}, default_model="scripted")
    with _serving(roles, overrides) as (_, client):
        elsewhere(lambda: _aged(roles, tmp_path))
        monkeypatch.setattr(RunStore, "working_copy", overtaken)
        _woken(roles, run_id, tmp_path)
        assert _state(client, run_id, "succeeded", "interrupted")["output"] == "It is 42."
